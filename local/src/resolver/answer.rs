//! An answer to a query, with what the status shows of it.

use bytes::Bytes;
use hickory_proto::op::ResponseCode;

use super::message::{Reply, Request};
use super::named::Named;
use super::source::Source;

/// An answer to a query of the codespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The DNS message.
    pub message: Bytes,
    /// What was looked up; `None` for a query that was refused without a lookup.
    pub lookup: Option<Lookup>,
    /// The addresses in it; `None` if there are none.
    pub named: Option<Named>,
}

/// One lookup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lookup {
    /// The name of the question, printable.
    pub name: String,
    /// The record type.
    pub kind: String,
    /// The source of the answer; `None` if there was no answer.
    pub source: Option<Source>,
    /// The result.
    pub outcome: Outcome,
}

/// The result of a lookup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// There are records.
    Found,
    /// The name exists, without records of this type.
    NoData,
    /// The name does not exist.
    NoName,
    /// There is no answer, or the answer is an error.
    Failed,
}

impl Lookup {
    /// The lookup that `request` caused, with its reply if there was one.
    pub(super) fn new(request: &Request, reply: Option<&Reply>) -> Self {
        let question = request.question();
        Self {
            name: question.name().to_ascii(),
            kind: question.query_type().to_string(),
            source: reply.map(|reply| reply.source),
            outcome: reply.map_or(Outcome::Failed, outcome),
        }
    }
}

fn outcome(reply: &Reply) -> Outcome {
    if reply.code == ResponseCode::NXDomain {
        Outcome::NoName
    } else if reply.code != ResponseCode::NoError {
        Outcome::Failed
    } else if reply.answers.is_empty() {
        Outcome::NoData
    } else {
        Outcome::Found
    }
}
