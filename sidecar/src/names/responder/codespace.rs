//! The codespace's own resolvers, and what they have said.
//!
//! They are near, and most of them cache. An answer is used again for a short while only, which spares them the questions
//! of programs that ask again and again.

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::cache::{Cache, Found};
use super::choice::is_single_label;
use super::kept::{Kept, Key};
use super::message::Query;
use super::upstream::{Ask, Transport, Upstream};
use crate::own_sockets::OwnSockets;

/// The link to these resolvers is always the same.
const LINK: u64 = 0;

/// See the [module](self). A change of the resolvers is a new one, with nothing in its cache.
#[derive(Debug)]
pub(super) struct Codespace<U = Upstream> {
    upstream: U,
    cache: Mutex<Cache>,
}

impl Codespace {
    /// The resolvers at these addresses.
    pub(super) fn new(servers: Vec<SocketAddr>, sockets: OwnSockets) -> Self {
        Self::of(Upstream::codespace(servers, sockets))
    }
}

impl<U: Ask> Codespace<U> {
    fn of(upstream: U) -> Self {
        Self { upstream, cache: Mutex::default() }
    }

    /// An answer, from the cache or within `time`. `None` if there is none.
    pub(super) async fn ask(&self, query: &Query, by: Transport, time: Duration) -> Option<Bytes> {
        // A name of one label is a container's, whose address changes whenever it is made anew.
        let key = Key::new(query).filter(|_| !is_single_label(&query.name()));
        let found = key.as_ref().and_then(|key| self.cache().find(key, LINK, Instant::now()));
        if let Some(found) = found.filter(Found::spares_the_question)
            && let Some(answer) = found.kept.answer(query, by, found.age)
        {
            return Some(answer);
        }
        let asked = self.cache().moment(LINK);
        let answer = self.upstream.ask(query, by, time).await?;
        if let Some(key) = key
            && let Some(kept) = Kept::new(query, &answer)
        {
            self.cache().keep(key, kept, asked, Instant::now());
        }
        Some(answer)
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
