//! The laptop's resolver, behind a link that may be silent or lost.
//!
//! A name that others know too does not wait for the link: without one, or if a link brings nothing for [`SILENCE`],
//! the laptop is *unreachable*, and whoever is next is asked. The link itself is declared dead much later, after 15 to
//! 29 s.
//!
//! For a name that only the laptop knows, a question waits for the link about as long as the client waits for the
//! answer, and is asked at the moment the link is back. What the laptop said before is the answer if the wait is in
//! vain (RFC 8767).
//!
//! An answer is used again for a short while, if it came over the present link (before, the laptop may have been elsewhere)
//! and the laptop has told of no change since. On a quiet link, which is not woken for it, it is used within its TTL, and
//! so it is while there is no link.

use std::future::pending;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout_at};

use super::cache::{Cache, Found};
use super::kept::{Age, Kept, Key};
use super::message::Query;
use super::places::Places;
use super::upstream::{Ask, Transport, Upstream, group};
use crate::liveness::{LinkWatch, Liveness};
use crate::own_sockets::OwnSockets;

/// If nothing at all arrives from the laptop for so long after a question, it is unreachable. A link that is alive
/// brings something after one round trip: at least the report that the question was delivered.
pub(super) const SILENCE: Duration = Duration::from_secs(1);

/// The same while nothing has arrived since an earlier question found the link silent: so only one pays for it. Long
/// enough for the question to be sent, in case the link is alive again.
const STILL_SILENT: Duration = Duration::from_millis(50);

/// How long a question waits for the link if there is a stale answer: RFC 8767's client response timer. An address that
/// is a little out of date serves the user better than a longer wait, because the connection to it waits for the link
/// anyway, and far longer than a resolver can. And some clients give up after 2 s (c-ares). Less would help no one:
/// without the link, the address is of no use.
pub(super) const STALE_AFTER: Duration = Duration::from_millis(1800);

/// Maximum number of questions in progress that only the laptop can answer. The rest of the questions that may be in
/// progress is for those that need not wait for the link. Shared by clients and zones.
pub(super) const MAX_PATIENT: usize = 3072;

/// What comes of asking the laptop for a name that others know too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asked {
    /// Its answer.
    Answer(Bytes),
    /// It is there, but has no answer.
    Nothing,
    /// It is not there.
    Unreachable,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Laptop<U = Upstream> {
    /// Asked for names that only the laptop knows.
    patient: U,
    /// Asked for other names: these must not queue behind the first.
    impatient: U,
    link: LinkWatch,
    /// What [`LinkWatch::heard`] said when a question last found the link silent.
    silent_at: AtomicU64,
    cache: Mutex<Cache>,
    places: Places,
}

impl Laptop {
    /// The resolver at these addresses.
    pub(super) fn new(servers: Vec<SocketAddr>, link: LinkWatch, sockets: OwnSockets) -> Self {
        let upstream = || Upstream::laptop(servers.clone(), sockets.clone());
        Self::of(upstream(), upstream(), link)
    }
}

impl<U: Ask> Laptop<U> {
    fn of(patient: U, impatient: U, link: LinkWatch) -> Self {
        Self {
            patient,
            impatient,
            link,
            silent_at: AtomicU64::new(u64::MAX),
            cache: Mutex::default(),
            places: Places::new(MAX_PATIENT),
        }
    }

    /// Asks for a name that others know too, within `time`.
    pub(super) async fn ask(&self, query: &Query, by: Transport, time: Duration) -> Asked {
        if self.link.liveness() == Liveness::Down {
            return Asked::Unreachable;
        }
        if let Some(answer) = self.fresh(query, by) {
            return Asked::Answer(answer);
        }
        let number = self.link.up().await;
        tokio::select! {
            answer = self.ask_and_keep(&self.impatient, number, query, by, time) => match answer {
                Some(answer) => Asked::Answer(answer),
                None => Asked::Nothing,
            },
            () = self.link.gone(number) => Asked::Unreachable,
            () = self.silence() => Asked::Unreachable,
        }
    }

    /// Asks for a name that only the laptop knows, until `deadline`. Without an answer, tells why.
    pub(super) async fn ask_patiently(
        &self,
        query: &Query,
        by: Transport,
        client: IpAddr,
        deadline: Instant,
    ) -> Result<Bytes, &'static str> {
        let mut place = self.places.take(client, group(&query.name()));
        let answer = tokio::select! {
            answer = self.ask_any_link(query, by, deadline) => answer.ok_or("gh-net: the laptop does not answer"),
            stale = self.stale_in_time(query, by) => Ok(stale),
            () = place.lost() => Err("gh-net: too many questions wait for the laptop"),
        };
        answer.or_else(|why| self.kept(query, by).ok_or(why))
    }

    /// What the laptop said before, fresh or stale.
    pub(super) fn kept(&self, query: &Query, by: Transport) -> Option<Bytes> {
        let Found { kept, age, .. } = self.find(query)?;
        kept.answer(query, by, age)
    }

    /// The laptop has told something that may have changed any answer: see [`Cache::changed`].
    pub(super) fn changed(&self) {
        self.cache().changed();
    }

    /// The laptop's domains changed: see [`Cache::domains_changed`].
    pub(super) fn domains_changed(&self, unaffected: impl Fn(&[u8]) -> bool) {
        self.cache().domains_changed(unaffected, Instant::now());
    }

    /// Asks over the link, or over the next one if it is lost.
    async fn ask_any_link(&self, query: &Query, by: Transport, deadline: Instant) -> Option<Bytes> {
        loop {
            if let Some(answer) = self.fresh(query, by) {
                return Some(answer);
            }
            let number = timeout_at(deadline, self.link.up()).await.ok()?;
            let time = deadline.saturating_duration_since(Instant::now());
            tokio::select! {
                answer = self.ask_and_keep(&self.patient, number, query, by, time) => return answer,
                () = self.link.gone(number) => {}
            }
        }
    }

    /// Asks over the link with this number.
    async fn ask_and_keep(
        &self,
        upstream: &U,
        link: u64,
        query: &Query,
        by: Transport,
        time: Duration,
    ) -> Option<Bytes> {
        let asked = self.cache().moment(link);
        let answer = upstream.ask(query, by, time).await?;
        if let Some(kept) = Kept::new(query, &answer)
            && let Some(key) = Key::new(query)
        {
            self.cache().keep(key, kept, asked, Instant::now());
        }
        Some(answer)
    }

    /// Returns once nothing has arrived from the laptop for too long.
    async fn silence(&self) {
        loop {
            let heard = self.link.heard();
            let known = self.silent_at.load(Ordering::Relaxed) == heard;
            sleep(if known { STILL_SILENT } else { SILENCE }).await;
            if self.link.heard() == heard {
                self.silent_at.store(heard, Ordering::Relaxed);
                return;
            }
        }
    }

    /// A stale answer when it is time for one; never returns while the laptop is there, or if there is none.
    async fn stale_in_time(&self, query: &Query, by: Transport) -> Bytes {
        let heard = self.link.heard();
        sleep(STALE_AFTER).await;
        let unreachable = self.link.liveness() == Liveness::Down || self.link.heard() == heard;
        match self.kept(query, by).filter(|_| unreachable) {
            Some(answer) => answer,
            None => pending().await,
        }
    }

    /// A kept answer, if it may be given without asking the laptop.
    fn fresh(&self, query: &Query, by: Transport) -> Option<Bytes> {
        let found = self.find(query)?;
        let is_fresh = matches!(found.age, Age::Fresh(_));
        let may_be_given = match self.link.liveness() {
            Liveness::Up => found.spares_the_question(),
            Liveness::Quiet => is_fresh && found.is_current,
            // Without the link no address is reached, so one that is out of date does no harm. A negative answer that is
            // out of date does: programs give up.
            Liveness::Down => is_fresh && (found.is_current || !found.kept.is_negative()),
        };
        may_be_given.then(|| found.kept.answer(query, by, found.age))?
    }

    fn find(&self, query: &Query) -> Option<Found> {
        self.cache().find(&Key::new(query)?, self.link.number(), Instant::now())
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
