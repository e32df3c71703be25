//! A bounded number of attempts within a time: for what another program may undo as often as we do it. Pure.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Attempts {
    most: usize,
    within: Duration,
    latest: VecDeque<Instant>,
}

impl Attempts {
    /// Admits at most `most` attempts `within` this time.
    pub(crate) fn new(most: usize, within: Duration) -> Self {
        Self { most, within, latest: VecDeque::new() }
    }

    /// Whether one more attempt is admitted, which is then counted.
    pub(crate) fn admits(&mut self, now: Instant) -> bool {
        self.latest.retain(|attempt| now.saturating_duration_since(*attempt) < self.within);
        let admitted = self.latest.len() < self.most;
        if admitted {
            self.latest.push_back(now);
        }
        admitted
    }

    /// Does not count the latest attempt: it had no effect that another program could undo.
    pub(crate) fn take_back(&mut self) {
        self.latest.pop_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_are_admitted_again_when_earlier_ones_are_old() {
        let mut attempts = Attempts::new(2, Duration::from_secs(60));
        let start = Instant::now();
        let mut admitted = |seconds| attempts.admits(start + Duration::from_secs(seconds));
        assert_eq!([0, 30, 59].map(&mut admitted), [true, true, false]);
        assert_eq!([60, 61, 90, 91].map(&mut admitted), [true, false, true, false]);
        attempts.take_back();
        assert!(attempts.admits(start + Duration::from_secs(91)));
    }
}
