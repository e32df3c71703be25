//! The control of one link, the same at both ends: how much may be under way, and the small frames beside the packets.
//!
//! # Theory of operation
//!
//! - **Flight control.** ssh, its pipes and the kernel's socket buffers hold megabytes in one queue. The [window] bounds
//!   the bytes under way, so that what has to wait waits with the sender, where it can be scheduled.
//! - **Reports.** The receiver of packets reports how many bytes of them it has received in all, and when the latest
//!   ([`Frame::Delivered`]).
//!   A report is due at once after [`REPORT_BYTES`], else it travels with the next packet of the other direction or
//!   after [`REPORT_DELAY`]. The driver may send it earlier ([`LinkControl::poll_report`]).
//! - **Keepalive.** Each end pings and answers pings, and each end declares a link dead that stays silent for
//!   [`SILENCE`] after a ping ([`LinkControl::silence`]). Any frame counts as a sign of life.
//!
//! - **Quiet.** An end whose driver says so ([`LinkControl::ask_quiet`]), because no payload has passed for long, asks
//!   the other one to be quiet. Then no frame passes, not even pings, until one end has something to send; the link is
//!   checked at long intervals ([`FIRST_CHECK`]).
//!
//! A congested end (one whose writer does not accept more) sends only pings, of which one at most is unanswered. A
//! report or a pong that waits meanwhile is replaced by the latest one.
//!
//! Pure: the clock is a parameter. The driver calls the methods named `*_received` and `*_sent`, sends what
//! [`LinkControl::poll_frame`] returns, and wakes up at [`LinkControl::poll_timeout`].

use std::time::{Duration, Instant};

use crate::frame::{Frame, HEADER_LEN};

mod keepalive;
mod quiet;
pub mod window;

pub use keepalive::{IDLE_PING, PING, PROBE, SILENCE};
pub use quiet::FIRST_CHECK;

use keepalive::Keepalive;
use quiet::IdleState;
use window::Window;

/// Received bytes that are reported at once: a small part of the smallest window.
pub const REPORT_BYTES: u64 = 16 * 1024;
/// How long fewer received bytes may wait to be reported: no longer than the surplus of the sender's window lasts.
pub const REPORT_DELAY: Duration = Duration::from_millis(2);

/// How long a link may take for one packet: what is urgent waits behind a packet that has just been sent.
const PACKET_TIME: Duration = Duration::from_millis(2);
/// The smallest bound of packets: the least that IPv6 asks of any link (RFC 8200, 5).
const MIN_PACKET: usize = 1280;
/// The smallest bound while the rate is being found: 2 ms at 16 Mbit/s.
const MODERATE_PACKET: usize = 4 * 1024;
/// IP has no larger packet.
const MAX_PACKET: usize = 65_535;

/// Datagrams whose fragments an end has under way at once. The other one has room for more of them, however little memory
/// it was given, because programs cut datagrams themselves, too.
pub const MAX_FRAGMENTED: usize = 4;

/// How much later than planned this end may notice the silence. If it is later, this end was suspended (a stopped
/// process, a paused machine), and it first probes a link that may well be alive.
pub(crate) const OVERSLEPT: Duration = Duration::from_secs(3);

/// See the [module's documentation](self).
#[derive(Debug)]
pub struct LinkControl {
    window: Window,
    keepalive: Keepalive,
    quiet: IdleState,
    /// How long the other end may be silent after this end has woken a quiet link.
    patience: Duration,
    /// Bytes of packet frames received on this link.
    received: u64,
    /// How many of them are reported.
    reported: u64,
    /// When the latest came. Reports count the time from `start`.
    received_at: Instant,
    start: Instant,
    report_due: Option<Instant>,
    round_trip: Option<Duration>,
}

impl LinkControl {
    /// The control of a link that is up from `now` on. The first ping is due at once. When this end wakes a quiet link,
    /// the other one has to be heard within `patience`.
    pub fn new(patience: Duration, now: Instant) -> Self {
        Self {
            window: Window::new(now),
            keepalive: Keepalive::new(now),
            quiet: IdleState::default(),
            patience,
            received: 0,
            reported: 0,
            received_at: now,
            start: now,
            report_due: None,
            round_trip: None,
        }
    }

    /// A frame of any kind came from the other end.
    pub fn frame_received(&mut self, now: Instant) {
        self.keepalive.heard(now);
        self.quiet.frame_received();
    }

    /// A packet of `len` bytes came from the other end.
    pub fn packet_received(&mut self, len: usize, now: Instant) {
        self.received += (HEADER_LEN + len) as u64;
        self.received_at = now;
        self.keepalive.packet_passed();
        self.quiet.packet_passed();
        let due = if self.received - self.reported >= REPORT_BYTES { now } else { now + REPORT_DELAY };
        self.report_due = Some(self.report_due.map_or(due, |earlier| earlier.min(due)));
    }

    /// A packet of `len` bytes is on its way to the other end.
    pub fn packet_sent(&mut self, len: usize, now: Instant) {
        self.frame_sent(now);
        self.window.sent((HEADER_LEN + len) as u64, now);
        self.keepalive.packet_passed();
        self.quiet.packet_passed();
    }

    /// A frame that is no packet, and not one of [`Self::poll_frame`], is on its way to the other end.
    pub fn frame_sent(&mut self, now: Instant) {
        if self.quiet.is_quiet() {
            self.probe(self.patience, now);
        }
        self.quiet.frame_sent();
    }

    /// The other end reports `total` bytes of packet frames, the latest received at `micros` of its clock. Both are clamped:
    /// they never decrease, and the total never exceeds what was sent.
    pub fn delivered(&mut self, total: u64, micros: u64, now: Instant) {
        self.window.delivered(total, micros, now);
    }

    /// The other end pings. The answer is due at once.
    pub fn ping_received(&mut self, value: u64) {
        self.keepalive.ping_received(value);
    }

    /// The other end answers a ping. Returns the round trip if it was the latest ping.
    pub fn pong_received(&mut self, value: u64, now: Instant) -> Option<Duration> {
        let trip = self.keepalive.pong_received(value, now)?;
        self.window.measured(trip);
        self.round_trip = Some(trip);
        Some(trip)
    }

    /// Whether the link is quiet.
    pub fn is_quiet(&self) -> bool {
        self.quiet.is_quiet()
    }

    /// When the other end will be heard at the latest, as it promised for a quiet link before it was last heard.
    pub fn promised(&self) -> Option<Instant> {
        self.quiet.promised()
    }

    /// Whether the other end can be asked to be quiet: everything received is reported, and no ping is unanswered.
    pub fn has_nothing_pending(&self) -> bool {
        self.quiet.is_active() && !self.keepalive.is_asking() && self.reported == self.received
    }

    /// Asks the other end to be quiet. If a packet passes before its answer, the link stays as it is.
    pub fn ask_quiet(&mut self) {
        self.quiet.ask();
    }

    /// The other end asks to be quiet, and will be heard within this many `seconds`; or it answers, with 0.
    pub fn quiet_received(&mut self, seconds: u32, now: Instant) {
        self.quiet.quiet_received(seconds, now);
        if self.quiet.is_quiet() {
            self.keepalive.settle();
            // Ahead of our answer: a later report would wake the other end.
            self.report_due = self.report_due.map(|_| now);
        }
    }

    /// Whether the window has room for another packet.
    pub fn has_room(&self, now: Instant) -> bool {
        self.window.is_open(now)
    }

    /// The largest IP packet to send now, in bytes: what the link carries in about [`PACKET_TIME`]. A larger one is
    /// better cut.
    pub fn largest_packet(&self) -> usize {
        let carried = self.window.rate().map_or(0, |rate| (rate * PACKET_TIME.as_secs_f64()) as usize);
        let least = if self.window.is_starting() { MODERATE_PACKET } else { MIN_PACKET };
        carried.clamp(least, MAX_PACKET)
    }

    /// How many bytes the line holds without a queue, as far as it was used: the recent rate times the round trip. 0 if they
    /// are not known yet.
    pub fn path_bytes(&self) -> u64 {
        self.window.pipe() as u64
    }

    /// The latest round trip, queues included.
    pub fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    /// Asks the other end for a sign of life, which has to come within `patience`. A ping is due at once, unless one is
    /// unanswered.
    pub fn probe(&mut self, patience: Duration, now: Instant) {
        self.quiet.wake();
        self.keepalive.probe(patience, now);
    }

    /// The next frame that is due. While the link is `congested` that is a ping at most.
    pub fn poll_frame(&mut self, congested: bool, now: Instant) -> Option<Frame> {
        if self.quiet.begin_check(now) {
            self.probe(self.patience, now);
        }
        if let Some(frame) = self.poll_other_than_quiet(congested, now) {
            self.quiet.frame_sent();
            return Some(frame);
        }
        if congested { None } else { self.quiet.poll_frame() }
    }

    fn poll_other_than_quiet(&mut self, congested: bool, now: Instant) -> Option<Frame> {
        if !self.is_quiet()
            && let Some(ping) = self.keepalive.poll_ping(now)
        {
            return Some(ping);
        }
        if congested {
            return None;
        }
        let report = self.report_due.filter(|due| *due <= now).and_then(|_| self.poll_report());
        report.or_else(|| self.keepalive.poll_pong())
    }

    /// The report of received bytes, if there are new ones, due or not: for a write that happens anyway.
    pub fn poll_report(&mut self) -> Option<Frame> {
        self.report_due = None;
        (self.reported < self.received).then(|| {
            self.reported = self.received;
            self.quiet.frame_sent();
            // 0 stands for an end that does not say.
            let micros = (self.received_at - self.start).as_micros() as u64 + 1;
            Frame::Delivered { total: self.received, micros }
        })
    }

    /// How long the other end has been silent, once that is too long. The link is then dead. An end that notices much
    /// later than [`Self::poll_timeout`] asked for was suspended itself, and probes the link first.
    pub fn silence(&mut self, now: Instant) -> Option<Duration> {
        let late = now.checked_duration_since(self.dead_at()?)?;
        if late > OVERSLEPT {
            self.probe(self.patience, now);
            return None;
        }
        Some(self.keepalive.silent_for(now))
    }

    fn dead_at(&self) -> Option<Instant> {
        if self.is_quiet() { self.quiet.dead_at() } else { self.keepalive.dead_at() }
    }

    /// When [`Self::poll_frame`] or [`Self::silence`] has something next, or [`Self::has_room`] for a packet that is
    /// held back only for pacing.
    pub fn poll_timeout(&self, congested: bool, now: Instant) -> Option<Instant> {
        let report = self.report_due.filter(|_| !congested);
        let room = self.window.poll_timeout(now).filter(|_| !congested);
        let due =
            if self.is_quiet() { self.quiet.check_at() } else { self.keepalive.poll_timeout(congested) };
        [due, self.dead_at(), report, room].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests;
