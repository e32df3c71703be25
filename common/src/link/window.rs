//! How many bytes may be under way on a link.
//!
//! Bytes that wait in ssh's and the kernel's buffers wait in one queue: a keystroke behind a whole bulk transfer. So
//! each sender limits what it has under way, and schedules what has to wait.
//!
//! # Theory of operation
//!
//! The model is BBR's (draft-ietf-ccwg-bbr), with `Delivered` frames as acknowledgments. A pipe is full, and nothing
//! waits in it, when `rate × round trip` is under way. So both are measured, and the window is that product and a little
//! more ([`SLACK`]), in time, because a surplus of bytes is a queue of another length on each link.
//!
//! - **One way.** A report says when the other end received, by its clock. So the [rate] is that of arrivals, and
//!   the [delay] that of one direction: reports that come late because the other direction is busy change neither.
//! - **Growth.** A full window makes a queue of the length of the surplus. As long as there is none, [the window
//!   grows](growth), up to twice the pipe: so a link starts, and so it follows one that becomes faster. Then the rate of
//!   the latest round trip counts at each report, so that the window doubles in a round trip, as TCP's below does.
//! - **Stalls.** TCP below answers a loss with a stall and then with a burst of deliveries. The highest rate of some
//!   round trips counts, and neither the rate at which a burst arrives nor a single slow round. When reports stop, what
//!   is under way is let grow for a round trip. Two slow rounds in which everything had to wait are a slower link.
//! - **Probes.** The delay without a queue is measured again with half of the window (BBR's `ProbeRTT`) after 10 s, and
//!   when everything waits longer than the window explains: the path has become longer, or carries more of others.
//! - **[Pacing](pacer)** spreads what a window lets through, which after a stall would be all of it at once.

use std::time::{Duration, Instant};

mod delay;
mod departures;
mod growth;
mod pacer;
mod rate;
mod round;

use delay::Delay;
use departures::Departures;
use growth::Growth;
use pacer::Pacer;
use rate::Rate;
use round::{Arrival, Round, Rounds};

/// The window while nothing is known: what TCP below sends at first (RFC 6928), and one packet.
pub const INITIAL_WINDOW: u64 = 16 * 1024;
/// The largest window in bytes: 5 Gbit/s over 100 ms.
pub const MAX_WINDOW: u64 = 64 * 1024 * 1024;

/// How much more than the pipe holds may be under way, in time: what timers and schedulers on both ends are late.
const SLACK: Duration = Duration::from_millis(2);
/// The same as a part of the round trip.
const SLACK_PART: u32 = 16;
/// The same in bytes: a few of the smallest of large packets, for links on which one takes longer than [`SLACK`].
const FEW_PACKETS: u64 = 2 * 1280;
/// On a shorter round trip the programs of ssh take longer than the line, and more when they wait for a processor: a window
/// that follows what they deliver would shrink with them. So it is never smaller than this.
const NEAR: Duration = Duration::from_millis(3);
const NEAR_WINDOW: u64 = 256 * 1024;
/// The part of a pipe that is under way while the delay is measured.
const DRAINED: f64 = 0.5;
/// After this time without anything under way, nothing is known of the rate: TCP below starts again after its
/// retransmission time-out, which is 200 ms at least.
const IDLE: Duration = Duration::from_millis(500);

/// After this time without reports, and a quarter of a round trip, they have stopped.
const STALL: Duration = Duration::from_millis(8);

/// What is assumed if reports do not come.
#[derive(Debug)]
struct Stall {
    /// When the latest one came.
    since: Instant,
    /// After which time they have stopped.
    noticed: Duration,
    /// For how long the pipe is kept full nevertheless.
    longest: Duration,
    rate: f64,
}

/// The sending window of one direction of one link.
#[derive(Debug)]
pub struct Window {
    /// What both clocks count from.
    start: Instant,
    sent: u64,
    delivered: u64,
    /// The latest time of the other end's clock, in microseconds.
    micros: u64,
    /// When something was last under way.
    active: Option<Instant>,
    departures: Departures,
    rounds: Rounds,
    rate: Rate,
    delay: Delay,
    growth: Growth,
    pacer: Pacer,
}

impl Window {
    /// The window of a link that is up from `now` on.
    pub fn new(now: Instant) -> Self {
        Self {
            start: now,
            sent: 0,
            delivered: 0,
            micros: 0,
            active: None,
            departures: Departures::default(),
            rounds: Rounds::default(),
            rate: Rate::default(),
            delay: Delay::default(),
            growth: Growth::default(),
            pacer: Pacer::default(),
        }
    }

    /// Bytes sent on this link that the other side has not yet reported as delivered.
    pub fn in_flight(&self) -> u64 {
        self.sent - self.delivered
    }

    /// Whether another packet may be sent.
    pub fn is_open(&self, now: Instant) -> bool {
        self.in_flight() < self.size() + self.stalled(now) && self.pacer.is_open(now)
    }

    /// When the window opens if nothing is delivered before, if it is not open.
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        self.opens_at().filter(|at| *at > now)
    }

    fn opens_at(&self) -> Option<Instant> {
        let paced = self.pacer.opens_at();
        match self.in_flight().checked_sub(self.size()) {
            None => paced,
            Some(excess) => {
                let stall = self.stall()?;
                let wait = Duration::from_secs_f64(excess as f64 / stall.rate);
                let at = stall.since + wait.max(stall.noticed) + Duration::from_micros(1);
                (wait < stall.longest).then(|| paced.map_or(at, |paced| paced.max(at)))
            }
        }
    }

    /// What may be under way beyond the window because reports have stopped. TCP below waits for a lost packet then,
    /// while what was sent behind it goes on to leave the pipe, which would be empty after a round trip.
    fn stalled(&self, now: Instant) -> u64 {
        let Some(stall) = self.stall() else { return 0 };
        let silent = now.saturating_duration_since(stall.since);
        if silent < stall.noticed {
            return 0;
        }
        (stall.rate * silent.min(stall.longest).as_secs_f64()) as u64
    }

    fn stall(&self) -> Option<Stall> {
        if self.growth.is_fast() || self.delay.is_probing() {
            return None;
        }
        let (rate, trip) = (self.rate.highest()?, self.delay.trip()?);
        Some(Stall { since: self.active?, noticed: trip / 4 + STALL, longest: trip, rate })
    }

    /// The highest recent delivery rate in bytes per second, once one was measured.
    pub fn rate(&self) -> Option<f64> {
        self.rate.highest()
    }

    /// Whether the rate is still being found.
    pub fn is_starting(&self) -> bool {
        self.growth.is_fast()
    }

    /// What the link holds without a queue, in bytes: the rate times the round trip. 0 if they are not known.
    pub fn pipe(&self) -> f64 {
        self.rate.highest().unwrap_or_default() * self.delay.trip().unwrap_or_default().as_secs_f64()
    }

    /// The window's size in bytes.
    pub fn size(&self) -> u64 {
        let Some(rate) = self.rate.highest() else { return INITIAL_WINDOW };
        let (trip, pipe) = (self.delay.trip().unwrap_or_default(), self.pipe());
        let size = if self.delay.is_probing() {
            pipe * DRAINED
        } else {
            pipe * self.growth.gain() + rate * slack(trip).as_secs_f64()
        };
        let least = match self.delay.trip() {
            Some(trip) if trip < NEAR => NEAR_WINDOW,
            _ if self.growth.is_fast() => INITIAL_WINDOW,
            _ => FEW_PACKETS,
        };
        (size as u64 + FEW_PACKETS).clamp(least, MAX_WINDOW)
    }

    /// `bytes` more are under way.
    pub fn sent(&mut self, bytes: u64, now: Instant) {
        if self.in_flight() == 0 {
            self.resume(now);
        }
        let size = self.size();
        self.delay.drain(self.in_flight() < size, self.sent);
        self.sent += bytes;
        self.departures.add(self.sent, size, now);
        self.pacer.sent(bytes, now);
        if self.in_flight() >= size {
            self.rounds.note_limited();
        }
    }

    /// Something is under way again.
    fn resume(&mut self, now: Instant) {
        let Some(active) = self.active else { return };
        let idle = now.saturating_duration_since(active);
        self.rounds.idled(idle);
        if idle >= IDLE {
            self.rate = Rate::default();
            self.growth = Growth::default();
            self.pacer = Pacer::default();
        }
    }

    /// The other side has received `total` bytes since the link began, the latest at the time `micros` of its clock (0: it
    /// does not say). Both are clamped: they never decrease, and the total never exceeds what was sent.
    pub fn delivered(&mut self, total: u64, micros: u64, now: Instant) {
        self.delivered = total.clamp(self.delivered, self.sent);
        self.active = Some(now);
        let micros = if micros == 0 { (now - self.start).as_micros() as u64 } else { micros };
        self.micros = micros.clamp(self.micros, i64::MAX as u64 / 2);
        let Some(departure) = self.departures.arrived(self.delivered) else { return };
        let micros = self.micros as i64;
        let trip = now.saturating_duration_since(departure.at);
        let delay = micros - departure.at.saturating_duration_since(self.start).as_micros() as i64;
        let probing = self.delay.is_probing();
        let wait = self.delay.timed(delay, trip, departure.end, now);
        let trip = self.delay.trip().unwrap_or(trip);
        if probing && !self.delay.is_probing() {
            self.rounds.restart();
        }
        let arrival = Arrival { departure, micros, reported: now };
        if let Some(round) = self.rounds.arrived(arrival, wait, trip) {
            self.round_ended(&round, trip, now);
        }
        if self.growth.is_fast()
            && let Some(rate) = self.rounds.latest_rate(trip)
        {
            self.rate.raise(rate, now);
        }
        self.delay.drain(self.in_flight() < self.size(), self.sent);
        let rate = self.rate.highest().filter(|_| !self.growth.is_fast());
        self.pacer.set_rate(rate, now);
    }

    fn round_ended(&mut self, round: &Round, trip: Duration, now: Instant) {
        let slack = slack(trip);
        let few = Duration::from_secs_f64(FEW_PACKETS as f64 / round.rate.max(1.0));
        // What a full window makes is between these, without growth.
        let (least, most) = (slack / 4, slack * 2 + few);
        self.rate.measured(round, round.queue > most, trip, now);
        if let Some(highest) = self.rate.highest()
            && !self.delay.is_probing()
        {
            self.delay.check(round.queue, most + trip.mul_f64(self.growth.gain() - 1.0), now);
            self.growth.seen(round, least, most, highest);
        }
    }

    /// A ping came back after `trip`. It may have waited behind our own data, so it counts until packets are timed.
    pub fn measured(&mut self, trip: Duration) {
        self.delay.measured(trip);
    }
}

/// How much longer than the `trip` a full window lasts.
fn slack(trip: Duration) -> Duration {
    trip / SLACK_PART + SLACK
}

#[cfg(test)]
mod tests;
