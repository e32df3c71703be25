use super::*;

const TTL: Duration = Duration::from_secs(300);

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn address(number: usize) -> IpAddr {
    IpAddr::from([10, 0, (number >> 8) as u8, number as u8])
}

struct World {
    table: Table,
    start: Instant,
}

impl World {
    fn new() -> Self {
        Self { table: Table::default(), start: Instant::now() }
    }

    fn learn(&mut self, number: usize, answer: &[&str], seconds: u64, ttl: Duration) {
        let now = self.start + Duration::from_secs(seconds);
        let answer = names(answer);
        let answer = answer.iter().map(|name| (name, name.ends_with(".rule")));
        self.table.learn(address(number), answer, ttl - GRACE, now);
    }

    fn of(&mut self, number: usize, seconds: u64) -> Vec<String> {
        self.table.of(address(number), self.start + Duration::from_secs(seconds)).to_vec()
    }
}

#[test]
fn an_address_has_all_its_names_the_latest_first() {
    let mut world = World::new();
    world.learn(1, &["a.example", "pool.example"], 0, TTL);
    world.learn(1, &["b.example", "pool.example"], 1, TTL);
    assert_eq!(world.of(1, 2), names(&["b.example", "pool.example", "a.example"]));
    world.learn(1, &["a.example"], 3, TTL);
    assert_eq!(world.of(1, 4), names(&["a.example", "b.example", "pool.example"]));
    assert_eq!(world.of(2, 4), names(&[]));
}

#[test]
fn a_name_lives_as_long_as_its_latest_answer() {
    let mut world = World::new();
    world.learn(1, &["a.example"], 0, TTL);
    world.learn(1, &["b.example"], 0, 2 * TTL);
    world.learn(1, &["b.example"], 0, TTL);
    assert_eq!(world.of(1, 299), names(&["b.example", "a.example"]));
    assert_eq!(world.of(1, 300), names(&["b.example"]), "a shorter answer does not end the longer one");
    assert_eq!(world.of(1, 600), names(&[]));
    assert!(world.table.shown.addresses.is_empty() && world.table.shown.by_end.is_empty());
}

#[test]
fn time_without_a_link_does_not_count() {
    let mut world = World::new();
    world.learn(1, &["over.example"], 0, TTL);
    world.learn(2, &["a.example"], 200, TTL);
    let at = |seconds| world.start + Duration::from_secs(seconds);
    world.table.resume(Pause { from: at(400), to: at(1400) });
    assert_eq!(world.of(1, 1400), names(&[]));
    assert_eq!(world.of(2, 1499), names(&["a.example"]));
    assert_eq!(world.of(2, 1500), names(&[]));
}

#[test]
fn the_names_of_an_address_are_bounded() {
    let mut world = World::new();
    world.learn(1, &["first.example"], 0, TTL / 2);
    for number in 0..MAX_NAMES {
        world.learn(1, &[&format!("{number}.example")], 1, TTL);
    }
    let known = world.of(1, 2);
    assert_eq!((known.len(), known[0].as_str()), (MAX_NAMES, "7.example"));
    assert!(!known.contains(&"first.example".to_owned()), "it would have expired first");

    let long = |letter: &str| letter.repeat(250);
    for letter in ["a", "b", "c"] {
        world.learn(2, &[&long(letter)], 0, TTL);
    }
    assert_eq!(world.of(2, 1), [long("c"), long("b")]);
    world.learn(3, &[&"x".repeat(MAX_BYTES + 1)], 0, TTL);
    assert_eq!(world.of(3, 1), names(&[]));
}

#[test]
fn the_addresses_are_bounded_and_the_first_to_expire_makes_room() {
    let mut world = World::new();
    for number in 0..MAX_ADDRESSES {
        world.learn(number, &["many.example"], 0, if number == 77 { TTL / 2 } else { TTL });
    }
    world.learn(MAX_ADDRESSES, &["one-more.example"], 1, TTL);
    assert_eq!(world.table.shown.addresses.len(), MAX_ADDRESSES);
    assert_eq!(world.table.shown.by_end.len(), MAX_ADDRESSES);
    assert_eq!(world.of(77, 2), names(&[]));
    assert_eq!(world.of(78, 2), names(&["many.example"]));
    assert_eq!(world.of(MAX_ADDRESSES, 2), names(&["one-more.example"]));
}

#[test]
fn a_flow_keeps_the_names_of_few_destinations() {
    let mut kept = Kept::default();
    let destination = |number| SocketAddr::new(address(number), 53);
    let named = |name: &str| Names(Some(names(&[name]).into()));
    for number in 0..=MAX_DESTINATIONS {
        kept.keep(destination(number), &named("a.example"));
    }
    kept.keep(destination(99), &Names::default());
    assert_eq!(kept.of(destination(0)), Names::default(), "the oldest made room");
    assert_eq!(kept.of(destination(1)), named("a.example"));
    kept.keep(destination(1), &named("b.example"));
    assert_eq!(kept.of(destination(1)), named("b.example"));
    assert_eq!(kept.0.len(), MAX_DESTINATIONS);
}

#[test]
fn names_that_no_rule_refers_to_displace_none_that_one_does() {
    let mut world = World::new();
    world.learn(1, &["www.example", "db.rule"], 0, TTL);
    for number in 0..2 * MAX_ADDRESSES {
        world.learn(2 + number, &["long.example"], 0, MAX_TTL);
    }
    for number in 0..2 * MAX_NAMES {
        world.learn(1, &[&format!("{number}.{}.example", "x".repeat(50))], 1, MAX_TTL);
    }
    assert!(world.of(1, 2).contains(&"db.rule".to_owned()));
    assert_eq!(world.table.shown.addresses.len(), MAX_ADDRESSES);
    let mut world = World::new();
    for number in 0..=MAX_ADDRESSES {
        world.learn(number, &["db.rule"], number as u64, TTL);
    }
    assert_eq!(world.of(0, 5), names(&[]), "the first to expire made room");
    assert_eq!(
        (world.table.ruled.addresses.len(), world.table.ruled.by_end.len()),
        (MAX_ADDRESSES, MAX_ADDRESSES)
    );
}

#[test]
fn what_is_only_shown_lives_an_hour_at_most() {
    let mut world = World::new();
    world.learn(1, &["www.example", "db.rule"], 0, MAX_TTL);
    let hour = MAX_TTL_SHOWN.as_secs() + GRACE.as_secs();
    assert_eq!(world.of(1, hour - 1), names(&["www.example", "db.rule"]));
    assert_eq!(world.of(1, hour), names(&["db.rule"]));
}
