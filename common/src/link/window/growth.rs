//! The search for more than the link is known to carry.
//!
//! A full window makes a small queue. If there is none, the link carries all of the window, and may carry more. On a link
//! with jitter that does not show, so from time to time a larger window is tried (BBR's `ProbeBW`): either the rate
//! rises, or the queue. Both are asked again in each round, so a wrong answer does no harm for long.

use std::time::Duration;

use super::round::Round;

/// By how much the window grows beyond the pipe at first; with each further step twice that, up to a whole pipe.
const FIRST: f64 = 0.125;
/// The step at which it is a whole pipe.
const FASTEST: u8 = 4;
/// The step that is tried, and after how many rounds.
const TRIED: u8 = 2;
const PAUSE: u8 = 8;
/// What is sent by a larger window arrives in the second round after it.
const LAG: u8 = 2;

/// See the [module's documentation](self).
#[derive(Debug)]
pub(super) struct Growth {
    step: u8,
    /// Rounds in this step.
    rounds: u8,
    /// The rate before it.
    before: f64,
}

impl Default for Growth {
    /// Of a link of which nothing is known.
    fn default() -> Self {
        Self { step: FASTEST, rounds: 0, before: 0.0 }
    }
}

impl Growth {
    /// Whether the search is fast.
    pub(super) fn is_fast(&self) -> bool {
        self.step >= FASTEST
    }

    /// The window in pipes, if more is to be found.
    pub(super) fn gain(&self) -> f64 {
        self.step.checked_sub(1).map_or(1.0, |doubled| 1.0 + FIRST * f64::from(1 << doubled))
    }

    /// A `round` has ended; a shorter queue than `least` is none, and one longer than `longest` is more than jitter.
    pub(super) fn seen(&mut self, round: &Round, least: Duration, longest: Duration, highest: f64) {
        if !round.limited {
            return;
        }
        self.rounds = self.rounds.saturating_add(1);
        let rose = self.step > 0 && round.rate > self.before * (1.0 + self.gain()) / 2.0;
        let step = if round.queue <= least || (rose && round.queue <= longest) {
            (self.step + 1).min(FASTEST)
        } else if self.step > 0 && (self.rounds >= LAG || round.queue > longest) {
            0
        } else if self.step == 0 && self.rounds >= PAUSE {
            TRIED
        } else {
            return;
        };
        *self = Self { step, rounds: 0, before: highest };
    }
}
