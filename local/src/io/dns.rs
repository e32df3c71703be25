//! Queries to the laptop's resolver: datagrams that the engine recognised, and those of [streams](super::stream).

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::future::Either;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};

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
        // An async block would hold the future twice: as captured, and as awaited.
        self.pending.push(Box::pin(answer.map(move |answer| Finished {
            client,
            answer,
            took: begun.elapsed(),
        })));
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What ARCHITECTURE.md promises of a query under way, without the allocator's part.
    const QUERY: usize = 5 * 1024;

    /// A question for `name`, as long as names can be.
    fn question() -> Vec<u8> {
        let mut message = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for length in [63, 63, 63, 57_u8] {
            message.push(length);
            message.resize(message.len() + usize::from(length), b'a');
        }
        message.extend([0, 0, 15, 0, 1]);
        message
    }

    #[tokio::test]
    async fn queries_under_way_are_bounded_in_number_and_bytes() {
        let mut queries = Queries::new(Arc::new(Resolver::default()));
        for n in 0..2 * MAX_DATAGRAMS {
            queries.ask(Client::Datagram(QueryId::default()), &question());
            queries.ask(Client::Stream(FlowId(n as u64)), &question());
        }
        assert_eq!(queries.pending.len(), MAX_DATAGRAMS + MAX_STREAMED);
        assert_eq!(queries.dropped(), (3 * MAX_DATAGRAMS - MAX_STREAMED) as u64);
        let query = queries.pending.iter().next().expect("a query");
        let bytes = size_of_val(&**query) + question().len();
        assert!(bytes <= QUERY, "{bytes}");
    }
}
