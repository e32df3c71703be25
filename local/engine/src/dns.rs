//! DNS queries to the engine's own address: recognised here, answered by the laptop's resolver.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::api::QueryId;

/// The port of DNS.
pub(super) const PORT: u16 = 53;

/// How long a query waits for its answer. Stub resolvers give up after 5 seconds.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Queries that may wait for their answers.
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
#[derive(Debug, Default)]
pub(super) struct Queries {
    /// Ids count up, so the first is the oldest.
    waiting: BTreeMap<QueryId, (Instant, Endpoints)>,
    next: u64,
}

impl Queries {
    /// Remembers a query; `None` if too many wait already.
    pub(super) fn add(&mut self, endpoints: Endpoints, now: Instant) -> Option<QueryId> {
        self.expire(now);
        if self.waiting.len() >= MAX_WAITING {
            return None;
        }
        let query = QueryId(self.next);
        self.next += 1;
        self.waiting.insert(query, (now, endpoints));
        Some(query)
    }

    /// Takes out a query that has been answered.
    pub(super) fn remove(&mut self, query: QueryId) -> Option<Endpoints> {
        self.waiting.remove(&query).map(|(_, endpoints)| endpoints)
    }

    fn expire(&mut self, now: Instant) {
        while let Some(oldest) = self.waiting.first_entry()
            && now.saturating_duration_since(oldest.get().0) >= TIMEOUT
        {
            oldest.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints() -> Endpoints {
        let address = SocketAddr::from(([10, 0, 0, 1], 53));
        Endpoints { client: address, server: address }
    }

    #[test]
    fn one_query_without_an_answer_does_not_hold_up_the_others() {
        let (mut queries, now) = (Queries::default(), Instant::now());
        let _never_answered = queries.add(endpoints(), now);
        for _ in 0..2 * MAX_WAITING {
            let query = queries.add(endpoints(), now).expect("room");
            assert!(queries.remove(query).is_some());
            assert!(queries.remove(query).is_none(), "answered twice");
        }
    }

    #[test]
    fn queries_that_wait_are_bounded_and_forgotten_after_a_while() {
        let (mut queries, now) = (Queries::default(), Instant::now());
        let first = queries.add(endpoints(), now).expect("room");
        for _ in 1..MAX_WAITING {
            assert!(queries.add(endpoints(), now).is_some());
        }
        assert!(queries.add(endpoints(), now).is_none());
        assert!(queries.add(endpoints(), now + TIMEOUT).is_some());
        assert!(queries.remove(first).is_none());
    }
}
