//! Questions to the laptop's resolver: datagrams the engine recognised, and DNS over TCP (RFC 7766) as a
//! [`Stream`] that is served like a socket.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::served::Served;
use crate::engine::{Engine, FlowId, QueryId};
use crate::resolver::Resolver;

/// Questions under way at once, from all askers; a further one is dropped, and the asker repeats it.
const MAX_PENDING: usize = 4096;
/// Questions of one stream under way or answered and not yet sent; further ones wait in the stream.
const MAX_PIPELINED: usize = 32;
/// A message's length field.
const LENGTH_LEN: usize = 2;
/// DNS messages have a header of 12 bytes (RFC 1035, 4.1.1).
const MIN_MESSAGE: usize = 12;
/// How long a stream may be idle (RFC 7766, 6.2.3: "on the order of a few seconds", more under no load).
const IDLE: Duration = Duration::from_secs(30);
/// Slices taken from the engine at a time.
const SLICES: usize = 16;

/// Who asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asker {
    /// A datagram.
    Datagram(QueryId),
    /// A stream.
    Stream(FlowId),
}

/// What the resolver said, `None` if it has nothing to say.
pub(super) type Answer = (Asker, Option<Bytes>);

/// The questions under way.
pub(super) struct Questions {
    resolver: Arc<Resolver>,
    pending: FuturesUnordered<Pin<Box<dyn Future<Output = Answer> + Send>>>,
    dropped: u64,
}

impl fmt::Debug for Questions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Questions").field("pending", &self.pending.len()).finish_non_exhaustive()
    }
}

impl Questions {
    /// None yet.
    pub(super) fn new(resolver: Arc<Resolver>) -> Self {
        Self { resolver, pending: FuturesUnordered::new(), dropped: 0 }
    }

    /// Asks. Returns whether there was room for the question.
    pub(super) fn ask(&mut self, asker: Asker, message: Bytes) -> bool {
        if self.pending.len() >= MAX_PENDING {
            self.dropped += 1;
            return false;
        }
        let resolver = Arc::clone(&self.resolver);
        self.pending.push(Box::pin(async move {
            let answer = match asker {
                Asker::Datagram(_) => resolver.answer_udp(message).await,
                Asker::Stream(_) => resolver.answer_tcp(message).await,
            };
            (asker, answer)
        }));
        true
    }

    /// The next answer.
    pub(super) fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Answer> {
        match self.pending.poll_next_unpin(cx) {
            Poll::Ready(Some(answer)) => Poll::Ready(answer),
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }

    /// How many questions were dropped for want of room.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }
}

/// The far end of a TCP connection to the resolver.
#[derive(Debug)]
pub(super) struct Stream {
    /// Less than one message, or what waits for its turn.
    inbound: BytesMut,
    /// Answers with their length fields, not yet taken by the engine.
    outbound: VecDeque<Bytes>,
    /// Questions under way.
    pending: usize,
    /// Our end of file has been given to the engine.
    ended: bool,
    last_used: Instant,
}

impl Stream {
    /// A stream on which nothing has been said.
    pub(super) fn new(now: Instant) -> Self {
        Self { inbound: BytesMut::new(), outbound: VecDeque::new(), pending: 0, ended: false, last_used: now }
    }

    /// An answer to one of its questions.
    pub(super) fn answer(&mut self, message: Option<Bytes>, now: Instant) {
        self.pending = self.pending.saturating_sub(1);
        self.last_used = now;
        let Some(message) = message else { return };
        if let Ok(length) = u16::try_from(message.len()) {
            let mut framed = BytesMut::with_capacity(LENGTH_LEN + message.len());
            framed.put_u16(length);
            framed.put_slice(&message);
            self.outbound.push_back(framed.freeze());
        }
    }

    /// Takes questions from the engine, and gives it answers. An asker that breaks the framing is failed.
    pub(super) fn serve(
        &mut self,
        flow: FlowId,
        engine: &mut Engine,
        questions: &mut Questions,
        now: Instant,
    ) -> Served {
        if self.ended {
            // The asker was slow to hear of it; what it still says is heard and not answered.
            self.inbound.clear();
            while self.take(flow, engine, now) > 0 {
                self.inbound.clear();
            }
            return Served::Idle;
        }
        loop {
            let taken = self.take(flow, engine, now);
            match self.ask(flow, questions) {
                Err(Malformed) => return Served::Failed,
                Ok(0) if taken == 0 => break,
                Ok(_) => {}
            }
        }
        self.give(flow, engine, now);
        let asked_all = engine.uplink_ended(flow) && self.pending == 0 && self.outbound.is_empty();
        if asked_all || self.is_idle(now) {
            self.ended = true;
            engine.handle_end(flow, now);
            return Served::Again;
        }
        Served::Later
    }

    /// Moves bytes from the engine, up to one whole message.
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

    /// How long the message at the front is, with its length field.
    fn announced(&self) -> Option<usize> {
        let length = self.inbound.first_chunk::<LENGTH_LEN>()?;
        Some(LENGTH_LEN + usize::from(u16::from_be_bytes(*length)))
    }

    /// Asks the question at the front if it is whole and may be asked now. Returns how many were asked.
    fn ask(&mut self, flow: FlowId, questions: &mut Questions) -> Result<usize, Malformed> {
        let Some(announced) = self.announced() else { return Ok(0) };
        if announced < LENGTH_LEN + MIN_MESSAGE {
            return Err(Malformed);
        }
        if self.inbound.len() < announced || self.pending + self.outbound.len() >= MAX_PIPELINED {
            return Ok(0);
        }
        let mut message = self.inbound.split_to(announced);
        message.advance(LENGTH_LEN);
        self.pending += usize::from(questions.ask(Asker::Stream(flow), message.freeze()));
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
            self.last_used = now;
            engine.handle_data(flow, part, now);
        }
    }

    /// Whether it has not been used for long, and nothing is owed.
    fn is_idle(&self, now: Instant) -> bool {
        self.pending == 0 && self.outbound.is_empty() && now.saturating_duration_since(self.last_used) >= IDLE
    }
}

/// A message too short to be one.
#[derive(Debug)]
struct Malformed;
