//! Queries to the laptop's resolver: datagrams that the engine recognised, and those of [streams](super::stream).

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::Either;
use futures_util::stream::FuturesUnordered;

use super::names::{Lookup, Lookups};
use crate::engine::{FlowId, QueryId};
use crate::resolver::{self, Resolver};

/// Maximum number of queries under way that came in datagrams, and on streams. Further ones of the first are dropped, and
/// their clients repeat them; those of the second wait in their streams.
const MAX_DATAGRAMS: usize = 4096;
const MAX_STREAMED: usize = 512;
/// With so many queries of streams under way, each stream has one at most: a query of another one, in the same zone, waits
/// behind no more than one of each.
const MANY_STREAMED: usize = 128;

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
    /// How many of them came on streams.
    streamed: usize,
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
        Self {
            resolver,
            pending: FuturesUnordered::new(),
            streamed: 0,
            lookups: Lookups::default(),
            dropped: 0,
        }
    }

    /// Whether there is room for a query of a stream that has `pending` others under way.
    pub(super) fn has_room(&self, pending: usize) -> bool {
        self.streamed < if pending == 0 { MAX_STREAMED } else { MANY_STREAMED }
    }

    /// Starts a query, or drops it if there is no room.
    pub(super) fn ask(&mut self, client: Client, message: &[u8]) {
        let is_full = match client {
            Client::Datagram(_) => self.pending.len() - self.streamed >= MAX_DATAGRAMS,
            Client::Stream(_) => self.streamed >= MAX_STREAMED,
        };
        if is_full {
            self.dropped += 1;
            return;
        }
        self.streamed += usize::from(matches!(client, Client::Stream(_)));
        let begun = Instant::now();
        // The message is read at once, so what waits is small and keeps no buffer.
        let answer = match client {
            Client::Datagram(_) => Either::Left(self.resolver.answer_udp(message)),
            Client::Stream(_) => Either::Right(self.resolver.answer_tcp(message)),
        };
        self.pending
            .push(Box::pin(async move { Finished { client, answer: answer.await, took: begun.elapsed() } }));
    }

    /// The next answer.
    pub(super) fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Answer> {
        match self.pending.poll_next_unpin(cx) {
            Poll::Ready(Some(Finished { client, mut answer, took })) => {
                self.streamed -= usize::from(matches!(client, Client::Stream(_)));
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
