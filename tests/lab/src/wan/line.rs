//! One direction of a distant line: what happens to each packet, and when. Pure; the clock is a parameter.
//!
//! A packet waits in a drop-tail queue for its turn, occupies the line for its length at the line's rate, may be lost
//! there, and arrives after the delay and a jitter. The order of packets stays. The times are computed and not observed:
//! if the caller asks late, what it gets next is not later for that. So a busy machine delays packets, but does not
//! change the rate.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The jitter changes so often. One that changes with each packet would delay almost all of a dense stream by its maximum,
/// because a packet does not overtake those before it.
const JITTER_SPAN: Duration = Duration::from_millis(10);

/// The properties of one direction of a line. By default it changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Shape {
    /// Bits per second, of whole IP packets; `None` is unlimited.
    pub rate: Option<u64>,
    /// The time from one end to the other, without the wait in the queue.
    pub delay: Duration,
    /// The bytes that may wait for the line, the packet on it included; `None` is unlimited. A single packet always fits.
    pub queue: Option<usize>,
    /// The probability that a packet is lost, from 0 to 1.
    pub loss: f64,
    /// Most that is added to the delay.
    pub jitter: Duration,
}

/// What has happened to the packets of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Bytes of packets that arrived.
    pub bytes: u64,
    /// Packets that arrived.
    pub packets: u64,
    /// Packets that the queue had no room for.
    pub overflowed: u64,
    /// Packets lost on the line.
    pub lost: u64,
}

/// The packets under way.
#[derive(Debug)]
pub(super) struct Line<P> {
    shape: Shape,
    /// In order; the first one is on the line.
    queue: VecDeque<P>,
    queued_bytes: usize,
    /// When the first packet of the queue has left it.
    leaves: Instant,
    /// Packets that have left, and when they arrive. In order.
    flight: VecDeque<(Instant, P)>,
    /// The present jitter, and until when.
    jitter: (Duration, Instant),
    random: Random,
    counts: Counts,
}

impl<P: AsRef<[u8]>> Line<P> {
    /// `seed` decides about loss and jitter.
    pub(super) fn new(now: Instant, shape: Shape, seed: u64) -> Self {
        Self {
            shape,
            queue: VecDeque::new(),
            queued_bytes: 0,
            leaves: now,
            flight: VecDeque::new(),
            jitter: (Duration::ZERO, now),
            random: Random(seed),
            counts: Counts::default(),
        }
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    /// Changes the line. What has left the queue arrives as before; what is in it leaves at the new rate.
    pub(super) fn set(&mut self, now: Instant, shape: Shape) {
        self.advance(now);
        if let Some(first) = self.queue.front() {
            let len = first.as_ref().len();
            let left = self.leaves.saturating_duration_since(now).as_secs_f64();
            let whole = occupation(self.shape.rate, len).as_secs_f64();
            self.leaves = now + occupation(shape.rate, len).mul_f64(left / whole);
        }
        self.shape = shape;
        self.jitter.1 = now;
        self.advance(now);
    }

    /// A packet arrives at the queue. Times of successive calls do not decrease.
    pub(super) fn offer(&mut self, now: Instant, packet: P) {
        self.advance(now);
        let len = packet.as_ref().len();
        if self.shape.queue.is_some_and(|queue| self.queued_bytes + len > queue) && !self.queue.is_empty() {
            self.counts.overflowed += 1;
            return;
        }
        if self.queue.is_empty() {
            self.leaves = now + occupation(self.shape.rate, len);
        }
        self.queued_bytes += len;
        self.queue.push_back(packet);
        self.advance(now);
    }

    /// The next packet that has arrived at the other end by `now`.
    pub(super) fn take(&mut self, now: Instant) -> Option<P> {
        self.advance(now);
        let (_, packet) = self.flight.pop_front_if(|(arrives, _)| *arrives <= now)?;
        self.counts.packets += 1;
        self.counts.bytes += packet.as_ref().len() as u64;
        Some(packet)
    }

    /// When [`Self::take`] may have something next, if nothing else happens.
    pub(super) fn next(&self) -> Option<Instant> {
        let first = self.flight.front().map(|(arrives, _)| *arrives);
        first.or_else(|| self.queue.front().map(|_| self.leaves + self.shape.delay))
    }

    /// Moves what has left the queue by `now` on its way.
    fn advance(&mut self, now: Instant) {
        while self.leaves <= now {
            let Some(packet) = self.queue.pop_front() else { return };
            self.queued_bytes -= packet.as_ref().len();
            let left = self.leaves;
            if let Some(next) = self.queue.front() {
                self.leaves = left + occupation(self.shape.rate, next.as_ref().len());
            }
            if self.random.below_one() < self.shape.loss {
                self.counts.lost += 1;
                continue;
            }
            let arrives = left + self.shape.delay + self.jitter_at(left);
            let last = self.flight.back().map_or(arrives, |(last, _)| *last);
            self.flight.push_back((arrives.max(last), packet));
        }
    }

    fn jitter_at(&mut self, time: Instant) -> Duration {
        if self.jitter.1 <= time {
            self.jitter = (self.shape.jitter.mul_f64(self.random.below_one()), time + JITTER_SPAN);
        }
        self.jitter.0
    }
}

/// How long a packet occupies a line.
fn occupation(rate: Option<u64>, len: usize) -> Duration {
    rate.map_or(Duration::ZERO, |rate| Duration::from_nanos(len as u64 * 8_000_000_000 / rate.max(1)))
}

/// SplitMix64 (Steele et al., 2014): short, and good enough to decide about packets.
#[derive(Debug)]
struct Random(u64);

impl Random {
    /// A number from 0 to less than 1.
    fn below_one(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        // The highest 53 bits are exact in an f64.
        (mixed >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests;
