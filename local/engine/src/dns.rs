//! DNS queries to the engine's own address: recognised here, answered by the laptop's resolver.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::api::QueryId;
use super::unanswered::{Group, Unanswered};

/// The port of DNS.
pub(super) const PORT: u16 = 53;

/// How long a query waits for its answer. Stub resolvers give up after 5 seconds.
const TIMEOUT: Duration = Duration::from_secs(15);
/// The longest question over UDP that is passed on. They have some hundred bytes.
pub(super) const MAX_QUESTION: usize = 4096;
/// Queries that may wait for their answers. Beyond that, the oldest of the client with most of them gives way.
const MAX_WAITING: usize = 4096;

/// The endpoints of a query.
#[derive(Debug, Clone, Copy)]
pub(super) struct Endpoints {
    /// The client.
    pub client: SocketAddr,
    /// The address that it sent the query to: one of the engine's own, and port 53.
    pub server: SocketAddr,
}

/// Queries over UDP that wait for their answers.
#[derive(Debug)]
pub(super) struct Queries {
    most: usize,
    /// Ids count up, so the first is the oldest.
    waiting: BTreeMap<QueryId, (Instant, Endpoints)>,
    clients: Unanswered<SocketAddr, BTreeSet<QueryId>>,
    next: u64,
}

impl Queries {
    /// As many as take a sixteenth of `memory`, at most [`MAX_WAITING`].
    pub(super) fn new(memory: usize) -> Self {
        let most = MAX_WAITING.min(memory / 16 / MAX_QUESTION).max(1);
        Self { most, waiting: BTreeMap::new(), clients: Unanswered::default(), next: 0 }
    }

    /// Forgets all queries.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
        self.clients = Unanswered::default();
    }

    /// Remembers a query. Returns the one that gave way to it, too.
    pub(super) fn add(&mut self, endpoints: Endpoints, now: Instant) -> (QueryId, Option<QueryId>) {
        self.expire(now);
        let is_full = self.waiting.len() >= self.most;
        let gives_way = if is_full { self.clients.oldest_of_busiest() } else { None };
        if let Some(oldest) = gives_way {
            self.remove(oldest);
        }
        let query = QueryId(self.next);
        self.next += 1;
        self.waiting.insert(query, (now, endpoints));
        self.clients.insert(endpoints.client, query);
        (query, gives_way)
    }

    /// Takes out a query that has been answered.
    pub(super) fn remove(&mut self, query: QueryId) -> Option<Endpoints> {
        let (_, endpoints) = self.waiting.remove(&query)?;
        self.clients.remove(endpoints.client, query);
        Some(endpoints)
    }

    fn expire(&mut self, now: Instant) {
        while let Some((query, (since, _))) = self.waiting.first_key_value()
            && now.saturating_duration_since(*since) >= TIMEOUT
        {
            self.remove(*query);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(port: u16) -> Endpoints {
        let address = SocketAddr::from(([10, 0, 0, 1], port));
        Endpoints { client: address, server: address }
    }

    #[test]
    fn a_client_that_asks_too_much_gives_way_to_others() {
        let (mut queries, now) = (Queries::new(256 << 20), Instant::now());
        let (other, _) = queries.add(endpoints(1), now);
        let (first, _) = queries.add(endpoints(2), now);
        for _ in 2..MAX_WAITING {
            assert_eq!(queries.add(endpoints(2), now).1, None);
        }
        assert_eq!(queries.add(endpoints(2), now).1, Some(first));
        for _ in 0..2 * MAX_WAITING {
            assert!(queries.add(endpoints(2), now).1.is_some());
        }
        assert_eq!(queries.waiting.len(), MAX_WAITING);
        assert!(queries.remove(first).is_none());
        assert!(queries.remove(other).is_some());
        assert!(queries.remove(other).is_none(), "answered twice");
    }

    #[test]
    fn queries_are_forgotten_after_a_while() {
        let (mut queries, now) = (Queries::new(256 << 20), Instant::now());
        let (first, _) = queries.add(endpoints(1), now);
        queries.add(endpoints(1), now + TIMEOUT);
        assert!(queries.remove(first).is_none());
        assert_eq!((queries.waiting.len(), queries.clients.len()), (1, 1));
    }
}
