//! Answers that may be given again. Pure.
//!
//! What the laptop said and what the codespace's resolvers said are in a cache each: so no answer of the public stands
//! for one of the laptop's, and names of one side do not evict those of the other.
//!
//! An answer is *fresh* within its TTL (RFC 2308 for negative ones), then *stale* (RFC 8767). It is *current* if nothing
//! has happened since it was asked for that may have changed it. Which of these an answer must be to stand for a question
//! is for [`laptop`](super::laptop) and [`codespace`](super::codespace) to decide. A cache belongs to one session, as the
//! responder does.
//!
//! The codespace's programs choose what is asked, so entries and bytes are bounded; the least recently used entry makes
//! room. Negative answers have room of their own: the search list turns each name into several that do not exist, and
//! these must not evict the answers that are worth something.

use std::time::Duration;

use lru::LruCache;
use tokio::time::Instant;

use super::kept::{Age, Kept, Key};

/// Maximum number of positive answers: several times the names that a company's developer uses.
const POSITIVE: Bounds = Bounds { entries: 2048, bytes: 1024 * 1024 };
/// Maximum number of negative answers.
const NEGATIVE: Bounds = Bounds { entries: 1024, bytes: 256 * 1024 };

/// What an entry costs beside its bytes: its places in the map and in the list by use.
const OVERHEAD: usize = 256;

/// How long an answer may be used after its TTL. RFC 8767 section 6 finds that less than a day covers the vast majority
/// of outages; a session without a link lasts no longer than a day either.
const MAX_STALE: Duration = Duration::from_secs(24 * 60 * 60);

/// For how long an answer stands for questions that could be asked. Not every change is told: a split DNS service behind
/// a local address may have other servers now, and a container that is made anew has another address, while Docker's
/// resolver gives the old one for ten minutes. A minute saves the questions of programs that ask again and again.
const MAX_POSITIVE: Duration = Duration::from_secs(60);
/// The same for a negative answer. Shorter, because people make a name and then wait for it.
const MAX_NEGATIVE: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy)]
struct Bounds {
    entries: usize,
    bytes: usize,
}

/// The state of the other side at a moment, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment {
    domains: u64,
    changes: u64,
    link: u64,
}

/// An answer in a cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) kept: Kept,
    pub(super) age: Age,
    /// Whether the other side is in the state in which it was asked, as far as that is known.
    pub(super) is_current: bool,
}

impl Found {
    /// Whether it stands for a question that could be asked.
    pub(super) fn spares_the_question(&self) -> bool {
        let longest = if self.kept.is_negative() { MAX_NEGATIVE } else { MAX_POSITIVE };
        self.is_current && matches!(self.age, Age::Fresh(age) if age < longest)
    }
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Cache {
    positive: Store,
    negative: Store,
    /// How often the domains of the other side have changed.
    domains: u64,
    /// How often anything has changed there.
    changes: u64,
}

impl Default for Cache {
    fn default() -> Self {
        Self { positive: Store::new(POSITIVE), negative: Store::new(NEGATIVE), domains: 0, changes: 0 }
    }
}

impl Cache {
    /// The present state, if the other side is reached over the link with this number.
    pub(super) fn moment(&self, link: u64) -> Moment {
        Moment { domains: self.domains, changes: self.changes, link }
    }

    /// Keeps an answer to a question asked at `asked`, in place of an earlier one. An answer that a change of the domains
    /// has overtaken is not kept, and one that another change has overtaken is not current.
    pub(super) fn keep(&mut self, key: Key, kept: Kept, asked: Moment, now: Instant) {
        if asked.domains != self.domains {
            return;
        }
        let (store, other) = match kept.is_negative() {
            true => (&mut self.negative, &mut self.positive),
            false => (&mut self.positive, &mut self.negative),
        };
        other.remove(&key);
        store.insert(key, Entry { expires: now + kept.ttl(), kept, stored: now, asked });
    }

    /// The answer to questions with this key, if there is one that may still be used.
    pub(super) fn find(&mut self, key: &Key, link: u64, now: Instant) -> Option<Found> {
        let present = self.moment(link);
        let mut stores = [&mut self.positive, &mut self.negative].into_iter();
        stores.find_map(|store| store.find(key, present, now))
    }

    /// Something changed that may have changed any answer: none is current any more.
    pub(super) fn changed(&mut self) {
        self.changes += 1;
    }

    /// The domains of the other side changed. What was kept of a name is dropped unless it is `unaffected`: it must neither
    /// outlive the time when the name belonged to that side, nor stand for the new owner's answer. Nothing else counts
    /// as fresh any more, because the change of networks behind it may have changed any answer.
    pub(super) fn domains_changed(&mut self, unaffected: impl Fn(&[u8]) -> bool, now: Instant) {
        self.domains += 1;
        for store in [&mut self.positive, &mut self.negative] {
            store.retain(|key| unaffected(key.name()));
            for (_, entry) in store.entries.iter_mut() {
                entry.expires = entry.expires.min(now);
            }
        }
    }
}

#[derive(Debug)]
struct Entry {
    kept: Kept,
    stored: Instant,
    expires: Instant,
    asked: Moment,
}

/// Entries within bounds.
#[derive(Debug)]
struct Store {
    bounds: Bounds,
    entries: LruCache<Key, Entry>,
    bytes: usize,
}

impl Store {
    fn new(bounds: Bounds) -> Self {
        Self { bounds, entries: LruCache::unbounded(), bytes: 0 }
    }

    fn insert(&mut self, key: Key, entry: Entry) {
        self.remove(&key);
        let size = size(&key, &entry);
        while self.entries.len() >= self.bounds.entries || self.bytes + size > self.bounds.bytes {
            let Some((key, oldest)) = self.entries.pop_lru() else { return };
            self.bytes -= self::size(&key, &oldest);
        }
        self.bytes += size;
        self.entries.put(key, entry);
    }

    fn find(&mut self, key: &Key, present: Moment, now: Instant) -> Option<Found> {
        let entry = self.entries.get(key)?;
        if now >= entry.expires + MAX_STALE {
            self.remove(key);
            return None;
        }
        let age = match now < entry.expires {
            true => Age::Fresh(now.saturating_duration_since(entry.stored)),
            false => Age::Stale,
        };
        Some(Found { kept: entry.kept.clone(), age, is_current: entry.asked == present })
    }

    fn remove(&mut self, key: &Key) {
        if let Some((key, entry)) = self.entries.pop_entry(key) {
            self.bytes -= size(&key, &entry);
        }
    }

    fn retain(&mut self, wanted: impl Fn(&Key) -> bool) {
        let unwanted: Vec<Key> =
            self.entries.iter().map(|(key, _)| key).filter(|key| !wanted(key)).cloned().collect();
        unwanted.iter().for_each(|key| self.remove(key));
    }
}

fn size(key: &Key, entry: &Entry) -> usize {
    key.len() + entry.kept.len() + OVERHEAD
}

#[cfg(test)]
mod tests;
