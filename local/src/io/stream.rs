//! DNS over TCP (RFC 7766): the server's ends of connections to the resolver, each served like a socket.
//!
//! The codespace opens them, so what they keep is bounded. When there are too many, one gives way: first one whose
//! questions were all answered, the least recently used, because its client has what it wanted or can ask again.
//! Otherwise the oldest of those that have not asked yet, or of those that wait for an answer, whichever are more: a
//! flood is of one kind, and displaces its own. A client that reads no answers is asked nothing more of, and is reset
//! after a while.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};

use super::dns::{Client, Queries};
use super::served::Served;
use crate::engine::{Engine, FlowId};

/// Streams at once. The sidecar has at most 128: one for each question that it passes on over TCP.
pub(super) const MAX_STREAMS: usize = 256;
/// Bytes of all answers that the engine has not taken yet. The stream with most of them gives way.
pub(super) const MAX_WAITING: usize = 8 * 1024 * 1024;
/// Bytes of answers with which a stream asks nothing more: one of the largest.
const FULL: usize = 64 * 1024;
/// Maximum number of queries of one stream that are under way or whose answer the engine has not taken. Further ones
/// wait in the stream.
const MAX_PIPELINED: usize = 16;
/// The length field in front of a message.
const LENGTH_LEN: usize = 2;
/// DNS messages have a header of 12 bytes (RFC 1035, 4.1.1).
const MIN_MESSAGE: usize = 12;
/// The longest question, as over UDP. They have some hundred bytes.
const MAX_QUESTION: usize = 4096;
/// How long a stream may be idle (RFC 7766, 6.2.3: "on the order of a few seconds", longer without load). As long may a
/// client take to read, and to answer our end of file.
const IDLE: Duration = Duration::from_secs(30);
/// Maximum number of slices taken from the engine at a time.
const SLICES: usize = 16;

/// The server's end of a TCP connection to the resolver.
#[derive(Debug)]
pub(super) struct Stream {
    /// At most one message: incomplete, or waiting for room.
    inbound: BytesMut,
    /// Answers with their length fields, not yet accepted by the engine.
    outbound: VecDeque<Bytes>,
    /// Bytes in `outbound`.
    waiting: usize,
    /// Queries under way.
    pending: usize,
    /// Whether a query has been answered.
    answered: bool,
    /// The engine has been given our end of file.
    ended: bool,
    last_used: Instant,
}

impl Stream {
    /// A new stream.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            inbound: BytesMut::new(),
            outbound: VecDeque::new(),
            waiting: 0,
            pending: 0,
            answered: false,
            ended: false,
            last_used: now,
        }
    }

    /// Bytes of answers that the engine has not taken yet.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// What it does.
    pub(super) fn phase(&self) -> Phase {
        match self.pending {
            0 if self.answered || self.ended => Phase::Answered,
            0 => Phase::Fresh,
            _ => Phase::Asking,
        }
    }

    /// Takes the answer to one of the queries.
    pub(super) fn answer(&mut self, message: Option<Bytes>, now: Instant) {
        self.pending = self.pending.saturating_sub(1);
        self.answered = true;
        self.last_used = now;
        let Some(message) = message else { return };
        if let Ok(length) = u16::try_from(message.len()) {
            let mut framed = BytesMut::with_capacity(LENGTH_LEN + message.len());
            framed.put_u16(length);
            framed.put_slice(&message);
            self.waiting += framed.len();
            self.outbound.push_back(framed.freeze());
        }
    }

    /// Takes queries from the engine and gives it answers. Broken framing fails the connection.
    pub(super) fn serve(
        &mut self,
        flow: FlowId,
        engine: &mut Engine,
        queries: &mut Queries,
        now: Instant,
    ) -> Served {
        if self.ended {
            // The client has not seen the end yet; what it still sends is discarded.
            discard(flow, engine, now);
            return if self.is_idle(now) { Served::Failed } else { Served::Later };
        }
        loop {
            let taken = self.take(flow, engine, now);
            match self.ask(flow, queries) {
                Err(Malformed) => return Served::Failed,
                Ok(0) if taken == 0 => break,
                Ok(_) => {}
            }
        }
        self.give(flow, engine, now);
        let is_done = self.pending == 0 && self.outbound.is_empty();
        if !is_done && self.is_idle(now) {
            // Nothing is read. An end of file would cut an answer short.
            return Served::Failed;
        }
        if is_done && (engine.uplink_ended(flow) || self.is_idle(now)) {
            (self.ended, self.last_used) = (true, now);
            engine.handle_end(flow, now);
            return Served::Again;
        }
        Served::Later
    }

    /// Takes bytes from the engine, up to the end of one message.
    fn take(&mut self, flow: FlowId, engine: &mut Engine, now: Instant) -> usize {
        let missing = self.announced().unwrap_or(LENGTH_LEN).saturating_sub(self.inbound.len());
        let mut slices = [IoSlice::new(&[]); SLICES];
        let count = engine.uplink(flow, &mut slices);
        let before = self.inbound.len();
        for slice in &slices[..count] {
            let left = missing - (self.inbound.len() - before);
            self.inbound.extend_from_slice(&slice[..slice.len().min(left)]);
        }
        let taken = self.inbound.len() - before;
        if taken > 0 {
            self.last_used = now;
            engine.handle_accepted(flow, taken, now);
        }
        taken
    }

    /// The length of the first message, with its length field.
    fn announced(&self) -> Option<usize> {
        let length = self.inbound.first_chunk::<LENGTH_LEN>()?;
        Some(LENGTH_LEN + usize::from(u16::from_be_bytes(*length)))
    }

    /// Starts the first query if it is complete and there is room. Returns the number of queries started.
    fn ask(&mut self, flow: FlowId, queries: &mut Queries) -> Result<usize, Malformed> {
        let Some(announced) = self.announced() else { return Ok(0) };
        if !(LENGTH_LEN + MIN_MESSAGE..=LENGTH_LEN + MAX_QUESTION).contains(&announced) {
            return Err(Malformed);
        }
        let may_ask = self.pending + self.outbound.len() < MAX_PIPELINED && self.waiting < FULL;
        if self.inbound.len() < announced || !may_ask || !queries.has_room(flow, self.pending) {
            return Ok(0);
        }
        let message = self.inbound.split_to(announced);
        self.pending += 1;
        queries.ask(Client::Stream(flow), &message[LENGTH_LEN..]);
        Ok(1)
    }

    fn give(&mut self, flow: FlowId, engine: &mut Engine, now: Instant) {
        while let Some(answer) = self.outbound.front_mut() {
            let room = engine.downlink_room(flow);
            if room == 0 {
                break;
            }
            let part = answer.split_to(answer.len().min(room));
            if answer.is_empty() {
                self.outbound.pop_front();
            }
            self.waiting -= part.len();
            self.last_used = now;
            engine.handle_data(flow, part, now);
        }
    }

    /// Whether nothing has happened for too long, with no query under way.
    fn is_idle(&self, now: Instant) -> bool {
        self.pending == 0 && now.saturating_duration_since(self.last_used) >= IDLE
    }
}

/// Takes all that the engine has, and keeps nothing of it.
fn discard(flow: FlowId, engine: &mut Engine, now: Instant) {
    loop {
        let mut slices = [IoSlice::new(&[]); SLICES];
        let count = engine.uplink(flow, &mut slices);
        let length: usize = slices[..count].iter().map(|slice| slice.len()).sum();
        if length == 0 {
            return;
        }
        engine.handle_accepted(flow, length, now);
    }
}

/// What a stream does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// It has asked nothing yet.
    Fresh,
    /// It waits for an answer.
    Asking,
    /// All its queries were answered.
    Answered,
}

/// The stream that gives way to another one.
pub(super) fn least_wanted<'a>(
    streams: impl Iterator<Item = (FlowId, &'a Stream)> + Clone,
) -> Option<FlowId> {
    let oldest = |phase| {
        let streams = streams.clone().filter(move |(_, stream)| stream.phase() == phase);
        (
            streams.clone().count(),
            streams.min_by_key(|(id, stream)| (stream.last_used, *id)).map(|(id, _)| id),
        )
    };
    let (fresh, asking) = (oldest(Phase::Fresh), oldest(Phase::Asking));
    oldest(Phase::Answered).1.or(if fresh.0 > asking.0 { fresh.1 } else { asking.1 })
}

/// A message is shorter than a DNS header, or longer than a question.
#[derive(Debug)]
struct Malformed;

#[cfg(test)]
mod tests;
