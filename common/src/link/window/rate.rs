//! The rate of the link: the highest of some round trips, so that a stall is not taken for a slow link.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::round::Round;

/// Rates count for this time, and for this many round trips: a stall of TCP below takes one or two.
const MEMORY: Duration = Duration::from_millis(400);
const MEMORY_TRIPS: u32 = 4;

/// A round is slow if its rate is less than this part of the known one, and all that arrived had waited.
const SLOWER: f64 = 0.75;

/// See the [module's documentation](self). In bytes per second.
#[derive(Debug, Default)]
pub(super) struct Rate {
    samples: VecDeque<(Instant, f64)>,
    /// Whether the latest round was a slow one.
    slower: bool,
}

impl Rate {
    pub(super) fn highest(&self) -> Option<f64> {
        self.samples.front().map(|(_, rate)| *rate)
    }

    /// The link has carried this `rate`.
    pub(super) fn raise(&mut self, rate: f64, now: Instant) {
        if self.highest().is_none_or(|highest| highest < rate) {
            self.samples.clear();
            self.samples.push_back((now, rate));
        }
    }

    /// A `round` has ended on a link with this round `trip`. Whether all that arrived `waited` longer than a full window
    /// explains.
    pub(super) fn measured(&mut self, round: &Round, waited: bool, trip: Duration, now: Instant) {
        let (rate, highest) = (round.rate, self.highest().unwrap_or_default());
        // Less than the link can do was asked of it.
        if rate <= highest && !round.limited && !waited {
            return;
        }
        let slower = waited && rate < highest * SLOWER;
        if std::mem::replace(&mut self.slower, slower) && slower {
            *self = Self::default();
        }
        let memory = MEMORY.max(trip.saturating_mul(MEMORY_TRIPS));
        while self.samples.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) > memory) {
            self.samples.pop_front();
        }
        // A lower rate before a higher one never counts again.
        while self.samples.back().is_some_and(|(_, before)| *before <= rate) {
            self.samples.pop_back();
        }
        self.samples.push_back((now, rate));
    }
}
