//! The body of a fuzz target: DNS messages as the laptop meets them, a client's query and a server's answer.

use gh_net_common::frame::is_domain;
use hickory_proto::op::{Message, MessageType};

use super::answer::Lookup;
use super::message::{self, Received, Reply, Transport};
use super::named::Named;

/// The first byte says how the query arrives, the second how long it is; the rest is what a server answers.
///
/// # Panics
/// A client gets an answer that is not its own or is too long for it, or an answer names what is no name.
pub fn message(data: &[u8]) {
    let [how, length, rest @ ..] = data else { return };
    let transport = if how & 1 == 0 { Transport::Udp } else { Transport::Tcp };
    let (query, response) = rest.split_at(usize::from(*length).min(rest.len()));
    let request = match message::receive(query, transport) {
        Received::Nothing => return,
        Received::Answer(answer) => return answers(query, &answer),
        Received::Request(request) => request,
    };
    for with_edns in [false, true] {
        request.to_server(with_edns).to_vec().expect("a query that was parsed can be sent on");
    }
    let reply = match Message::from_vec(response) {
        Ok(message) => Reply::of_server([192, 0, 2, 1].into(), message),
        Err(_) => Reply::unanswered(),
    };
    let lookup = Lookup::new(&request, Some(&reply));
    assert!(lookup.name.is_ascii() && !lookup.name.contains(char::is_control), "{:?}", lookup.name);
    if let Some(named) = Named::of(request.question(), &reply) {
        assert!(!named.addresses.is_empty(), "names of nothing");
        assert!(named.names.iter().all(|name| is_domain(name)), "{:?}", named.names);
    }
    let answer = request.answer(&reply);
    answers(query, &answer);
    let has_edns = Message::from_vec(query).is_ok_and(|query| query.edns.is_some());
    if transport == Transport::Udp && !has_edns {
        assert!(answer.len() <= 512, "{} bytes for a client without EDNS", answer.len());
    }
}

/// The answer is a response with the query's id that can be parsed.
fn answers(query: &[u8], answer: &[u8]) {
    assert_eq!(answer[..2], query[..2], "the answer has another id");
    let answer = Message::from_vec(answer).expect("an answer of ours can be parsed");
    assert_eq!(answer.metadata.message_type, MessageType::Response);
}
