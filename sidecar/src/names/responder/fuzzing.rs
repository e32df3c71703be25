//! The body of a fuzz target: DNS messages as the codespace's side meets them, a client's query and an upstream's answer.

use std::time::Duration;

use bytes::Bytes;
use gh_net_common::frame::DnsMode;
use hickory_proto::op::{Message, MessageType};
use tokio::time::Instant;

use super::cache::{Cache, Found};
use super::choice::{Choice, Domains, choose};
use super::kept::{Age, Kept, Key};
use super::message::{self, Query, Received};
use super::upstream::Transport;

/// The id of the question to the upstream.
const ID: u16 = 0x1234;

/// The first byte says how old a kept answer is, the second how long the query is; the rest is what an upstream answers.
///
/// # Panics
/// A client gets an answer that is not its own or is too long for it, or a name of the laptop goes to the codespace.
pub fn responder(data: &[u8]) {
    let [age, length, rest @ ..] = data else { return };
    let (query, response) = rest.split_at(usize::from(*length).min(rest.len()));
    let query = match message::receive(Bytes::copy_from_slice(query)) {
        Received::Nothing => return,
        Received::Answer(answer) => return answers(query, &answer),
        Received::Query(query) => query,
    };
    query.display();
    let name = query.name();
    let own = Domains::new(["corp.example", "10.in-addr.arpa"]);
    let goes = choose(DnsMode::Split, &own, &name);
    assert_eq!(goes == Choice::LaptopOnly, own.contain(&name), "{}", query.display());

    let mut response = response.to_vec();
    if let Some(id) = response.first_chunk_mut() {
        *id = ID.to_be_bytes();
    }
    if query.is_answered_by(&response, ID) {
        answers(&query.with_id(0), &[&[0; 2], &query.answer(&response)[2..]].concat());
        keep(&query, &response, (*age).into());
    }
}

/// Keeps an answer, and gives it to the same client so many hours later.
fn keep(query: &Query, response: &[u8], hours: u64) {
    const LINK: u64 = 1;
    let (Some(key), Some(kept)) = (Key::new(query), Kept::new(query, response)) else { return };
    assert_eq!(key.name(), query.name());
    let (now, mut cache) = (Instant::now(), Cache::default());
    let ttl = kept.ttl();
    cache.keep(key.clone(), kept, cache.moment(LINK), now);
    let age = Duration::from_secs(hours * 3600);
    let found = cache.find(&key, LINK, now + age);
    assert!(found.is_some() || age >= ttl, "an answer is lost after {age:?} of {ttl:?}");
    let Some(Found { kept, age: aged, .. }) = found else { return };
    assert_eq!(aged == Age::Stale, age >= ttl);
    let has_edns = query.parsed().is_some_and(|query| query.edns.is_some());
    let udp = if has_edns { usize::MAX } else { 512 };
    for (by, most) in [(Transport::Udp, udp), (Transport::Tcp, u16::MAX.into())] {
        let Some(answer) = kept.answer(query, by, aged) else { continue };
        assert!(answer.len() <= most, "{} bytes over {by:?}", answer.len());
        answers(&query.with_id(0), &[&[0; 2], &answer[2..]].concat());
        Message::from_vec(&answer).expect("an answer of ours can be parsed");
    }
    cache.domains_changed(|_| false, now);
    assert!(cache.find(&key, LINK, now).is_none(), "an answer outlives the domain's owner");
}

/// The answer is a response with the query's id.
fn answers(query: &[u8], answer: &[u8]) {
    assert_eq!(answer[..2], query[..2], "the answer has another id");
    assert!(answer[2] & 0x80 != 0, "the answer is no response");
    if let Ok(answer) = Message::from_vec(answer) {
        assert_eq!(answer.metadata.message_type, MessageType::Response);
    }
}
