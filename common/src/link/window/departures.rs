//! When what is under way was sent.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Packets sent within this time, and within [`PARTS`] of the window, are one departure: so there are few of them.
const TOGETHER: Duration = Duration::from_millis(1);
const PARTS: u64 = 64;

/// Bytes that were sent at about the same time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Departure {
    /// The count of sent bytes behind it.
    pub(super) end: u64,
    /// When the last of them was sent.
    pub(super) at: Instant,
    first: Instant,
    start: u64,
}

/// What is under way, in order.
#[derive(Debug, Default)]
pub(super) struct Departures(VecDeque<Departure>);

impl Departures {
    /// The bytes before `end` are sent, with a window of `size`.
    pub(super) fn add(&mut self, end: u64, size: u64, now: Instant) {
        if let Some(last) = self.0.back_mut()
            && end - last.start <= size / PARTS
            && now.saturating_duration_since(last.first) < TOGETHER
        {
            (last.end, last.at) = (end, now);
            return;
        }
        let start = self.0.back().map_or(end, |last| last.end);
        self.0.push_back(Departure { end, at: now, first: now, start });
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The first `total` bytes have arrived. Returns the last departure that has arrived now as a whole.
    pub(super) fn arrived(&mut self, total: u64) -> Option<Departure> {
        let mut last = None;
        while let Some(first) = self.0.front().filter(|departure| departure.end <= total) {
            last = Some(*first);
            self.0.pop_front();
        }
        last
    }
}
