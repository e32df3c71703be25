//! When resolv.conf is set again after another program has rewritten it, and when that program is left alone. Pure.
//!
//! A program that writes other text each time is followed a few times: it guards the file, and would win in the end. A
//! resolver daemon also writes the same text again for each change of an interface. That is no fight, so it is waited for,
//! longer each time.

use std::time::{Duration, Instant};

use crate::attempts::Attempts;

/// How often the hook is set again within [`WINDOW`] over text that was not known. A network that comes up has the file
/// written two or three times (carrier, lease, a VPN's own servers).
pub(super) const MAX_SET_AGAIN: usize = 4;
/// Shorter than the interval at which DHCP clients renew leases, which is no fight. After this time without a write a
/// program that was left alone is no longer.
pub(crate) const WINDOW: Duration = Duration::from_secs(5 * 60);
/// How long after each time the hook is set again over the known original until it may be again, in seconds.
const DELAYS: [u64; 6] = [0, 1, 5, 30, 60, 120];

/// What to do about a file that another program has written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Advice {
    /// Set the hook again now.
    SetAgain,
    /// Look again after this time.
    Wait(Duration),
    /// From now on it is left alone.
    LeaveAlone,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Pace {
    other: Attempts,
    /// When the hook was set again over the known original.
    same: Vec<Instant>,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self { other: Attempts::new(MAX_SET_AGAIN, WINDOW), same: Vec::new() }
    }

    /// What to do now about text that another program has written; `is_known` if it is the original that we have.
    pub(super) fn advice(&mut self, is_known: bool, now: Instant) -> Advice {
        if !is_known {
            return if self.other.admits(now) { Advice::SetAgain } else { Advice::LeaveAlone };
        }
        self.same.retain(|set| now.saturating_duration_since(*set) < WINDOW);
        let Some(delay) = DELAYS.get(self.same.len()) else { return Advice::LeaveAlone };
        let since = self.same.last().map(|set| now.saturating_duration_since(*set));
        let wait = Duration::from_secs(*delay).saturating_sub(since.unwrap_or(Duration::MAX));
        if !wait.is_zero() {
            return Advice::Wait(wait);
        }
        self.same.push(now);
        Advice::SetAgain
    }

    /// The hook could not be set again after all: no program can have undone it.
    pub(super) fn take_back(&mut self, is_known: bool) {
        if is_known {
            self.same.pop();
        } else {
            self.other.take_back();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_text_is_waited_for_longer_each_time() {
        let start = Instant::now();
        let mut pace = Pace::new();
        let mut set = Vec::new();
        // As a daemon that rewrites it each second.
        let left_alone = (0..400).find(|second| {
            match pace.advice(true, start + Duration::from_secs(*second)) {
                Advice::SetAgain => set.push(*second),
                Advice::Wait(_) => {}
                Advice::LeaveAlone => return true,
            }
            false
        });
        assert_eq!(set, [0, 1, 6, 36, 96, 216]);
        assert_eq!(left_alone, Some(217));
        // Text that is not known has attempts of its own, and earlier ones are forgotten.
        assert_eq!(pace.advice(false, start), Advice::SetAgain);
        assert_eq!(pace.advice(true, start + 2 * WINDOW), Advice::SetAgain);
    }
}
