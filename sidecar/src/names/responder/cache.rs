//! The laptop's answers, for the time when the laptop can't be asked. Pure.
//!
//! While the link is up, every question goes to the laptop, so that answers follow its networks at once; the cache is
//! only written. It belongs to one session, as the responder does.
//!
//! The codespace's programs choose what is asked, so entries and bytes are bounded; the least recently used entry makes
//! room. Negative answers have room of their own: the search list turns each name into several that do not exist, and
//! these must not evict the answers that are worth something.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use super::kept::{Age, Kept, Key};

/// Maximum number of positive answers: several times the names that a company's developer uses.
const POSITIVE: Bounds = Bounds { entries: 2048, bytes: 1024 * 1024 };
/// Maximum number of negative answers.
const NEGATIVE: Bounds = Bounds { entries: 1024, bytes: 256 * 1024 };

/// What an entry costs beside its bytes: its places in both maps.
const OVERHEAD: usize = 256;

/// How long an answer may be used after its TTL. RFC 8767 section 6 finds that less than a day covers the vast majority
/// of outages; a session without a link lasts no longer than a day either.
const MAX_STALE: Duration = Duration::from_secs(24 * 60 * 60);

#[derive(Debug, Clone, Copy)]
struct Bounds {
    entries: usize,
    bytes: usize,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Cache {
    positive: Store,
    negative: Store,
    changes: u64,
}

impl Default for Cache {
    fn default() -> Self {
        Self { positive: Store::new(POSITIVE), negative: Store::new(NEGATIVE), changes: 0 }
    }
}

impl Cache {
    /// How often the laptop's domains have changed.
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    /// Keeps an answer, in place of an earlier one. `changes` is how often the laptop's domains had changed when it was
    /// asked for: an answer that they have overtaken is not kept.
    pub(super) fn keep(&mut self, key: Key, kept: Kept, changes: u64, now: Instant) {
        if changes != self.changes {
            return;
        }
        let (store, other) = match kept.is_negative() {
            true => (&mut self.negative, &mut self.positive),
            false => (&mut self.positive, &mut self.negative),
        };
        other.remove(&key);
        store.insert(key, kept, now);
    }

    /// The answer to questions with this key, if there is one that may still be used.
    pub(super) fn find(&mut self, key: &Key, now: Instant) -> Option<(Kept, Age)> {
        [&mut self.positive, &mut self.negative].into_iter().find_map(|store| store.find(key, now))
    }

    /// The laptop's domains changed. What was kept of a name is dropped unless it is `unaffected`: it must neither
    /// outlive the time when the name belonged to the laptop, nor stand for the new owner's answer. Nothing else counts
    /// as fresh any more, because the change of networks behind it may have changed any answer.
    pub(super) fn domains_changed(&mut self, unaffected: impl Fn(&[u8]) -> bool, now: Instant) {
        self.changes += 1;
        for store in [&mut self.positive, &mut self.negative] {
            store.retain(|key| unaffected(key.name()));
            for entry in store.entries.values_mut() {
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
    /// Its key in [`Store::by_use`].
    used: u64,
}

/// Entries within bounds.
#[derive(Debug)]
struct Store {
    bounds: Bounds,
    entries: HashMap<Key, Entry>,
    /// The least recently used first.
    by_use: BTreeMap<u64, Key>,
    bytes: usize,
    next: u64,
}

impl Store {
    fn new(bounds: Bounds) -> Self {
        Self { bounds, entries: HashMap::new(), by_use: BTreeMap::new(), bytes: 0, next: 0 }
    }

    fn insert(&mut self, key: Key, kept: Kept, now: Instant) {
        self.remove(&key);
        let size = size(&key, &kept);
        while self.entries.len() >= self.bounds.entries || self.bytes + size > self.bounds.bytes {
            let oldest = self.by_use.first_key_value().map(|(_, key)| key.clone());
            let Some(oldest) = oldest else { return };
            self.remove(&oldest);
        }
        self.bytes += size;
        self.by_use.insert(self.next, key.clone());
        let expires = now + kept.ttl();
        self.entries.insert(key, Entry { kept, stored: now, expires, used: self.next });
        self.next += 1;
    }

    fn find(&mut self, key: &Key, now: Instant) -> Option<(Kept, Age)> {
        let entry = self.entries.get_mut(key)?;
        if now >= entry.expires + MAX_STALE {
            self.remove(key);
            return None;
        }
        if let Some(key) = self.by_use.remove(&entry.used) {
            self.by_use.insert(self.next, key);
            entry.used = self.next;
            self.next += 1;
        }
        let age = match now < entry.expires {
            true => Age::Fresh(now.saturating_duration_since(entry.stored)),
            false => Age::Stale,
        };
        Some((entry.kept.clone(), age))
    }

    fn remove(&mut self, key: &Key) {
        if let Some(entry) = self.entries.remove(key) {
            self.by_use.remove(&entry.used);
            self.bytes -= size(key, &entry.kept);
        }
    }

    fn retain(&mut self, wanted: impl Fn(&Key) -> bool) {
        let unwanted: Vec<Key> = self.entries.keys().filter(|key| !wanted(key)).cloned().collect();
        unwanted.iter().for_each(|key| self.remove(key));
    }
}

fn size(key: &Key, kept: &Kept) -> usize {
    // The key is in both maps.
    2 * key.len() + kept.len() + OVERHEAD
}

#[cfg(test)]
mod tests;
