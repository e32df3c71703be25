//! DNS queries to the engine's own address: recognised here, answered by the laptop's resolver.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::QueryId;

/// The port of DNS.
pub(super) const PORT: u16 = 53;

/// How long an answer is waited for; stub resolvers give up after 5 seconds.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Queries that may wait for their answers.
const MAX_WAITING: usize = 4096;

/// Where an answer goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asker {
    /// Who asked.
    pub client: SocketAddr,
    /// Whom: the engine's own address and port.
    pub server: SocketAddr,
}

/// Queries over UDP that wait for their answers.
#[derive(Debug, Default)]
pub(super) struct Queries {
    waiting: HashMap<QueryId, Asker>,
    order: VecDeque<(Instant, QueryId)>,
    next: u64,
}

impl Queries {
    /// Remembers a query; `None` if too many wait already.
    pub(super) fn add(&mut self, asker: Asker, now: Instant) -> Option<QueryId> {
        self.expire(now);
        if self.order.len() >= MAX_WAITING {
            return None;
        }
        let query = QueryId(self.next);
        self.next += 1;
        self.waiting.insert(query, asker);
        self.order.push_back((now, query));
        Some(query)
    }

    /// The query is answered.
    pub(super) fn remove(&mut self, query: QueryId) -> Option<Asker> {
        self.waiting.remove(&query)
    }

    fn expire(&mut self, now: Instant) {
        while let Some((asked, query)) = self.order.front() {
            if self.waiting.contains_key(query) && now.saturating_duration_since(*asked) < TIMEOUT {
                return;
            }
            self.waiting.remove(query);
            self.order.pop_front();
        }
    }
}
