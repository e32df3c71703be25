use super::super::tests::samples::{nxdomain, positive, query, wire};
use super::*;

/// A key, and an answer of a host with this number.
fn host(number: usize) -> (Key, Kept) {
    let query = query(&format!("host{number}.corp.example."));
    (Key::new(&query).unwrap(), Kept::new(&query, &wire(&positive(&query, 60))).unwrap())
}

fn no_host(number: usize) -> (Key, Kept) {
    let query = query(&format!("none{number}.corp.example."));
    (Key::new(&query).unwrap(), Kept::new(&query, &wire(&nxdomain(&query, 60, 60))).unwrap())
}

fn keep(cache: &mut Cache, (key, kept): (Key, Kept), now: Instant) {
    cache.keep(key, kept, cache.changes(), now);
}

fn has(cache: &mut Cache, (key, kept): (Key, Kept), now: Instant) -> bool {
    cache.find(&key, now).is_some_and(|(found, _)| found == kept)
}

fn age(cache: &mut Cache, key: &Key, now: Instant) -> Option<Age> {
    cache.find(key, now).map(|(_, age)| age)
}

#[test]
fn an_answer_is_fresh_then_stale_then_gone() {
    let (mut cache, now) = (Cache::default(), Instant::now());
    keep(&mut cache, host(1), now);
    let key = host(1).0;
    let after = |seconds| now + Duration::from_secs(seconds);
    assert_eq!(age(&mut cache, &key, after(0)), Some(Age::Fresh(Duration::ZERO)));
    assert_eq!(age(&mut cache, &key, after(59)), Some(Age::Fresh(Duration::from_secs(59))));
    assert_eq!(age(&mut cache, &key, after(60)), Some(Age::Stale));
    assert_eq!(age(&mut cache, &key, after(59) + MAX_STALE), Some(Age::Stale));
    assert_eq!(age(&mut cache, &key, after(60) + MAX_STALE), None);
    assert_eq!(cache.positive.bytes, 0);
}

#[test]
fn the_latest_answer_counts() {
    let (mut cache, now) = (Cache::default(), Instant::now());
    let (key, answer) = host(1);
    let negative = no_host(1).1;
    for kept in [&answer, &negative, &answer, &answer] {
        cache.keep(key.clone(), kept.clone(), 0, now);
        assert_eq!(cache.find(&key, now).unwrap().0, *kept);
    }
    assert_eq!((cache.positive.entries.len(), cache.negative.entries.len()), (1, 0));
    assert_eq!((cache.positive.by_use.len(), cache.negative.by_use.len()), (1, 0));
}

#[test]
fn the_least_recently_used_make_room() {
    let (mut cache, now) = (Cache::default(), Instant::now());
    keep(&mut cache, host(0), now);
    for number in 1..3 * POSITIVE.entries {
        keep(&mut cache, host(number), now);
        assert!(has(&mut cache, host(0), now), "used all the time");
    }
    assert!(cache.positive.entries.len() <= POSITIVE.entries);
    assert_eq!(cache.positive.entries.len(), cache.positive.by_use.len());
    assert!(!has(&mut cache, host(1), now));
}

#[test]
fn bytes_are_bounded_too() {
    let mut store = Store::new(Bounds { entries: 1000, bytes: 10_000 });
    for number in 0..1000 {
        let (key, kept) = host(number);
        store.insert(key, kept, Instant::now());
        assert!(store.bytes <= 10_000);
    }
    assert!(store.entries.len() > 10);
    let counted: usize = store.entries.iter().map(|(key, entry)| size(key, &entry.kept)).sum();
    assert_eq!(store.bytes, counted);
}

#[test]
fn names_that_do_not_exist_do_not_evict_those_that_do() {
    let (mut cache, now) = (Cache::default(), Instant::now());
    (0..100).for_each(|number| keep(&mut cache, host(number), now));
    (0..3 * POSITIVE.entries).for_each(|number| keep(&mut cache, no_host(number), now));
    assert!((0..100).all(|number| has(&mut cache, host(number), now)));
    assert!(cache.negative.entries.len() <= NEGATIVE.entries);
}

#[test]
fn an_answer_does_not_outlive_the_names_belonging_to_the_laptop() {
    let (mut cache, now) = (Cache::default(), Instant::now());
    (0..10).for_each(|number| keep(&mut cache, host(number), now));
    keep(&mut cache, no_host(0), now);
    let (lost, kept) = (host(3), host(4));
    cache.domains_changed(|name| name != lost.0.name() && !name.starts_with(b"\x05none"), now);
    assert!(!has(&mut cache, lost, now));
    assert!(!has(&mut cache, no_host(0), now));
    assert_eq!(age(&mut cache, &kept.0, now), Some(Age::Stale), "the networks have changed");
}

#[test]
fn an_answer_that_a_change_of_the_domains_has_overtaken_is_not_kept() {
    let (mut cache, now) = (Cache::default(), Instant::now());
    let asked = cache.changes();
    cache.domains_changed(|_| true, now);
    let (key, kept) = host(1);
    cache.keep(key, kept, asked, now);
    assert!(!has(&mut cache, host(1), now));
}
