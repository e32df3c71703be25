use hickory_proto::op::{Message, ResponseCode};

use super::super::message::Query;
use super::super::tests::samples::{nxdomain, positive, query, reply, soa, wire};
use super::*;

const LINK: u64 = 3;

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
    cache.keep(key, kept, cache.moment(LINK), now);
}

fn has(cache: &mut Cache, (key, kept): (Key, Kept), now: Instant) -> bool {
    cache.find(&key, LINK, now).is_some_and(|found| found.kept == kept)
}

fn age(cache: &mut Cache, key: &Key, now: Instant) -> Option<Age> {
    cache.find(key, LINK, now).map(|found| found.age)
}

fn spares_the_question(cache: &mut Cache, key: &Key, link: u64, now: Instant) -> bool {
    cache.find(key, link, now).is_some_and(|found| found.spares_the_question())
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
        cache.keep(key.clone(), kept.clone(), cache.moment(LINK), now);
        assert_eq!(cache.find(&key, LINK, now).unwrap().kept, *kept);
    }
    assert_eq!((cache.positive.entries.len(), cache.negative.entries.len()), (1, 0));
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
    assert!(!has(&mut cache, host(1), now));
}

#[test]
fn bytes_are_bounded_too() {
    let mut store = Store::new(Bounds { entries: 1000, bytes: 10_000 });
    for number in 0..1000 {
        let (key, kept) = host(number);
        let now = Instant::now();
        store.insert(key, Entry { kept, stored: now, expires: now, asked: Cache::default().moment(LINK) });
        assert!(store.bytes <= 10_000);
    }
    assert!(store.entries.len() > 10);
    let counted: usize = store.entries.iter().map(|(key, entry)| size(key, entry)).sum();
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
    let asked = cache.moment(LINK);
    cache.domains_changed(|_| true, now);
    let (key, kept) = host(1);
    cache.keep(key, kept, asked, now);
    assert!(!has(&mut cache, host(1), now));
}

#[test]
fn an_answer_spares_the_same_question_for_a_while() {
    let (mut cache, now) = (Cache::default(), Instant::now());
    let kept = |query: &Query, answer: &Message| Kept::new(query, &wire(answer)).unwrap();
    let query = query("www.corp.example.");
    let key = Key::new(&query).unwrap();
    let longest = |cache: &mut Cache, kept| {
        cache.keep(key.clone(), kept, cache.moment(LINK), now);
        (0..200).take_while(|&n| spares_the_question(cache, &key, LINK, now + Duration::from_secs(n))).count()
    };
    let minute = MAX_POSITIVE.as_secs() as usize;
    for (ttl, seconds) in [(0, 0), (1, 1), (20, 20), (3600, minute)] {
        assert_eq!(longest(&mut cache, kept(&query, &positive(&query, ttl))), seconds, "TTL {ttl}");
    }
    let nodata = |ttl| {
        let mut answer = reply(&query, ResponseCode::NoError);
        answer.add_authority(soa(3600, ttl));
        answer
    };
    for (ttl, seconds) in [(0, 0), (3, 3), (3600, MAX_NEGATIVE.as_secs() as usize)] {
        assert_eq!(longest(&mut cache, kept(&query, &nxdomain(&query, ttl, 3600))), seconds, "TTL {ttl}");
        assert_eq!(longest(&mut cache, kept(&query, &nodata(ttl))), seconds, "minimum {ttl}");
    }
    let without_soa = kept(&query, &reply(&query, ResponseCode::NXDomain));
    assert_eq!(longest(&mut cache, without_soa), 0, "RFC 2308 section 5");
}

#[test]
fn an_answer_from_before_a_change_or_of_another_link_spares_no_question() {
    let (mut cache, now) = (Cache::default(), Instant::now());
    let key = host(1).0;
    keep(&mut cache, host(1), now);
    assert!(spares_the_question(&mut cache, &key, LINK, now));
    assert!(!spares_the_question(&mut cache, &key, LINK + 1, now));
    cache.changed();
    assert!(!spares_the_question(&mut cache, &key, LINK, now));
    assert_eq!(
        age(&mut cache, &key, now),
        Some(Age::Fresh(Duration::ZERO)),
        "but it is there without a link"
    );

    keep(&mut cache, host(1), now);
    assert!(spares_the_question(&mut cache, &key, LINK, now));
    let asked = cache.moment(LINK);
    cache.changed();
    cache.keep(key.clone(), host(1).1, asked, now);
    assert!(
        !spares_the_question(&mut cache, &key, LINK, now),
        "asked for before the change, answered after it"
    );
}
