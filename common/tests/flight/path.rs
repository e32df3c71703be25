//! The slowest hop: a rate, a queue that drops what does not fit, a delay with jitter that keeps the order, losses.

use crate::rng::Rng;
use crate::tcp::Time;

#[derive(Debug)]
pub(crate) struct Path {
    /// Bytes per second.
    pub(crate) rate: f64,
    /// One way.
    pub(crate) delay: Time,
    /// Most of what is added to it.
    pub(crate) jitter: Time,
    /// The probability that a packet is lost.
    pub(crate) loss: f64,
    /// Most bytes that wait.
    pub(crate) queue: f64,
    free: Time,
    latest: Time,
    rng: Rng,
}

impl Path {
    pub(crate) fn new(rate: f64, delay: Time, seed: u64) -> Self {
        let queue = (rate * 4.0 * delay as f64 / 1e9).max(256.0 * 1024.0);
        Self { rate, delay, jitter: 0, loss: 0.0, queue, free: 0, latest: 0, rng: Rng::new(seed) }
    }

    /// How long a packet waits now.
    pub(crate) fn wait(&self, now: Time) -> Time {
        self.free.saturating_sub(now)
    }

    /// When a packet arrives, if it does.
    pub(crate) fn carry(&mut self, len: u64, now: Time) -> Option<Time> {
        let time = |bytes: f64| (bytes / self.rate * 1e9) as Time;
        if self.wait(now) > time(self.queue) {
            return None;
        }
        self.free = self.free.max(now) + time(len as f64);
        if self.rng.chance(self.loss) {
            return None;
        }
        self.latest = self.latest.max(self.free + self.delay + self.rng.below(self.jitter));
        Some(self.latest)
    }
}
