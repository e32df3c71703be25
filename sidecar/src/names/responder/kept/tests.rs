use std::collections::HashSet;

use hickory_proto::rr::rdata::opt::{ClientSubnet, EdnsOption};
use hickory_proto::rr::rdata::{A, CNAME, NS, TXT};
use hickory_proto::rr::{Name, Record};

use super::super::tests::samples::{
    extended_error, nxdomain, positive, query, question, received, reply, soa, wire,
};
use super::*;

fn kept(query: &Query, answer: &Message) -> Option<Kept> {
    Kept::new(query, &wire(answer))
}

fn seconds(kept: Option<Kept>) -> Option<u64> {
    kept.map(|kept| kept.ttl().as_secs())
}

fn answered(kept: &Kept, query: &Query, age: Age) -> Message {
    Message::from_vec(&kept.answer(query, Transport::Udp, age).unwrap()).unwrap()
}

#[test]
fn failures_truncated_answers_and_referrals_are_not_kept() {
    let query = query("www.corp.example.");
    for code in [ResponseCode::ServFail, ResponseCode::Refused, ResponseCode::NotImp] {
        assert_eq!(kept(&query, &reply(&query, code)), None, "{code}");
    }
    let mut truncated = positive(&query, 60);
    truncated.metadata.truncation = true;
    assert_eq!(kept(&query, &truncated), None);
    let mut referral = reply(&query, ResponseCode::NoError);
    let zone = Name::from_ascii("corp.example.").unwrap();
    referral.add_authority(Record::from_rdata(zone.clone(), 60, RData::NS(NS(zone))));
    assert_eq!(kept(&query, &referral), None);
    assert_eq!(Kept::new(&query, b"no message"), None);
}

#[test]
fn what_is_too_long_is_not_kept() {
    let query = query("www.corp.example.");
    let mut long = positive(&query, 60);
    let name = long.queries[0].name().clone();
    for _ in 0..20 {
        let text = RData::TXT(TXT::new(vec!["x".repeat(250)]));
        long.add_answer(Record::from_rdata(name.clone(), 60, text));
    }
    assert_eq!(kept(&query, &long), None);
}

#[test]
fn the_ttl_is_the_lowest_one_and_that_of_the_soa_record() {
    let query = query("www.corp.example.");
    assert_eq!(seconds(kept(&query, &positive(&query, 60))), Some(60));
    let mut two = positive(&query, 60);
    two.add_answer(positive(&query, 20).answers.remove(0));
    assert_eq!(seconds(kept(&query, &two)), Some(20));
    assert_eq!(seconds(kept(&query, &positive(&query, u32::MAX))), Some(MAX_TTL.into()));
    // RFC 2308 section 5: the lower one of the SOA's TTL and its minimum.
    assert_eq!(seconds(kept(&query, &nxdomain(&query, 300, 40))), Some(40));
    assert_eq!(seconds(kept(&query, &nxdomain(&query, 30, 40))), Some(30));
    assert_eq!(seconds(kept(&query, &reply(&query, ResponseCode::NXDomain))), Some(0), "never fresh");
}

#[test]
fn an_alias_without_the_records_asked_for_is_negative() {
    let query = query("alias.corp.example.");
    let mut alias = reply(&query, ResponseCode::NoError);
    let target = RData::CNAME(CNAME(Name::from_ascii("www.corp.example.").unwrap()));
    alias.add_answer(Record::from_rdata(alias.queries[0].name().clone(), 60, target));
    alias.add_authority(soa(40, 40));
    let kept = kept(&query, &alias).unwrap();
    assert!(kept.is_negative());
    assert_eq!(kept.ttl().as_secs(), 40);
}

#[test]
fn an_answer_belongs_to_the_query_that_it_answers() {
    let first = query("WWW.corp.example.");
    let mut original = positive(&first, 60);
    original.metadata.authentic_data = true;
    let kept = kept(&first, &original).unwrap();

    let mut plain = question("www.CORP.example.", RecordType::A);
    plain.metadata.recursion_desired = false;
    let answer = answered(&kept, &received(&plain), Age::Fresh(Duration::from_secs(13)));
    assert_eq!(answer.metadata.id, plain.metadata.id);
    assert_eq!(answer.queries[0].name().to_string(), "www.CORP.example.");
    assert!(!answer.metadata.recursion_desired && !answer.metadata.authoritative);
    assert!(answer.metadata.authentic_data);
    assert_eq!(answer.edns, None, "for a client without EDNS");
    assert_eq!(answer.answers[0].ttl, 47);
    assert_eq!(answer.answers[0].data, original.answers[0].data);

    let answer = answered(&kept, &first, Age::Fresh(Duration::ZERO));
    assert!(answer.edns.is_some());
    assert_eq!(extended_error(&answer), None);
}

#[test]
fn a_stale_answer_says_that_it_is_stale() {
    let query = query("www.corp.example.");
    for (original, ttl) in [(3600, 30), (30, 30), (5, 5), (0, 1)] {
        let kept = kept(&query, &positive(&query, original)).unwrap();
        let answer = answered(&kept, &query, Age::Stale);
        assert_eq!(answer.answers[0].ttl, ttl, "of {original}");
        assert_eq!(extended_error(&answer), Some(3));
        assert!(!answer.metadata.authentic_data);
    }
    let kept = kept(&query, &nxdomain(&query, 300, 300)).unwrap();
    let answer = answered(&kept, &query, Age::Stale);
    assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!((answer.authorities[0].ttl, extended_error(&answer)), (30, Some(19)));
}

#[test]
fn an_answer_has_a_size_that_the_client_accepts() {
    let mut wide = question("www.corp.example.", RecordType::A);
    wide.edns = Some(Edns::new());
    wide.edns.as_mut().unwrap().set_max_payload(1232);
    let wide = received(&wide);
    let mut long = positive(&wide, 60);
    for last in 0..50 {
        let mut record = long.answers[0].clone();
        record.data = RData::A(A::new(10, 20, 1, last));
        long.add_answer(record);
    }
    let kept = kept(&wide, &long).unwrap();
    let plain = received(&question("www.corp.example.", RecordType::A));
    let cut = answered(&kept, &plain, Age::Stale);
    assert!(cut.metadata.truncation && cut.answers.is_empty());
    assert_eq!(answered(&kept, &wide, Age::Stale).answers.len(), 51);
    let whole = Message::from_vec(&kept.answer(&plain, Transport::Tcp, Age::Stale).unwrap()).unwrap();
    assert_eq!((whole.metadata.truncation, whole.answers.len()), (false, 51));
}

#[test]
fn queries_with_the_same_key_have_the_same_answer() {
    let key = |message: &Message| Key::new(&received(message)).unwrap();
    let plain = question("www.corp.example.", RecordType::A);
    assert_eq!(key(&plain), key(&question("WWW.Corp.example.", RecordType::A)));
    assert_eq!(key(&plain), Key::new(&query("www.corp.example.")).unwrap());
    assert_eq!(key(&plain).name(), b"\x03www\x04corp\x07example");
    assert_ne!(key(&plain), key(&question("www.corp.example.", RecordType::AAAA)));
    let mut dnssec = plain.clone();
    dnssec.edns = Some(Edns::new());
    dnssec.edns.as_mut().unwrap().set_dnssec_ok(true);
    let mut unchecked = plain.clone();
    unchecked.metadata.checking_disabled = true;
    assert_ne!(key(&plain), key(&dnssec));
    assert_ne!(key(&plain), key(&unchecked));
    assert_ne!(key(&dnssec), key(&unchecked));
    let mut checked = plain.clone();
    checked.metadata.authentic_data = true;
    let mut not_recursive = plain.clone();
    not_recursive.metadata.recursion_desired = false;
    let keys = [&plain, &dnssec, &unchecked, &checked, &not_recursive].map(key);
    assert_eq!(keys.iter().collect::<HashSet<_>>().len(), keys.len());
}

#[test]
fn an_answer_tailored_to_a_network_is_not_kept() {
    let mut tailored = question("www.corp.example.", RecordType::A);
    let mut edns = Edns::new();
    let network = ClientSubnet::new([10, 20, 0, 0].into(), 16, 0);
    edns.options_mut().insert(EdnsOption::Subnet(network));
    tailored.edns = Some(edns);
    assert_eq!(Key::new(&received(&tailored)), None);
}

proptest::proptest! {
    #[test]
    fn nothing_panics(answer: Vec<u8>, changed: (usize, u8)) {
        let query = query("www.corp.example.");
        Kept::new(&query, &answer);
        let mut damaged = wire(&nxdomain(&query, 300, 40)).to_vec();
        let at = changed.0 % damaged.len();
        damaged[at] = changed.1;
        if let Some(kept) = Kept::new(&query, &damaged) {
            kept.answer(&query, Transport::Udp, Age::Stale);
        }
    }
}
