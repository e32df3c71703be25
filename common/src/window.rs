//! How many bytes may be under way on a link.
//!
//! ssh, the pipes around it and the kernel's socket buffers hold megabytes. Bytes that wait there wait in one
//! line: a keystroke behind a whole bulk transfer. So each sender keeps the bytes it has under way within a
//! window, and what must wait waits with the sender, where it can be scheduled.
//!
//! The window is what the link needs to stay busy and not much more: the highest delivery rate seen of late
//! times the shortest round trip, doubled for the far side's delay in reporting (the model of BBR, with
//! `Delivered` frames for acknowledgements). Pure: the clock is a parameter.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The smallest window in bytes: a few of the largest packets, so that no link starves.
pub const MIN_WINDOW: u64 = 512 * 1024;
/// The largest window in bytes: 2 Gbit/s over 64 ms.
pub const MAX_WINDOW: u64 = 16 * 1024 * 1024;

/// Rates are measured over at least this time.
const SAMPLE: Duration = Duration::from_millis(20);
/// How many samples the highest rate is taken from.
const SAMPLES: usize = 32;
/// How long a shortest round trip counts (BBR: 10 s).
const ROUND_TRIP_AGE: Duration = Duration::from_secs(10);

/// The sending window of one direction of one link.
#[derive(Debug)]
pub struct Window {
    sent: u64,
    delivered: u64,
    size: u64,
    sample: Option<(Instant, u64)>,
    rates: VecDeque<f64>,
    round_trip: Option<(Instant, Duration)>,
}

impl Default for Window {
    fn default() -> Self {
        Self {
            sent: 0,
            delivered: 0,
            size: MIN_WINDOW * 2,
            sample: None,
            rates: VecDeque::new(),
            round_trip: None,
        }
    }
}

impl Window {
    /// Bytes sent on this link that the other side has not yet reported as delivered.
    pub fn in_flight(&self) -> u64 {
        self.sent - self.delivered
    }

    /// Whether another packet may be sent.
    pub fn is_open(&self) -> bool {
        self.in_flight() < self.size
    }

    /// The window's size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes sent on this link so far.
    pub fn total_sent(&self) -> u64 {
        self.sent
    }

    /// Whether the first `total` bytes sent on this link are reported as delivered.
    pub fn has_delivered(&self, total: u64) -> bool {
        self.delivered >= total
    }

    /// The shortest round trip seen of late.
    pub fn round_trip(&self) -> Option<Duration> {
        self.round_trip.map(|(_, trip)| trip)
    }

    /// `bytes` more are under way.
    pub fn sent(&mut self, bytes: u64, now: Instant) {
        if self.in_flight() == 0 {
            // The link was idle: time that passed without data says nothing about its rate.
            self.sample = Some((now, self.delivered));
        }
        self.sent += bytes;
    }

    /// The other side has taken `total` bytes since the link began. A count that goes back or says more than
    /// was sent is not believed.
    pub fn delivered(&mut self, total: u64, now: Instant) {
        self.delivered = total.clamp(self.delivered, self.sent);
        let (since, before) = *self.sample.get_or_insert((now, self.delivered));
        let elapsed = now.saturating_duration_since(since);
        if elapsed < SAMPLE {
            return;
        }
        if self.rates.len() == SAMPLES {
            self.rates.pop_front();
        }
        self.rates.push_back((self.delivered - before) as f64 / elapsed.as_secs_f64());
        self.sample = Some((now, self.delivered));
        self.resize();
    }

    /// A ping came back after `trip`.
    pub fn measured(&mut self, trip: Duration, now: Instant) {
        let keep = |(at, old): &(Instant, Duration)| {
            *old < trip && now.saturating_duration_since(*at) < ROUND_TRIP_AGE
        };
        self.round_trip = Some(self.round_trip.filter(keep).unwrap_or((now, trip)));
        self.resize();
    }

    fn resize(&mut self) {
        let rate = self.rates.iter().copied().fold(0.0, f64::max);
        let trip = self.round_trip().unwrap_or(Duration::ZERO);
        let needed = 2.0 * rate * trip.as_secs_f64();
        self.size = (needed as u64).saturating_add(MIN_WINDOW).clamp(MIN_WINDOW, MAX_WINDOW);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_closes_when_nothing_is_delivered() {
        let now = Instant::now();
        let mut window = Window::default();
        while window.is_open() {
            window.sent(65_536, now);
        }
        assert!(window.in_flight() <= MIN_WINDOW * 2 + 65_536);
        window.delivered(window.sent, now);
        assert!(window.is_open());
        assert_eq!(window.in_flight(), 0);
    }

    #[test]
    fn a_lying_count_neither_wraps_nor_goes_back() {
        let now = Instant::now();
        let mut window = Window::default();
        window.sent(1000, now);
        window.delivered(u64::MAX, now);
        assert_eq!(window.in_flight(), 0);
        window.delivered(0, now);
        assert_eq!(window.in_flight(), 0);
    }

    #[test]
    fn a_long_fat_link_gets_a_window_of_its_bandwidth_delay_product() {
        let mut now = Instant::now();
        let mut window = Window::default();
        window.measured(Duration::from_millis(50), now);
        // 100 MB/s, with half a second's worth always under way.
        window.sent(50_000_000, now);
        for _ in 0..100 {
            window.sent(1_000_000, now);
            now += Duration::from_millis(10);
            window.delivered(window.delivered + 1_000_000, now);
        }
        let product = 5_000_000;
        assert!(window.size() >= 2 * product && window.size() <= 3 * product, "{}", window.size());
    }
}
