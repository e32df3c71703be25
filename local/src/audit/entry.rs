//! The lines of an audit. docs/audit.md documents each field.

use std::net::SocketAddr;
use std::time::SystemTime;

use serde::{Serialize, Serializer};

use crate::engine::{ConnectError, Ending};
use crate::status::{FlowProtocol, Refusal};

/// The version of the lines.
pub const SCHEMA: u32 = 1;

/// A line, without its version and time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Entry {
    /// A session begins.
    SessionBegin {
        /// The version of gh-net.
        version: &'static str,
        /// The process.
        pid: u32,
        /// What is bridged.
        target: String,
    },
    /// A session has ended.
    SessionEnd {
        /// What went wrong, if it did not end by the user's wish.
        error: Option<String>,
    },
    /// A flow was admitted, and its socket is being opened.
    FlowOpened {
        /// Which one.
        #[serde(flatten)]
        flow: Flow,
    },
    /// A flow has ended.
    FlowClosed {
        /// Which one.
        #[serde(flatten)]
        flow: Flow,
        /// Bytes of payload that went to the destination.
        uplink_bytes: u64,
        /// Bytes of payload that came from it.
        downlink_bytes: u64,
        /// How it ended.
        #[serde(flatten)]
        ended: Ended,
    },
    /// Flows of one kind were refused.
    FlowDenied {
        /// Of several the last one.
        #[serde(flatten)]
        flow: Flow,
        /// The answer to the codespace.
        refusal: Refusal,
        /// How many packets were refused.
        count: u64,
    },
    /// Refused flows before this line have none of their own: there were too many.
    DenialsLeftOut {
        /// How many lines they would have taken.
        lines: u64,
        /// How many packets were refused.
        packets: u64,
    },
    /// Entries are missing before this line.
    Lost {
        /// How many.
        count: u64,
    },
}

/// The identity of a flow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Flow {
    /// `None` if it was refused. Destinations of one UDP socket share one.
    pub flow: Option<FlowId>,
    /// Its protocol.
    pub protocol: FlowProtocol,
    /// The endpoint in the codespace. For echo the port is the identifier.
    pub client: SocketAddr,
    /// The destination as the codespace names it. For echo the port is 0.
    pub server: SocketAddr,
    /// Where it leads instead, if it does.
    pub actual: Option<SocketAddr>,
    /// The name of the destination, if it is known.
    pub name: Option<String>,
    /// What was decided.
    pub verdict: Verdict,
    /// The rule that decided, for people.
    pub rule: String,
}

/// Identifies a flow in all audits. Each engine numbers its flows from 0, and lines of several sessions, each of which may
/// have had several engines, are in one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowId {
    /// A random number of the engine.
    pub engine: u64,
    /// The engine's number of the flow.
    pub number: u64,
}

/// As a string: numbers in JSON are exact up to 53 bits only (RFC 8259, 6).
impl Serialize for FlowId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:016x}-{}", self.engine, self.number))
    }
}

/// What was decided about a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It was forwarded.
    Forwarded,
    /// It was refused.
    Denied,
}

/// How a flow ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Ended {
    reason: Reason,
    /// The error of a connect that failed.
    error: Option<Failed>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Reason {
    Finished,
    ResetByCodespace,
    ResetByHost,
    ConnectFailed,
    TimedOut,
    Revoked,
    Evicted,
    SessionEnd,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Failed {
    Refused,
    NetworkUnreachable,
    HostUnreachable,
    Prohibited,
    TimedOut,
    Local,
}

impl From<Ending> for Ended {
    fn from(ending: Ending) -> Self {
        let (reason, error) = match ending {
            Ending::Finished => (Reason::Finished, None),
            Ending::ResetByCodespace => (Reason::ResetByCodespace, None),
            Ending::ResetByHost => (Reason::ResetByHost, None),
            Ending::ConnectFailed(error) => (Reason::ConnectFailed, Some(error.into())),
            Ending::TimedOut => (Reason::TimedOut, None),
            Ending::Revoked => (Reason::Revoked, None),
            Ending::Evicted => (Reason::Evicted, None),
            Ending::SessionEnd => (Reason::SessionEnd, None),
        };
        Self { reason, error }
    }
}

impl From<ConnectError> for Failed {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Refused => Self::Refused,
            ConnectError::NetworkUnreachable => Self::NetworkUnreachable,
            ConnectError::HostUnreachable => Self::HostUnreachable,
            ConnectError::Prohibited => Self::Prohibited,
            ConnectError::TimedOut => Self::TimedOut,
            ConnectError::Local => Self::Local,
        }
    }
}

/// A whole line.
#[derive(Serialize)]
struct Line<'a> {
    v: u32,
    time: String,
    #[serde(flatten)]
    entry: &'a Entry,
}

/// Appends an entry as a line.
pub(super) fn encode(time: SystemTime, entry: &Entry, line: &mut Vec<u8>) {
    let time = humantime::format_rfc3339_millis(time).to_string();
    let before = line.len();
    match serde_json::to_writer(&mut *line, &Line { v: SCHEMA, time, entry }) {
        Ok(()) => line.push(b'\n'),
        // Entries have nothing that JSON can't express.
        Err(_) => line.truncate(before),
    }
}
