//! How earlier turns went, by what they were for. Bounded: what was recorded longest ago is forgotten.

use std::collections::HashMap;
use std::mem;
use std::time::Duration;

use tokio::time::Instant;

use super::types::Outcome;

/// Keys that are remembered, in each of two generations.
const MAX_RECORDS: usize = 2048;

/// How long it counts that a turn served.
pub(super) const LATELY: Duration = Duration::from_secs(300);

/// The latest turns for one key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record {
    /// The last one's end.
    pub(super) at: Instant,
    /// Turns in vain since one was answered.
    pub(super) in_vain: u32,
    /// The end of the last one that was answered.
    pub(super) answered: Option<Instant>,
    /// The end of the last one that served.
    served: Option<Instant>,
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

    pub(super) fn add(&mut self, key: u64, outcome: Outcome, now: Instant) {
        let none = Record { at: now, in_vain: 0, answered: None, served: None };
        let before = self.find(key).unwrap_or(none);
        let record = match outcome {
            Outcome::Served => Record { answered: Some(now), served: Some(now), ..none },
            Outcome::Answered => Record { answered: Some(now), served: before.served, ..none },
            Outcome::InVain => Record { at: now, in_vain: before.in_vain.saturating_add(1), ..before },
        };
        if self.latest.len() >= MAX_RECORDS && !self.latest.contains_key(&key) {
            self.earlier = mem::take(&mut self.latest);
        }
        self.latest.insert(key, record);
    }

    /// Whether a turn served not long ago, and none since was in vain.
    pub(super) fn was_served(&self, key: u64, now: Instant) -> bool {
        let served = self.find(key).filter(|record| record.in_vain == 0).and_then(|record| record.served);
        served.is_some_and(|served| now.saturating_duration_since(served) < LATELY)
    }
}
