//! How many bytes may be under way on a link.
//!
//! Bytes that wait in ssh's and the kernel's buffers wait in one queue: a keystroke behind a whole bulk transfer. So
//! each sender limits what it has under way to a window, and schedules what has to wait.
//!
//! The window is what keeps the link busy and little more: the highest recent delivery rate times the shortest round
//! trip, doubled to cover the other end's delay in reporting (BBR's model, with `Delivered` frames as
//! acknowledgements).
//!
//! The shortest round trip has to be measured again now and then, because the path may have become longer. Under a
//! steady load, however, every ping waits behind what this window lets through. Such a sample would enlarge the window,
//! which would lengthen the next round trip, up to the largest window. So a sample older than [`ROUND_TRIP_AGE`] is
//! replaced only by a shorter one, or by that of a packet that was sent with next to nothing under way. If there is no
//! such packet, sending pauses until one can be sent (BBR's `ProbeRTT`, which here ends as soon as that packet is
//! sent). It costs a steady load one round trip in 10 s; a link that is sometimes idle loses nothing.
//!
//! A limit: reports wait in the other end's queue. Under minutes of bulk in both directions the two windows may still
//! enlarge each other.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The smallest window in bytes: a few of the largest packets, so that the link never runs dry.
pub const MIN_WINDOW: u64 = 512 * 1024;
/// The largest window in bytes: 2 Gbit/s over 64 ms.
pub const MAX_WINDOW: u64 = 16 * 1024 * 1024;

/// Rates are measured over at least this time.
const SAMPLE: Duration = Duration::from_millis(20);
/// Number of rate samples that the highest is taken from.
const SAMPLES: usize = 32;
/// How long the shortest round trip is valid (BBR: 10 s).
const ROUND_TRIP_AGE: Duration = Duration::from_secs(10);
/// With at most this much under way, a round trip is the path's own. One of the largest packets.
const DRAINED: u64 = 64 * 1024;

/// The sending window of one direction of one link.
#[derive(Debug)]
pub struct Window {
    sent: u64,
    delivered: u64,
    size: u64,
    sample: Option<(Instant, u64)>,
    rates: VecDeque<f64>,
    round_trip: Option<(Instant, Duration)>,
    /// The position and time of a packet that was sent with next to nothing under way.
    timed: Option<(u64, Instant)>,
    /// Whether sending pauses until a packet can be timed.
    drains: bool,
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
            timed: None,
            drains: false,
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
        self.in_flight() < if self.drains { DRAINED } else { self.size }
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

    /// The highest recent delivery rate in bytes per second, once one was measured.
    pub fn rate(&self) -> Option<f64> {
        self.rates.iter().copied().reduce(f64::max)
    }

    /// The mean of the same samples: single ones are those of bursts.
    pub fn mean_rate(&self) -> Option<f64> {
        let count = self.rates.len();
        (count > 0).then(|| self.rates.iter().sum::<f64>() / count as f64)
    }

    /// The shortest recent round trip.
    pub fn round_trip(&self) -> Option<Duration> {
        self.round_trip.map(|(_, trip)| trip)
    }

    /// `bytes` more are under way.
    pub fn sent(&mut self, bytes: u64, now: Instant) {
        if self.in_flight() == 0 {
            // The link was idle. Time without data says nothing about its rate.
            self.sample = Some((now, self.delivered));
        }
        let is_drained = self.in_flight() < DRAINED;
        self.sent += bytes;
        if is_drained && self.timed.is_none() {
            self.timed = Some((self.sent, now));
            // What follows is queued behind it and can't delay it.
            self.drains = false;
        }
    }

    /// The other side has received `total` bytes since the link began. The total is clamped: it never decreases,
    /// and never exceeds what was sent.
    pub fn delivered(&mut self, total: u64, now: Instant) {
        self.delivered = total.clamp(self.delivered, self.sent);
        if let Some((end, sent)) = self.timed
            && self.delivered >= end
        {
            self.timed = None;
            self.unloaded(now.saturating_duration_since(sent), now);
        }
        self.drains = self.timed.is_none() && self.is_old(now);
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

    /// A ping came back after `trip`. It may have waited behind our own data, so only the first one and shorter
    /// ones count.
    pub fn measured(&mut self, trip: Duration, now: Instant) {
        if self.round_trip.is_none_or(|(_, shortest)| trip <= shortest) {
            self.round_trip = Some((now, trip));
            self.resize();
        }
    }

    /// A packet and its report took `trip`, without waiting behind our own data.
    fn unloaded(&mut self, trip: Duration, now: Instant) {
        if self.is_old(now) {
            self.round_trip = None;
        }
        self.measured(trip, now);
    }

    fn is_old(&self, now: Instant) -> bool {
        self.round_trip.is_some_and(|(at, _)| now.saturating_duration_since(at) >= ROUND_TRIP_AGE)
    }

    fn resize(&mut self) {
        // A round trip alone says nothing about the rate.
        let Some(rate) = self.rate() else { return };
        let trip = self.round_trip().unwrap_or(Duration::ZERO);
        let needed = 2.0 * rate * trip.as_secs_f64();
        self.size = (needed as u64).saturating_add(MIN_WINDOW).clamp(MIN_WINDOW, MAX_WINDOW);
    }
}

#[cfg(test)]
mod tests;
