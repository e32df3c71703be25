//! A model of the link between codespace and laptop, one direction each.
//!
//! The real link is a reliable, ordered pipe that may be cut. Loss, reordering and duplication model the codespace's own
//! queues and the networks behind it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use bytes::Bytes;

use super::rng::Rng;

/// What a direction of the link does to packets.
#[derive(Debug, Clone, Copy)]
pub struct Profile {
    /// The time from one end to the other.
    pub delay: Duration,
    /// Up to this is added at random, so that packets overtake each other.
    pub jitter: Duration,
    /// Bytes per second; `None` is without limit.
    pub rate: Option<u64>,
    /// Packets per thousand that are lost after the link.
    pub loss: u64,
    /// Packets per thousand that arrive twice.
    pub duplication: u64,
}

impl Profile {
    /// A pipe that neither loses nor reorders.
    pub fn pipe(delay: Duration, rate: Option<u64>) -> Self {
        Self { delay, jitter: Duration::ZERO, rate, loss: 0, duplication: 0 }
    }
}

/// What happens to a packet at the far end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// It arrives.
    Arrives,
    /// It crosses the link and is lost after it.
    Lost,
    /// It is the second copy of a packet that arrives, made after the link.
    Copy,
}

/// One direction of the link.
#[derive(Debug)]
pub struct Direction {
    profile: Profile,
    /// When the last byte written has left.
    busy: Duration,
    flying: BinaryHeap<Reverse<(Duration, u64, Fate, Bytes)>>,
    count: u64,
}

/// Bytes that ssh and the kernel buffer before a writer blocks.
const BUFFER: u64 = 4 * 1024 * 1024;

impl Direction {
    /// An idle direction.
    pub fn new(profile: Profile) -> Self {
        Self { profile, busy: Duration::ZERO, flying: BinaryHeap::new(), count: 0 }
    }

    /// Whether a write would not block.
    pub fn is_writable(&self, now: Duration) -> bool {
        let waiting = self.busy.saturating_sub(now).as_micros() as u64;
        self.profile.rate.is_none_or(|rate| waiting * rate / 1_000_000 < BUFFER)
    }

    /// A packet is written.
    pub fn send(&mut self, packet: Bytes, now: Duration, rng: &mut Rng) {
        let Profile { delay, jitter, rate, loss, duplication } = self.profile;
        let took = rate.map_or(0, |rate| packet.len() as u64 * 1_000_000 / rate);
        self.busy = self.busy.max(now) + Duration::from_micros(took);
        let fate = if rng.chance(loss) { Fate::Lost } else { Fate::Arrives };
        let at = self.busy + delay;
        if rng.chance(duplication) {
            self.fly(at + rng.time(jitter), Fate::Copy, packet.clone());
        }
        self.fly(at + rng.time(jitter), fate, packet);
    }

    fn fly(&mut self, at: Duration, fate: Fate, packet: Bytes) {
        self.count += 1;
        self.flying.push(Reverse((at, self.count, fate, packet)));
    }

    /// The next packet that has reached the far end.
    pub fn receive(&mut self, now: Duration) -> Option<(Fate, Bytes)> {
        if self.next()? > now {
            return None;
        }
        self.flying.pop().map(|Reverse((_, _, fate, packet))| (fate, packet))
    }

    /// When the next packet arrives.
    pub fn next(&self) -> Option<Duration> {
        self.flying.peek().map(|Reverse((at, ..))| *at)
    }

    /// Loses everything in flight but a few packets, which arrive: the link may break at any byte.
    pub fn cut(&mut self, now: Duration, rng: &mut Rng) -> Vec<Bytes> {
        let mut flying = std::mem::take(&mut self.flying).into_sorted_vec();
        // Sorted for `Reverse`: the first to arrive is the last.
        flying.reverse();
        flying.truncate(rng.below(flying.len() as u64 + 1) as usize);
        self.busy = now;
        let arrives = |Reverse((_, _, fate, packet))| (fate != Fate::Lost).then_some(packet);
        flying.into_iter().filter_map(arrives).collect()
    }
}
