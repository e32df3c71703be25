//! Parsing of queries and building of answers.

use std::net::IpAddr;

use bytes::Bytes;
use gh_net_common::turns;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::HINFO;
use hickory_proto::rr::{DNSClass, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder};

use super::source::Source;

const HEADER_LEN: usize = 12;

/// The size that a client without EDNS accepts over UDP (RFC 1035, 4.2.1).
const PLAIN_UDP: u16 = 512;

/// The size that we announce to clients and servers: small enough to avoid fragments (DNS flag day 2020).
const OUR_UDP: u16 = 1232;

/// The longest query that is read: what fits a datagram that is never fragmented. Real ones have a few hundred bytes.
const MAX_QUERY: usize = 1232;

/// An OPT record without options: root, type, size, flags, and no data.
const OPT_LEN: u16 = 11;

/// The TTL of answers that do not come from DNS, in seconds. They have none of their own, and change with the laptop's
/// networks.
const TTL: u32 = 10;

/// How a query arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    Udp,
    Tcp,
}

/// A query to resolve: one question of class IN.
#[derive(Debug)]
pub(super) struct Request {
    header: [u8; HEADER_LEN],
    message: Message,
    question: Query,
    limit: u16,
}

/// What to do with a message.
#[derive(Debug)]
pub(super) enum Received {
    /// Resolve it.
    Request(Box<Request>),
    /// Send this answer.
    Answer(Bytes),
    /// It is not a query.
    Nothing,
}

/// The contents of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reply {
    /// Where it comes from; for the status, not part of the message.
    pub(super) source: Source,
    pub(super) code: ResponseCode,
    pub(super) authentic: bool,
    pub(super) truncated: bool,
    pub(super) answers: Vec<Record>,
    pub(super) authorities: Vec<Record>,
    pub(super) additionals: Vec<Record>,
    /// Why there is no answer, for clients that speak EDNS (RFC 8914).
    pub(super) error: Option<ExtendedError>,
}

/// Errors that a response code does not tell (RFC 8914, 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum ExtendedError {
    Other = 0,
    NoReachableAuthority = 22,
}

impl ExtendedError {
    fn text(self) -> &'static str {
        match self {
            Self::Other => "gh-net: too many questions wait for the laptop's nameservers",
            Self::NoReachableAuthority => "gh-net: the laptop's nameservers do not answer for this zone",
        }
    }

    /// The option of the OPT record.
    fn option(self) -> Vec<u8> {
        const CODE: u16 = 15;
        let text = self.text().as_bytes();
        let length = text.len() as u16 + 2;
        [&CODE.to_be_bytes()[..], &length.to_be_bytes(), &(self as u16).to_be_bytes(), text].concat()
    }
}

impl Reply {
    /// How the turn went that brought it.
    pub(super) fn outcome(&self) -> turns::Outcome {
        let has_records = self.code == ResponseCode::NoError && !self.answers.is_empty();
        if has_records { turns::Outcome::Served } else { turns::Outcome::Answered }
    }

    /// An answer without records.
    pub(super) fn of(code: ResponseCode) -> Self {
        Self {
            source: Source::Ourselves,
            code,
            authentic: false,
            truncated: false,
            answers: Vec::new(),
            authorities: Vec::new(),
            additionals: Vec::new(),
            error: None,
        }
    }

    /// No nameserver answers.
    pub(super) fn unanswered() -> Self {
        Self { error: Some(ExtendedError::NoReachableAuthority), ..Self::of(ResponseCode::ServFail) }
    }

    /// There is no room for the question.
    pub(super) fn crowded() -> Self {
        Self { error: Some(ExtendedError::Other), ..Self::of(ResponseCode::ServFail) }
    }

    /// An answer with records that do not come from DNS.
    pub(super) fn with_data(question: &Query, data: impl IntoIterator<Item = RData>) -> Self {
        let record = |data| Record::from_rdata(question.name().clone(), TTL, data);
        Self { answers: data.into_iter().map(record).collect(), ..Self::of(ResponseCode::NoError) }
    }

    /// A nameserver's answer.
    pub(super) fn of_server(server: IpAddr, message: Message) -> Self {
        // In messages of other kinds, records may lack what an answer must have (RFC 2136, 2.5).
        if message.metadata.op_code != OpCode::Query {
            return Self { source: Source::Server(server), ..Self::of(ResponseCode::ServFail) };
        }
        Self {
            source: Source::Server(server),
            code: message.metadata.response_code,
            authentic: message.metadata.authentic_data,
            truncated: message.metadata.truncation,
            answers: message.answers,
            authorities: message.authorities,
            additionals: message.additionals,
            error: None,
        }
    }
}

/// Parses a client's message.
pub(super) fn receive(bytes: &[u8], transport: Transport) -> Received {
    let Some(&header) = bytes.first_chunk() else { return Received::Nothing };
    // Responses (QR) are never answered: two resolvers could answer each other forever.
    if header[2] & 0x80 != 0 {
        return Received::Nothing;
    }
    if header[2] >> 3 & 0xf != u8::from(OpCode::Query) {
        return Received::Answer(bare(&header, ResponseCode::NotImp));
    }
    let message = Some(bytes).filter(|bytes| bytes.len() <= MAX_QUERY && is_plausible(&header));
    let Some(message) = message.and_then(|bytes| Message::from_vec(bytes).ok()) else {
        return Received::Answer(bare(&header, ResponseCode::FormErr));
    };
    let limit = match (&message.edns, transport) {
        (_, Transport::Tcp) => u16::MAX,
        (Some(edns), Transport::Udp) => edns.max_payload().max(PLAIN_UDP),
        (None, Transport::Udp) => PLAIN_UDP,
    };
    let question = message.queries.first().cloned().unwrap_or_default();
    let request = Request { header, message, question, limit };
    match request.immediate_reply() {
        Some(reply) => Received::Answer(request.answer(&reply)),
        None => Received::Request(Box::new(request)),
    }
}

/// Whether the header is that of a question, before anything else is read: thousands of records fit a message, because
/// their names may be compressed.
fn is_plausible(header: &[u8; HEADER_LEN]) -> bool {
    let [questions, answers, authorities, additionals] =
        [4, 6, 8, 10].map(|at| u16::from_be_bytes([header[at], header[at + 1]]));
    // EDNS, and a signature of the message.
    (questions, answers, authorities) == (1, 0, 0) && additionals <= 2
}

/// A header alone, where the question can't be repeated.
fn bare(header: &[u8; HEADER_LEN], code: ResponseCode) -> Bytes {
    let mut answer = [0; HEADER_LEN];
    answer[..2].copy_from_slice(&header[..2]);
    // QR, the query's opcode and RD; RA.
    answer[2] = 0x80 | header[2] & 0x79;
    answer[3] = 0x80 | code.low();
    Bytes::copy_from_slice(&answer)
}

impl Request {
    pub(super) fn question(&self) -> &Query {
        &self.question
    }

    /// The answer to a query that needs no lookup.
    fn immediate_reply(&self) -> Option<Reply> {
        if self.message.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
            return Some(Reply::of(ResponseCode::BADVERS));
        }
        if self.question.query_class() != DNSClass::IN {
            return Some(Reply::of(ResponseCode::Refused));
        }
        let kind = self.question.query_type();
        // Zone transfers consist of many messages.
        if matches!(kind, RecordType::AXFR | RecordType::IXFR) {
            return Some(Reply::of(ResponseCode::NotImp));
        }
        // RFC 8482, 4.2: a minimal answer to ANY.
        let hinfo = || RData::HINFO(HINFO::new("RFC8482".to_owned(), String::new()));
        (kind == RecordType::ANY).then(|| Reply::with_data(&self.question, [hinfo()]))
    }

    /// The query as it is sent to a server.
    pub(super) fn to_server(&self, with_edns: bool) -> Message {
        let mut query = Message::query();
        query.metadata.recursion_desired = true;
        query.metadata.checking_disabled = self.message.metadata.checking_disabled;
        query.metadata.authentic_data = self.message.metadata.authentic_data;
        query.queries.push(self.question.clone());
        if with_edns {
            let mut edns = Edns::new();
            edns.set_max_payload(OUR_UDP).set_dnssec_ok(self.dnssec_ok());
            query.edns = Some(edns);
        }
        query
    }

    fn dnssec_ok(&self) -> bool {
        self.message.edns.as_ref().is_some_and(|edns| edns.flags().dnssec_ok)
    }

    /// `reply` as a message of a size that the client accepts. A longer one is cut after a record: musl before 1.2.4
    /// does not use TCP but takes the records that are there.
    pub(super) fn answer(&self, reply: &Reply) -> Bytes {
        self.encoded(reply)
            .or_else(|| self.encoded(&Reply::of(ResponseCode::ServFail)))
            .unwrap_or_else(|| bare(&self.header, reply.code))
    }

    fn encoded(&self, reply: &Reply) -> Option<Bytes> {
        let mut message = Message::new(self.message.metadata.id, MessageType::Response, OpCode::Query);
        message.metadata.op_code = self.message.metadata.op_code;
        message.metadata.recursion_desired = self.message.metadata.recursion_desired;
        message.metadata.recursion_available = true;
        message.metadata.checking_disabled = self.message.metadata.checking_disabled;
        message.metadata.authentic_data = reply.authentic;
        message.metadata.truncation = reply.truncated;
        message.metadata.response_code = reply.code;
        message.queries = self.message.queries.clone();
        message.answers = reply.answers.clone();
        message.authorities = reply.authorities.clone();
        message.additionals = reply.additionals.clone();
        let mut bytes = Vec::with_capacity(usize::from(PLAIN_UDP));
        let mut encoder = BinEncoder::new(&mut bytes);
        let option = reply.error.map(ExtendedError::option).unwrap_or_default();
        let opt_len = OPT_LEN + option.len() as u16;
        encoder.set_max_size(if self.message.edns.is_some() { self.limit - opt_len } else { self.limit });
        message.emit(&mut encoder).ok()?;
        // Remove the part of a record that did not fit.
        encoder.trim();
        if self.message.edns.is_some() {
            self.append_opt(&mut bytes, reply.code, &option);
        }
        Some(bytes.into())
    }

    /// RFC 6891, 6.1. The encoder would omit it from a truncated answer.
    fn append_opt(&self, bytes: &mut Vec<u8>, code: ResponseCode, option: &[u8]) {
        let count = u16::from_be_bytes([bytes[10], bytes[11]]).saturating_add(1);
        bytes[10..12].copy_from_slice(&count.to_be_bytes());
        bytes.push(0);
        bytes.extend(u16::from(RecordType::OPT).to_be_bytes());
        bytes.extend(OUR_UDP.to_be_bytes());
        // The code's upper bits, version 0, and DO.
        bytes.extend([code.high(), 0, u8::from(self.dnssec_ok()) << 7, 0]);
        bytes.extend((option.len() as u16).to_be_bytes());
        bytes.extend(option);
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::Name;
    use hickory_proto::rr::rdata::TXT;

    use super::*;

    #[test]
    fn only_records_serve() {
        let question = Query::query(Name::from_ascii("big.example.").unwrap(), RecordType::A);
        let found = Reply::with_data(&question, vec![RData::A(std::net::Ipv4Addr::LOCALHOST.into())]);
        assert_eq!(found.outcome(), turns::Outcome::Served);
        for code in [ResponseCode::NoError, ResponseCode::NXDomain, ResponseCode::ServFail] {
            assert_eq!(Reply::of(code).outcome(), turns::Outcome::Answered, "{code}");
        }
    }

    fn query(kind: RecordType) -> Message {
        let mut query = Message::query();
        query.metadata.recursion_desired = true;
        query.add_query(Query::query(Name::from_ascii("Big.Example.").unwrap(), kind));
        query
    }

    fn request(query: &Message, transport: Transport) -> Request {
        let received = receive(&query.to_vec().unwrap(), transport);
        let Received::Request(request) = received else { panic!("{received:?}") };
        *request
    }

    fn refusal(query: &Message) -> Message {
        let received = receive(&query.to_vec().unwrap(), Transport::Udp);
        let Received::Answer(answer) = received else { panic!("{received:?}") };
        Message::from_vec(&answer).unwrap()
    }

    fn texts(question: &Query, count: usize) -> Reply {
        let text = RData::TXT(TXT::new(vec!["x".repeat(100)]));
        Reply::with_data(question, std::iter::repeat_n(text, count))
    }

    #[test]
    fn answers_are_truncated_to_the_clients_size() {
        for (edns, limit) in [(None, 512), (Some(300), 512), (Some(1400), 1400), (Some(65535), 65535)] {
            let mut query = query(RecordType::TXT);
            query.edns = edns.map(|size| {
                let mut edns = Edns::new();
                edns.set_max_payload(size);
                edns
            });
            let request = request(&query, Transport::Udp);
            let bytes = request.answer(&texts(request.question(), 30));
            let answer = Message::from_vec(&bytes).unwrap();
            assert!(bytes.len() <= limit);
            assert_eq!(answer.metadata.truncation, limit < 4096);
            assert!(!answer.answers.is_empty(), "as many records as fit");
            assert_eq!(answer.edns.is_some(), edns.is_some());
            assert_eq!(answer.metadata.id, query.metadata.id);
        }
        let request = request(&query(RecordType::TXT), Transport::Tcp);
        let answer = Message::from_vec(&request.answer(&texts(request.question(), 30))).unwrap();
        assert_eq!((answer.answers.len(), answer.metadata.truncation), (30, false));
    }

    #[test]
    fn an_answer_too_large_for_tcp_is_truncated() {
        let request = request(&query(RecordType::TXT), Transport::Tcp);
        let answer = Message::from_vec(&request.answer(&texts(request.question(), 1000))).unwrap();
        assert!(answer.metadata.truncation);
    }

    #[test]
    fn a_message_of_another_kind_is_no_answer() {
        let mut update = query(RecordType::A);
        update.metadata.op_code = OpCode::Update;
        update.answers.push(Record::update0(update.queries[0].name().clone(), 0, RecordType::A));
        let reply = Reply::of_server([192, 0, 2, 1].into(), update);
        let request = request(&query(RecordType::A), Transport::Udp);
        let answer = Message::from_vec(&request.answer(&reply)).unwrap();
        assert_eq!((answer.metadata.response_code, answer.answers.len()), (ResponseCode::ServFail, 0));
    }

    #[test]
    fn the_question_is_repeated_with_its_case() {
        let query = query(RecordType::A);
        let request = request(&query, Transport::Udp);
        let answer = Message::from_vec(&request.answer(&Reply::of(ResponseCode::NXDomain))).unwrap();
        assert!(answer.queries[0].name().eq_case(query.queries[0].name()));
        assert!(answer.metadata.recursion_available && !answer.metadata.authoritative);
        assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
    }

    #[test]
    fn unsupported_queries_get_an_error() {
        let mut notify = query(RecordType::SOA);
        notify.metadata.op_code = OpCode::Notify;
        let mut chaos = query(RecordType::TXT);
        chaos.queries[0].set_query_class(DNSClass::CH);
        let mut two = query(RecordType::A);
        two.add_query(two.queries[0].clone());
        let mut future = query(RecordType::A);
        future.edns = Some(Edns::new());
        future.edns.as_mut().unwrap().set_version(1);
        for (query, code) in [
            (notify, ResponseCode::NotImp),
            (query(RecordType::AXFR), ResponseCode::NotImp),
            (chaos, ResponseCode::Refused),
            (two, ResponseCode::FormErr),
            (future, ResponseCode::BADVERS),
        ] {
            // Code 16 has two names.
            assert_eq!(u16::from(refusal(&query).metadata.response_code), u16::from(code));
        }
        let any = refusal(&query(RecordType::ANY));
        assert_eq!(any.answers[0].record_type(), RecordType::HINFO);
    }

    #[test]
    fn what_no_question_looks_like_is_rejected_unread() {
        let answered = |query: &Message, count: u16| {
            let mut bytes = query.to_vec().unwrap();
            bytes[6..8].copy_from_slice(&count.to_be_bytes());
            // A.example at the question's name, by compression.
            bytes.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 10, 0, 0, 1].repeat(count.into()));
            bytes
        };
        let mut long = query(RecordType::A).to_vec().unwrap();
        long.resize(MAX_QUERY + 1, 0);
        for bytes in [answered(&query(RecordType::A), 1), answered(&query(RecordType::A), 4000), long] {
            let Received::Answer(answer) = receive(&bytes, Transport::Tcp) else { panic!("it was read") };
            assert_eq!(Message::from_vec(&answer).unwrap().metadata.response_code, ResponseCode::FormErr);
        }
    }

    #[test]
    fn who_speaks_edns_is_told_why_there_is_no_answer() {
        let mut query = query(RecordType::A);
        for edns in [None, Some(Edns::new())] {
            query.edns = edns.clone();
            let answer = request(&query, Transport::Udp).answer(&Reply::unanswered());
            let answer = Message::from_vec(&answer).unwrap();
            assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
            let error = answer.edns.as_ref().and_then(|edns| edns.option(15u16.into()));
            assert_eq!(error.is_some(), edns.is_some());
        }
    }

    #[test]
    fn messages_that_are_not_queries_get_no_answer() {
        let response = query(RecordType::A).into_response().to_vec().unwrap();
        assert!(matches!(receive(&response, Transport::Udp), Received::Nothing));
        assert!(matches!(receive(b"short", Transport::Udp), Received::Nothing));
        let mut cut = query(RecordType::A).to_vec().unwrap();
        cut.pop();
        let Received::Answer(answer) = receive(&cut, Transport::Udp) else { panic!() };
        assert_eq!(Message::from_vec(&answer).unwrap().metadata.response_code, ResponseCode::FormErr);
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics(bytes: Vec<u8>) {
            if let Received::Request(request) = receive(&bytes, Transport::Udp) {
                request.answer(&Reply::of(ResponseCode::ServFail));
            }
        }
    }
}
