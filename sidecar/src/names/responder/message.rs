//! Views of DNS messages: only what forwarding needs (RFC 1035 section 4.1). Pure; no input panics.
//!
//! Messages are forwarded as bytes. Only the header and the question are read, and only the id is changed, so future
//! record types and options pass unchanged.

use bytes::{Bytes, BytesMut};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::opt::EdnsOption;

const HEADER_LEN: usize = 12;

/// The longest name on the wire (RFC 1035 section 2.3.4).
const MAX_NAME: usize = 255;

/// The longest query that is forwarded: what fits a datagram that is never fragmented (DNS flag day 2020). Real queries
/// have a few hundred bytes, and thousands may be waiting.
pub(super) const MAX_QUERY: usize = 1232;

/// Type 251, incremental zone transfer.
const IXFR: u16 = 251;
/// Type 252, zone transfer: an answer of many messages.
const AXFR: u16 = 252;

/// Response codes that the choice of upstream depends on.
pub(super) mod rcode {
    pub(in super::super) const NOERROR: u8 = 0;
    pub(in super::super) const NXDOMAIN: u8 = 3;
}

/// Errors that a response code does not tell (RFC 8914 section 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum ExtendedError {
    StaleAnswer = 3,
    Blocked = 15,
    StaleNxDomain = 19,
    NetworkError = 23,
}

/// A query that can be forwarded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Query {
    bytes: Bytes,
    /// Where the question section ends.
    end: usize,
}

/// What to do with a client's message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// Forward it.
    Query(Query),
    /// Send this back.
    Answer(Bytes),
    /// Not a query: no answer, because two resolvers could otherwise answer each other forever.
    Nothing,
}

/// Looks at a client's message.
pub(super) fn receive(bytes: Bytes) -> Received {
    let Some(header) = bytes.get(..HEADER_LEN) else { return Received::Nothing };
    if header[2] & 0x80 != 0 {
        return Received::Nothing;
    }
    let opcode = header[2] >> 3 & 0xf;
    if opcode != 0 {
        return Received::Answer(bare_error(header, ResponseCode::NotImp));
    }
    let end = question_end(&bytes).filter(|_| bytes.len() <= MAX_QUERY);
    match end {
        Some(end) => {
            let query = Query { bytes, end };
            match query.kind() {
                IXFR | AXFR => Received::Answer(query.error(ResponseCode::NotImp, "")),
                _ => Received::Query(query),
            }
        }
        None => Received::Answer(bare_error(header, ResponseCode::FormErr)),
    }
}

/// Where the only question ends. Names in questions are not compressed, because no name precedes them.
fn question_end(bytes: &[u8]) -> Option<usize> {
    if bytes.get(4..6)? != [0, 1] {
        return None;
    }
    let mut at = HEADER_LEN;
    loop {
        match usize::from(*bytes.get(at)?) {
            0 => break,
            length @ 1..64 => at += 1 + length,
            _ => return None,
        }
        if at - HEADER_LEN >= MAX_NAME {
            return None;
        }
    }
    let end = at + 1 + 4;
    (end <= bytes.len()).then_some(end)
}

impl Query {
    /// The whole message, with `id` in place of its own.
    pub(super) fn with_id(&self, id: u16) -> Bytes {
        with_id(&self.bytes, id)
    }

    /// The whole message; `None` if it is malformed behind the question.
    pub(super) fn parsed(&self) -> Option<Message> {
        Message::from_vec(&self.bytes).ok()
    }

    /// The question: name, type and class in wire format.
    pub(super) fn question(&self) -> &[u8] {
        &self.bytes[HEADER_LEN..self.end]
    }

    /// The name asked for, in lower case, as labels in wire format without the root's.
    pub(super) fn name(&self) -> Vec<u8> {
        // Length bytes are below 64, so they are not letters.
        self.bytes[HEADER_LEN..self.end - 5].to_ascii_lowercase()
    }

    /// The name as people write it, for logs.
    pub(super) fn display(&self) -> String {
        let mut text = String::new();
        let mut name = &self.bytes[HEADER_LEN..self.end - 5];
        while let [length, rest @ ..] = name {
            let (label, rest) = rest.split_at(usize::from(*length).min(rest.len()));
            text.push_str(&label.escape_ascii().to_string());
            text.push('.');
            name = rest;
        }
        text
    }

    fn id(&self) -> u16 {
        u16::from_be_bytes([self.bytes[0], self.bytes[1]])
    }

    /// The type asked for.
    pub(super) fn kind(&self) -> u16 {
        u16::from_be_bytes([self.bytes[self.end - 4], self.bytes[self.end - 3]])
    }

    /// Whether `response` is a response to this query sent under `id`.
    pub(super) fn is_answered_by(&self, response: &[u8], id: u16) -> bool {
        let Some(header) = response.get(..HEADER_LEN) else { return false };
        if header[..2] != id.to_be_bytes() || header[2] & 0x80 == 0 {
            return false;
        }
        match response.get(HEADER_LEN..self.end) {
            Some(question) if header[4..6] == [0, 1] => question.eq_ignore_ascii_case(self.question()),
            // Some servers refuse a query without repeating it.
            _ => header[4..8] == [0; 4] && !matches!(header[3] & 0xf, rcode::NOERROR | rcode::NXDOMAIN),
        }
    }

    /// The answer with the client's id.
    pub(super) fn answer(&self, response: &[u8]) -> Bytes {
        with_id(response, self.id())
    }

    /// An error of our own, with `why` as an extended error (RFC 8914) for clients that speak EDNS.
    pub(super) fn error(&self, code: ResponseCode, why: &str) -> Bytes {
        self.error_of(code, ExtendedError::NetworkError, why)
    }

    /// The refusal of an answer that there is.
    pub(super) fn blocked(&self, why: &str) -> Bytes {
        self.error_of(ResponseCode::Refused, ExtendedError::Blocked, why)
    }

    fn error_of(&self, code: ResponseCode, kind: ExtendedError, why: &str) -> Bytes {
        self.built_error(code, kind, why).unwrap_or_else(|| bare_error(&self.bytes, code))
    }

    fn built_error(&self, code: ResponseCode, kind: ExtendedError, why: &str) -> Option<Bytes> {
        let query = self.parsed()?;
        let mut response = Message::response(self.id(), OpCode::Query);
        response.metadata.recursion_desired = query.metadata.recursion_desired;
        response.metadata.recursion_available = true;
        response.metadata.checking_disabled = query.metadata.checking_disabled;
        response.metadata.response_code = code;
        response.queries = query.queries;
        let error = (!why.is_empty()).then_some((kind, why));
        response.edns = query.edns.map(|theirs| edns(&theirs, error));
        debug_assert_eq!(response.metadata.message_type, MessageType::Response);
        response.to_vec().ok().map(Bytes::from)
    }
}

/// The EDNS part of an answer of our own to a client that sent `theirs`.
pub(super) fn edns(theirs: &Edns, error: Option<(ExtendedError, &str)>) -> Edns {
    const OPTION: u16 = 15;
    let mut edns = Edns::new();
    edns.set_max_payload(4096).set_dnssec_ok(theirs.flags().dnssec_ok);
    if let Some((error, text)) = error {
        let data = [&(error as u16).to_be_bytes()[..], text.as_bytes()].concat();
        edns.options_mut().insert(EdnsOption::Unknown(OPTION, data));
    }
    edns
}

/// A response's code, the four bits in its header.
pub(super) fn code(response: &[u8]) -> u8 {
    response.get(3).map_or(ResponseCode::ServFail.low(), |byte| byte & 0xf)
}

fn with_id(message: &[u8], id: u16) -> Bytes {
    let mut message = BytesMut::from(message);
    message[..2].copy_from_slice(&id.to_be_bytes());
    message.freeze()
}

/// An error without the question, for queries whose question can't be repeated.
fn bare_error(query: &[u8], code: ResponseCode) -> Bytes {
    let mut response = [0; HEADER_LEN];
    response[..2].copy_from_slice(&query[..2]);
    // QR, the query's opcode and RD.
    response[2] = 0x80 | query[2] & 0x79;
    response[3] = 0x80 | code.low();
    Bytes::copy_from_slice(&response)
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::Query as Question;
    use hickory_proto::rr::{Name, RecordType};

    use super::*;

    fn message(name: &str, kind: RecordType) -> Message {
        let mut message = Message::query();
        message.metadata.recursion_desired = true;
        message.add_query(Question::query(Name::from_ascii(name).unwrap(), kind));
        message
    }

    fn query(name: &str) -> Query {
        let received = receive(message(name, RecordType::A).to_vec().unwrap().into());
        let Received::Query(query) = received else { panic!("{received:?}") };
        query
    }

    fn answered(message: &[u8]) -> Message {
        let received = receive(Bytes::copy_from_slice(message));
        let Received::Answer(answer) = received else { panic!("{received:?}") };
        Message::from_vec(&answer).unwrap()
    }

    #[test]
    fn the_name_is_seen_in_lower_case() {
        assert_eq!(query("WWW.Corp.example.").name(), b"\x03www\x04corp\x07example");
        assert_eq!(query("WWW.Corp.example.").display(), "WWW.Corp.example.");
        assert_eq!(query(".").name(), b"");
    }

    #[test]
    fn only_the_id_changes() {
        let query = query("a.example.");
        let sent = query.with_id(0x1234);
        assert_eq!(sent[..2], [0x12, 0x34]);
        assert_eq!(sent[2..], query.bytes[2..]);
        assert_eq!(query.answer(&sent), query.bytes);
    }

    #[test]
    fn answers_are_matched_by_id_and_question() {
        let query = query("a.example.");
        let mut response = query.with_id(7).to_vec();
        assert!(!query.is_answered_by(&response, 7), "a query is no answer");
        response[2] |= 0x80;
        assert!(query.is_answered_by(&response, 7));
        assert!(!query.is_answered_by(&response, 8));
        response[13] = b'A';
        assert!(query.is_answered_by(&response, 7), "case does not matter");
        response[13] = b'b';
        assert!(!query.is_answered_by(&response, 7));
        assert!(!query.is_answered_by(&response[..11], 7));

        let refusal = bare_error(&query.with_id(7), ResponseCode::Refused);
        assert!(query.is_answered_by(&refusal, 7));
        let empty = bare_error(&query.with_id(7), ResponseCode::NXDomain);
        assert!(!query.is_answered_by(&empty, 7), "an empty answer without a question does not match");
    }

    #[test]
    fn messages_that_are_not_queries_get_no_answer() {
        let mut response = message("a.example.", RecordType::A).to_vec().unwrap();
        response[2] |= 0x80;
        assert_eq!(receive(response.into()), Received::Nothing);
        assert_eq!(receive(Bytes::from_static(b"short")), Received::Nothing);
    }

    #[test]
    fn unsupported_queries_get_an_error() {
        let mut update = message("a.example.", RecordType::A);
        update.metadata.op_code = OpCode::Update;
        assert_eq!(answered(&update.to_vec().unwrap()).metadata.response_code, ResponseCode::NotImp);
        let transfer = answered(&message("a.example.", RecordType::AXFR).to_vec().unwrap());
        assert_eq!(transfer.metadata.response_code, ResponseCode::NotImp);
        assert_eq!(transfer.queries[0].name().to_string(), "a.example.");
    }

    #[test]
    fn malformed_questions_are_format_errors() {
        let good = message("a.example.", RecordType::A).to_vec().unwrap();
        let mut none = good.clone();
        none[5] = 0;
        let mut two = good.clone();
        two[5] = 2;
        let mut pointer = good.clone();
        pointer[12] = 0xc0;
        let mut endless = good[..12].to_vec();
        endless.extend(std::iter::repeat_n([1, b'a'], 200).flatten());
        for malformed in [&none[..], &two, &pointer, &endless, &good[..good.len() - 1]] {
            let answer = answered(malformed);
            assert_eq!(answer.metadata.response_code, ResponseCode::FormErr);
            assert_eq!(answer.metadata.id.to_be_bytes(), good[..2]);
        }
    }

    #[test]
    fn errors_repeat_the_question_and_answer_edns() {
        let mut with_edns = message("a.example.", RecordType::A);
        with_edns.edns = Some(Edns::new());
        let Received::Query(query) = receive(with_edns.to_vec().unwrap().into()) else { panic!() };
        let error = Message::from_vec(&query.error(ResponseCode::ServFail, "cut")).unwrap();
        assert_eq!(error.metadata.id, with_edns.metadata.id);
        assert_eq!(error.queries, with_edns.queries);
        assert!(error.metadata.recursion_available);
        let option = error.edns.unwrap().option(15u16.into()).cloned();
        assert_eq!(option, Some(EdnsOption::Unknown(15, b"\0\x17cut".to_vec())));
        let refusal = Message::from_vec(&query.blocked("no")).unwrap();
        assert_eq!(refusal.metadata.response_code, ResponseCode::Refused);
        let option = refusal.edns.unwrap().option(15u16.into()).cloned();
        assert_eq!(option, Some(EdnsOption::Unknown(15, b"\0\x0fno".to_vec())));
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics(bytes: Vec<u8>, id: u16) {
            let bytes = Bytes::from(bytes);
            if let Received::Query(query) = receive(bytes.clone()) {
                query.is_answered_by(&bytes, id);
                query.error(ResponseCode::ServFail, "x");
                query.display();
            }
        }
    }
}
