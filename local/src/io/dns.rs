//! Queries to the laptop's resolver: datagrams that the engine recognised, and those of [streams](super::stream).
//!
//! A query whose client is gone is forgotten at once, with its place here and its turn at the resolver.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::future::{AbortHandle, Abortable, Aborted, Either};
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Client {
    /// In a datagram.
    Datagram(QueryId),
    /// On a stream.
    Stream(FlowId),
}

/// The resolver's answer; `None` if the message was not a query.
pub(super) type Answer = (Client, Option<resolver::Answer>);

/// Identifies a query under way. A stream has several, which are numbered.
type Key = (Client, u64);

/// A finished query.
struct Finished {
    key: Key,
    answer: Option<resolver::Answer>,
    took: Duration,
}

/// A query under way, which ends early once it is forgotten.
type Query = Pin<Box<dyn Future<Output = Result<Finished, Aborted>> + Send>>;

/// The queries under way.
pub(super) struct Queries {
    resolver: Arc<Resolver>,
    pending: FuturesUnordered<Query>,
    /// Those of them that were not forgotten.
    under_way: BTreeMap<Key, AbortHandle>,
    /// How many of these came on streams.
    streamed: usize,
    /// Streams that had to wait for room.
    waiting: BTreeSet<FlowId>,
    next: u64,
    lookups: Lookups,
    dropped: u64,
}

impl fmt::Debug for Queries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queries").field("under_way", &self.under_way.len()).finish_non_exhaustive()
    }
}

impl Queries {
    /// No query yet.
    pub(super) fn new(resolver: Arc<Resolver>) -> Self {
        Self {
            resolver,
            pending: FuturesUnordered::new(),
            under_way: BTreeMap::new(),
            streamed: 0,
            waiting: BTreeSet::new(),
            next: 0,
            lookups: Lookups::default(),
            dropped: 0,
        }
    }

    /// Whether there is room for a query of a stream that has `pending` others under way. If not, the stream is among
    /// those of [`Self::take_waiting`] as soon as there may be.
    pub(super) fn has_room(&mut self, stream: FlowId, pending: usize) -> bool {
        let has_room = self.streamed < if pending == 0 { MAX_STREAMED } else { MANY_STREAMED };
        if !has_room {
            self.waiting.insert(stream);
        }
        has_room
    }

    /// The streams that wait for room, to be served because a query of a stream has ended.
    pub(super) fn take_waiting(&mut self) -> BTreeSet<FlowId> {
        std::mem::take(&mut self.waiting)
    }

    /// Starts a query, or drops it if there is no room.
    pub(super) fn ask(&mut self, client: Client, message: &[u8]) {
        let is_full = match client {
            Client::Datagram(_) => self.under_way.len() - self.streamed >= MAX_DATAGRAMS,
            Client::Stream(_) => self.streamed >= MAX_STREAMED,
        };
        if is_full {
            self.dropped += 1;
            return;
        }
        self.streamed += usize::from(matches!(client, Client::Stream(_)));
        let key = (client, self.next);
        self.next += 1;
        let begun = Instant::now();
        // The message is read at once, so what waits is small and keeps no buffer.
        let answer = match client {
            Client::Datagram(_) => Either::Left(self.resolver.answer_udp(message)),
            Client::Stream(_) => Either::Right(self.resolver.answer_tcp(message)),
        };
        let (handle, registration) = AbortHandle::new_pair();
        self.under_way.insert(key, handle);
        // An async block would hold the future twice: as captured, and as awaited.
        let finished = answer.map(move |answer| Finished { key, answer, took: begun.elapsed() });
        self.pending.push(Box::pin(Abortable::new(finished, registration)));
    }

    /// Forgets the client's queries: there is nobody to answer any more.
    pub(super) fn forget(&mut self, client: Client) {
        let of_client = self.under_way.range((client, 0)..=(client, u64::MAX));
        for key in of_client.map(|(key, _)| *key).collect::<Vec<_>>() {
            if let Some(query) = self.end(key) {
                query.abort();
            }
        }
    }

    fn end(&mut self, key: Key) -> Option<AbortHandle> {
        let query = self.under_way.remove(&key)?;
        self.streamed -= usize::from(matches!(key, (Client::Stream(_), _)));
        Some(query)
    }

    /// The next answer.
    pub(super) fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Answer> {
        loop {
            match self.pending.poll_next_unpin(cx) {
                Poll::Ready(Some(Ok(Finished { key, mut answer, took }))) => {
                    self.end(key);
                    if let Some(lookup) = answer.as_mut().and_then(|answer| answer.lookup.take()) {
                        self.lookups.add(Lookup { lookup, answered: Instant::now(), took });
                    }
                    return Poll::Ready((key.0, answer));
                }
                Poll::Ready(Some(Err(Aborted))) => {}
                Poll::Ready(None) | Poll::Pending => return Poll::Pending,
            }
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
    use std::task::Waker;

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

    /// A question for an address of host.dead.example.
    const QUESTION: &[u8] = b"\0\x07\x01\0\0\x01\0\0\0\0\0\0\x04host\x04dead\x07example\0\0\x01\0\x01";

    fn queries() -> Queries {
        Queries::new(Arc::new(Resolver::hanging()))
    }

    /// Gives every query a chance to begin, or to end.
    fn poll(queries: &mut Queries) {
        assert!(queries.poll_answer(&mut Context::from_waker(Waker::noop())).is_pending());
    }

    #[tokio::test]
    async fn streams_that_wait_are_told_when_the_queries_of_another_one_are_forgotten() {
        let mut queries = queries();
        let stream = |number: usize| FlowId(number as u64);
        for number in 0..MAX_STREAMED {
            assert!(queries.has_room(stream(number), 0));
            queries.ask(Client::Stream(stream(number)), QUESTION);
        }
        poll(&mut queries);
        assert!(!queries.has_room(stream(MAX_STREAMED), 0));
        queries.forget(Client::Stream(stream(3)));
        assert_eq!(queries.take_waiting(), BTreeSet::from([stream(MAX_STREAMED)]));
        assert!(queries.has_room(stream(MAX_STREAMED), 0));
        assert!(!queries.has_room(stream(4), 1), "it has one already");
    }

    #[tokio::test]
    async fn what_is_forgotten_keeps_nothing() {
        let mut queries = queries();
        let [stream, other] = [7, 8].map(|number| Client::Stream(FlowId(number)));
        for client in [other, stream, stream] {
            queries.ask(client, QUESTION);
        }
        poll(&mut queries);
        queries.forget(stream);
        poll(&mut queries);
        assert_eq!((queries.pending.len(), queries.under_way.len(), queries.streamed), (1, 1, 1));
        queries.forget(other);
        queries.forget(other);
        poll(&mut queries);
        assert_eq!((queries.pending.len(), queries.under_way.len(), queries.streamed), (0, 0, 0));
    }
}
