//! Queries to the laptop's resolver: datagrams that the engine recognised, and DNS over TCP (RFC 7766) as a
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
use futures_util::future::Either;
use futures_util::stream::FuturesUnordered;

use super::names::{Lookup, Lookups};
use super::served::Served;
use crate::engine::{Engine, FlowId, QueryId};
use crate::resolver::{self, Resolver};

/// Maximum number of queries under way, from all clients. Further ones are dropped; the client repeats them.
const MAX_PENDING: usize = 4096;
/// Maximum number of queries of one stream that are under way or whose answer is not yet sent. Further ones wait
/// in the stream.
const MAX_PIPELINED: usize = 32;
/// The length field in front of a message.
const LENGTH_LEN: usize = 2;
/// DNS messages have a header of 12 bytes (RFC 1035, 4.1.1).
const MIN_MESSAGE: usize = 12;
/// How long a stream may be idle (RFC 7766, 6.2.3: "on the order of a few seconds", longer without load).
const IDLE: Duration = Duration::from_secs(30);
/// Maximum number of slices taken from the engine at a time.
const SLICES: usize = 16;

/// How a query arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Client {
    /// In a datagram.
    Datagram(QueryId),
    /// On a stream.
    Stream(FlowId),
}

/// The resolver's answer; `None` if the message was not a query.
pub(super) type Answer = (Client, Option<resolver::Answer>);

/// A finished query.
struct Finished {
    client: Client,
    answer: Option<resolver::Answer>,
    took: Duration,
}

/// The queries under way.
pub(super) struct Queries {
    resolver: Arc<Resolver>,
    pending: FuturesUnordered<Pin<Box<dyn Future<Output = Finished> + Send>>>,
    lookups: Lookups,
    dropped: u64,
}

impl fmt::Debug for Queries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queries").field("pending", &self.pending.len()).finish_non_exhaustive()
    }
}

impl Queries {
    /// No query yet.
    pub(super) fn new(resolver: Arc<Resolver>) -> Self {
        Self { resolver, pending: FuturesUnordered::new(), lookups: Lookups::default(), dropped: 0 }
    }

    /// Starts a query. Returns whether there was room for it.
    pub(super) fn ask(&mut self, client: Client, message: Bytes) -> bool {
        if self.pending.len() >= MAX_PENDING {
            self.dropped += 1;
            return false;
        }
        let begun = Instant::now();
        // The message is read at once, so what waits is small and keeps no buffer.
        let answer = match client {
            Client::Datagram(_) => Either::Left(self.resolver.answer_udp(&message)),
            Client::Stream(_) => Either::Right(self.resolver.answer_tcp(&message)),
        };
        self.pending
            .push(Box::pin(async move { Finished { client, answer: answer.await, took: begun.elapsed() } }));
        true
    }

    /// The next answer.
    pub(super) fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Answer> {
        match self.pending.poll_next_unpin(cx) {
            Poll::Ready(Some(Finished { client, mut answer, took })) => {
                if let Some(lookup) = answer.as_mut().and_then(|answer| answer.lookup.take()) {
                    self.lookups.add(Lookup { lookup, answered: Instant::now(), took });
                }
                Poll::Ready((client, answer))
            }
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }

    /// The latest lookups, oldest first.
    pub(super) fn lookups(&self) -> Vec<Lookup> {
        self.lookups.to_vec()
    }

    /// How many queries were dropped because too many were under way.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }
}

/// The server's end of a TCP connection to the resolver.
#[derive(Debug)]
pub(super) struct Stream {
    /// At most one message: incomplete, or waiting for room.
    inbound: BytesMut,
    /// Answers with their length fields, not yet accepted by the engine.
    outbound: VecDeque<Bytes>,
    /// Queries under way.
    pending: usize,
    /// The engine has been given our end of file.
    ended: bool,
    last_used: Instant,
}

impl Stream {
    /// A new stream.
    pub(super) fn new(now: Instant) -> Self {
        Self { inbound: BytesMut::new(), outbound: VecDeque::new(), pending: 0, ended: false, last_used: now }
    }

    /// Takes the answer to one of the queries.
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
            self.inbound.clear();
            while self.take(flow, engine, now) > 0 {
                self.inbound.clear();
            }
            return Served::Idle;
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
        let asked_all = engine.uplink_ended(flow) && self.pending == 0 && self.outbound.is_empty();
        if asked_all || self.is_idle(now) {
            self.ended = true;
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
        if announced < LENGTH_LEN + MIN_MESSAGE {
            return Err(Malformed);
        }
        if self.inbound.len() < announced || self.pending + self.outbound.len() >= MAX_PIPELINED {
            return Ok(0);
        }
        let mut message = self.inbound.split_to(announced);
        message.advance(LENGTH_LEN);
        self.pending += usize::from(queries.ask(Client::Stream(flow), message.freeze()));
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

    /// Whether it has been idle for too long, with no answer pending.
    fn is_idle(&self, now: Instant) -> bool {
        self.pending == 0 && self.outbound.is_empty() && now.saturating_duration_since(self.last_used) >= IDLE
    }
}

/// A message is shorter than a DNS header.
#[derive(Debug)]
struct Malformed;
