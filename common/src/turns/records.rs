//! How earlier turns went, by what they were for. Bounded: what was recorded longest ago is forgotten.

use std::collections::HashMap;
use std::mem;
use std::time::Duration;

use tokio::time::Instant;

/// Keys that are remembered, in each of two generations.
const MAX_RECORDS: usize = 2048;

/// How long it counts that a turn served.
const LATELY: Duration = Duration::from_secs(300);

/// The latest turns for one key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record {
    /// The last one's end.
    pub(super) at: Instant,
    /// Turns in vain since one served.
    pub(super) in_vain: u32,
    /// The end of the last one that served.
    pub(super) served: Option<Instant>,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Records {
    latest: HashMap<u64, Record>,
    earlier: HashMap<u64, Record>,
}

impl Records {
    pub(super) fn find(&self, key: u64) -> Option<Record> {
        self.latest.get(&key).or_else(|| self.earlier.get(&key)).copied()
    }

    pub(super) fn add(&mut self, key: u64, served: bool, now: Instant) {
        let before = self.find(key);
        let record = match served {
            true => Record { at: now, in_vain: 0, served: Some(now) },
            false => Record {
                at: now,
                in_vain: before.map_or(0, |record| record.in_vain).saturating_add(1),
                served: before.and_then(|record| record.served),
            },
        };
        if self.latest.len() >= MAX_RECORDS && !self.latest.contains_key(&key) {
            self.earlier = mem::take(&mut self.latest);
        }
        self.latest.insert(key, record);
    }

    pub(super) fn remove(&mut self, key: u64) {
        self.latest.remove(&key);
        self.earlier.remove(&key);
    }

    /// Whether the last turn served, and not long ago.
    pub(super) fn was_served(&self, key: u64, now: Instant) -> bool {
        let record = self.find(key).filter(|record| record.in_vain == 0);
        record.is_some_and(|record| now.saturating_duration_since(record.at) < LATELY)
    }
}
