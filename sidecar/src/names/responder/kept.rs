//! An answer in the form in which it is kept, and the later answers that are made from it. Pure.
//!
//! Ids, EDNS and truncation belong to one exchange and are not kept (RFC 6891 section 6.2.1). A later client gets its
//! own.

use std::time::Duration;

use bytes::Bytes;
use hickory_proto::op::{Edns, Message, ResponseCode};
use hickory_proto::rr::rdata::opt::EdnsCode;
use hickory_proto::rr::{RData, RecordType};

use super::message::{ExtendedError, Query, edns};
use super::upstream::Transport;

/// The longest answer that is kept, about what servers send over UDP. Longer ones are rare, and a few of them would
/// evict everything else.
const MAX_MESSAGE: usize = 4096;

/// The longest TTL that is believed, in seconds. RFC 8767 section 4 proposes at most seven days, but the laptop's
/// networks change more often.
const MAX_TTL: u32 = 24 * 60 * 60;

/// The TTL of stale records, in seconds (RFC 8767 section 4). A lower one stays: its owner wants the name to be asked
/// for often.
const STALE_TTL: u32 = 30;

/// The size of UDP answers that a client without EDNS accepts (RFC 1035 section 4.2.1).
const PLAIN_UDP: usize = 512;

/// Queries with the same key have the same answer: the question's name in lower case, its type and class, and whether
/// DNSSEC records (DO), unchecked ones (CD), the result of the check (AD), and recursion (RD) are asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key(Box<[u8]>);

impl Key {
    const LEN_AFTER_NAME: usize = 1 + 2 + 2 + 1;

    /// `None` if the query is malformed behind its question, or names a network that the answer is to be tailored to
    /// (RFC 7871), which makes it one for that network only.
    pub(super) fn new(query: &Query) -> Option<Self> {
        let asked = query.parsed()?;
        let edns = asked.edns.as_ref();
        if edns.is_some_and(|edns| edns.option(EdnsCode::Subnet).is_some()) {
            return None;
        }
        let dnssec_ok = edns.is_some_and(|edns| edns.flags().dnssec_ok);
        let asked = &asked.metadata;
        let flags = [dnssec_ok, asked.checking_disabled, asked.authentic_data, asked.recursion_desired];
        let flags = flags.into_iter().fold(0, |flags, flag| flags << 1 | u8::from(flag));
        Some(Self([query.question().to_ascii_lowercase(), vec![flags]].concat().into()))
    }

    /// The name, as [`Query::name`] gives it.
    pub(super) fn name(&self) -> &[u8] {
        &self.0[..self.0.len() - Self::LEN_AFTER_NAME]
    }

    /// Its size in memory.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// How old a kept answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Age {
    /// Within its TTL, for so long.
    Fresh(Duration),
    /// Beyond its TTL.
    Stale,
}

impl Age {
    fn ttl(self, original: u32) -> u32 {
        match self {
            Self::Fresh(age) => original.saturating_sub(u32::try_from(age.as_secs()).unwrap_or(u32::MAX)),
            Self::Stale => original.clamp(1, STALE_TTL),
        }
    }
}

/// An answer without what belongs to a single exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kept {
    message: Bytes,
    ttl: Duration,
    negative: bool,
}

impl Kept {
    /// What can be kept of an answer to `query`. Nothing of failures, truncated answers and referrals.
    ///
    /// An answer whose TTL is 0 is kept, and so is a negative one without a SOA record, which has none (RFC 2308
    /// section 5): they are stale from the beginning.
    pub(super) fn new(query: &Query, answer: &[u8]) -> Option<Self> {
        if answer.len() > MAX_MESSAGE {
            return None;
        }
        let mut message = Message::from_vec(answer).ok()?;
        let code = message.metadata.response_code;
        if message.metadata.truncation || !matches!(code, ResponseCode::NoError | ResponseCode::NXDomain) {
            return None;
        }
        let wanted =
            |kind: RecordType| u16::from(kind) == query.kind() || query.kind() == u16::from(RecordType::ANY);
        // An alias alone is no answer to a question for something else.
        let negative = code == ResponseCode::NXDomain
            || !message.answers.iter().any(|record| wanted(record.record_type()));
        let negative_ttl = if negative { Some(negative_ttl(&message)?) } else { None };
        let ttl = message.answers.iter().map(|record| record.ttl).chain(negative_ttl).min()?;
        message.metadata.id = 0;
        message.queries.clear();
        message.edns = None;
        message.signature = None;
        let message = message.to_vec().ok().filter(|message| message.len() <= MAX_MESSAGE)?;
        let ttl = Duration::from_secs(ttl.min(MAX_TTL).into());
        Some(Self { message: Bytes::copy_from_slice(&message), ttl, negative })
    }

    /// How long it is fresh.
    pub(super) fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Whether it says that there are no such records.
    pub(super) fn is_negative(&self) -> bool {
        self.negative
    }

    /// Its size in memory.
    pub(super) fn len(&self) -> usize {
        self.message.len()
    }

    /// The answer to a later query with the same key, of a size that the client accepts.
    pub(super) fn answer(&self, query: &Query, by: Transport, age: Age) -> Option<Bytes> {
        let asked = query.parsed()?;
        let mut message = Message::from_vec(&self.message).ok()?;
        message.metadata.id = asked.metadata.id;
        message.metadata.recursion_desired = asked.metadata.recursion_desired;
        message.metadata.authoritative = false;
        // A signature may have expired with the TTL.
        message.metadata.authentic_data &= age != Age::Stale;
        let sections = [&mut message.answers, &mut message.authorities, &mut message.additionals];
        for record in sections.into_iter().flatten() {
            record.ttl = age.ttl(record.ttl);
        }
        let limit = limit(asked.edns.as_ref(), by);
        let code = message.metadata.response_code;
        message.edns = asked.edns.map(|theirs| edns(&theirs, remark(code, age)));
        message.queries = asked.queries;
        let whole = message.to_vec().ok()?;
        let fitting = if whole.len() <= limit { whole } else { message.truncate().to_vec().ok()? };
        Some(fitting.into())
    }
}

/// The TTL of a negative answer (RFC 2308 section 5); `None` if it is a referral (section 2.2), which says nothing about
/// the name.
fn negative_ttl(message: &Message) -> Option<u32> {
    let soa = message.authorities.iter().find_map(|record| {
        let RData::SOA(soa) = &record.data else { return None };
        Some(record.ttl.min(soa.minimum))
    });
    let is_referral = message.authorities.iter().any(|record| record.record_type() == RecordType::NS);
    soa.or((!is_referral).then_some(0))
}

/// The size of an answer that the client accepts.
fn limit(edns: Option<&Edns>, by: Transport) -> usize {
    match (by, edns) {
        (Transport::Tcp, _) => u16::MAX.into(),
        (Transport::Udp, Some(edns)) => PLAIN_UDP.max(edns.max_payload().into()),
        (Transport::Udp, None) => PLAIN_UDP,
    }
}

/// What a client that speaks EDNS is told about an answer.
fn remark(code: ResponseCode, age: Age) -> Option<(ExtendedError, &'static str)> {
    let error = match age {
        Age::Fresh(_) => return None,
        Age::Stale if code == ResponseCode::NXDomain => ExtendedError::StaleNxDomain,
        Age::Stale => ExtendedError::StaleAnswer,
    };
    Some((error, "gh-net: the laptop does not answer"))
}

#[cfg(test)]
mod tests;
