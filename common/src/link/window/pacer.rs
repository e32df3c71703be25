//! Spreads packets over time, a little faster than the link delivers.
//!
//! A token bucket. The window alone would send all of it at once when a stall ends, or when a flow begins.

use std::time::{Duration, Instant};

/// The pace in rates: what the window has to limit, not the pacer, unless there is a burst.
const GAIN: f64 = 1.25;
/// How much may be sent at once, in time: timers are a millisecond or two late.
const BURST: Duration = Duration::from_millis(3);
/// The slowest pace in bytes per second. An estimate below it is of a stall, and the window is small then.
const SLOWEST: f64 = 32.0 * 1024.0;

/// See the [module's documentation](self).
#[derive(Debug, Default)]
pub(super) struct Pacer {
    pace: Option<Pace>,
}

#[derive(Debug, Clone, Copy)]
struct Pace {
    /// In bytes per second.
    rate: f64,
    /// Bytes that may be sent at the time `at`. Negative after a packet that was larger.
    credit: f64,
    at: Instant,
}

impl Pace {
    fn credit(&self, now: Instant) -> f64 {
        let more = self.rate * now.saturating_duration_since(self.at).as_secs_f64();
        (self.credit + more).min(self.rate * BURST.as_secs_f64())
    }

    fn advance(&mut self, now: Instant) {
        self.credit = self.credit(now);
        self.at = now;
    }
}

impl Pacer {
    /// Paces by the link's `rate`, or not at all.
    pub(super) fn set_rate(&mut self, rate: Option<f64>, now: Instant) {
        let Some(rate) = rate.map(|rate| (rate * GAIN).max(SLOWEST)) else {
            self.pace = None;
            return;
        };
        match &mut self.pace {
            Some(pace) => {
                pace.advance(now);
                pace.rate = rate;
            }
            None => self.pace = Some(Pace { rate, credit: 0.0, at: now }),
        }
    }

    pub(super) fn is_open(&self, now: Instant) -> bool {
        self.pace.is_none_or(|pace| pace.credit(now) >= 0.0)
    }

    /// When it opens. Late for one that is open.
    pub(super) fn opens_at(&self) -> Option<Instant> {
        let pace = self.pace.filter(|pace| pace.credit < 0.0)?;
        let wait = (-pace.credit / pace.rate).min(1.0);
        Some(pace.at + Duration::from_secs_f64(wait) + Duration::from_micros(1))
    }

    pub(super) fn sent(&mut self, bytes: u64, now: Instant) {
        if let Some(pace) = &mut self.pace {
            pace.advance(now);
            pace.credit -= bytes as f64;
        }
    }
}
