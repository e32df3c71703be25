//! Queries and answers for the tests of several modules.

use bytes::Bytes;
use hickory_proto::op::{Edns, Message, Query as Question, ResponseCode};
use hickory_proto::rr::rdata::opt::EdnsOption;
use hickory_proto::rr::rdata::{A, SOA};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::super::message::{self, Query, Received};

/// A query with EDNS.
pub(in super::super) fn query(name: &str) -> Query {
    let mut message = question(name, RecordType::A);
    message.edns = Some(Edns::new());
    received(&message)
}

/// A query as a message, without EDNS.
pub(in super::super) fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Question::query(Name::from_ascii(name).unwrap(), kind));
    message
}

/// The query as the responder sees it.
pub(in super::super) fn received(message: &Message) -> Query {
    let received = message::receive(message.to_vec().unwrap().into());
    let Received::Query(query) = received else { panic!("{received:?}") };
    query
}

/// An answer with the address 10.20.0.10.
pub(in super::super) fn positive(query: &Query, ttl: u32) -> Message {
    let mut answer = reply(query, ResponseCode::NoError);
    let name = answer.queries[0].name().clone();
    answer.add_answer(Record::from_rdata(name, ttl, RData::A(A::new(10, 20, 0, 10))));
    answer
}

/// An answer without records.
pub(in super::super) fn reply(query: &Query, code: ResponseCode) -> Message {
    let asked = query.parsed().unwrap();
    let mut answer = asked.into_response();
    answer.metadata.response_code = code;
    answer.metadata.authoritative = true;
    answer
}

/// NXDOMAIN with a SOA record.
pub(in super::super) fn nxdomain(query: &Query, ttl: u32, minimum: u32) -> Message {
    let mut answer = reply(query, ResponseCode::NXDomain);
    answer.add_authority(soa(ttl, minimum));
    answer
}

/// The SOA record of corp.example.
pub(in super::super) fn soa(ttl: u32, minimum: u32) -> Record {
    let name = |name| Name::from_ascii(name).unwrap();
    let soa = SOA::new(name("ns.corp.example."), name("admin.corp.example."), 1, 3600, 600, 86400, minimum);
    Record::from_rdata(name("corp.example."), ttl, RData::SOA(soa))
}

/// A message in wire format.
pub(in super::super) fn wire(message: &Message) -> Bytes {
    message.to_vec().unwrap().into()
}

/// The extended error of an answer.
pub(in super::super) fn extended_error(answer: &Message) -> Option<u16> {
    let option = answer.edns.as_ref()?.option(15u16.into())?;
    let EdnsOption::Unknown(_, data) = option else { panic!("{option:?}") };
    Some(u16::from_be_bytes([data[0], data[1]]))
}
