//! Pings, their answers, and the silence that ends a link.

use std::time::{Duration, Instant};

use crate::frame::Frame;

/// Interval of pings while packets pass, so that the window follows the link's round trip.
pub const PING: Duration = Duration::from_secs(1);
/// How long the other end may be silent on an idle link before it is pinged.
pub const IDLE_PING: Duration = Duration::from_secs(15);
/// How long an unanswered ping may be followed by silence. A dead link is thus found 15 s after its last sign of life
/// while packets pass, and 29 s when it was idle.
pub const SILENCE: Duration = Duration::from_secs(14);
/// How long a probed link may be silent.
pub const PROBE: Duration = Duration::from_secs(2);

/// The keepalive of one end.
#[derive(Debug)]
pub(super) struct Keepalive {
    /// The value of the latest ping, which is also its number.
    number: u64,
    /// When the latest ping was sent.
    pinged: Option<Instant>,
    unanswered: bool,
    /// Whether packets have passed since the latest ping.
    busy: bool,
    /// When the link was last probed, and how long it may be silent since; until the other end is heard.
    probe: Option<(Instant, Duration)>,
    /// Whether the probe's ping is due.
    probing: bool,
    /// A ping of the other end to answer. Only the latest one: a flood of pings must not fill our memory.
    pong: Option<u64>,
    heard: Instant,
}

impl Keepalive {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            number: 0,
            pinged: None,
            unanswered: false,
            busy: false,
            probe: None,
            probing: false,
            pong: None,
            heard: now,
        }
    }

    pub(super) fn heard(&mut self, now: Instant) {
        self.heard = now;
        self.probe = None;
    }

    pub(super) fn packet_passed(&mut self) {
        self.busy = true;
    }

    /// Nothing is asked of the other end any more, nor owed to it.
    pub(super) fn settle(&mut self) {
        self.unanswered = false;
        self.busy = false;
        self.probe = None;
        self.probing = false;
        self.pong = None;
    }

    /// Whether a ping is unanswered or about to be sent.
    pub(super) fn is_asking(&self) -> bool {
        self.unanswered || self.probing
    }

    pub(super) fn probe(&mut self, patience: Duration, now: Instant) {
        self.probe = Some((now, patience));
        self.probing = true;
    }

    pub(super) fn ping_received(&mut self, value: u64) {
        self.pong = Some(value);
    }

    /// Returns the round trip of the latest ping.
    pub(super) fn pong_received(&mut self, value: u64, now: Instant) -> Option<Duration> {
        let sent = self.pinged.filter(|_| self.unanswered && value == self.number)?;
        self.unanswered = false;
        Some(now.saturating_duration_since(sent))
    }

    pub(super) fn poll_ping(&mut self, now: Instant) -> Option<Frame> {
        self.ping_due().filter(|due| *due <= now)?;
        self.number += 1;
        self.pinged = Some(now);
        self.unanswered = true;
        self.busy = false;
        self.probing = false;
        Some(Frame::Ping(self.number))
    }

    pub(super) fn poll_pong(&mut self) -> Option<Frame> {
        self.pong.take().map(Frame::Pong)
    }

    /// For how long nothing has been heard.
    pub(super) fn silent_for(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.heard)
    }

    pub(super) fn poll_timeout(&self, congested: bool) -> Option<Instant> {
        let pong = self.pong.filter(|_| !congested).map(|_| self.heard);
        [self.ping_due(), pong].into_iter().flatten().min()
    }

    /// When the next ping is due, if none is unanswered. On an idle link a frame of the other end, such as its ping,
    /// makes ours unnecessary.
    fn ping_due(&self) -> Option<Instant> {
        match self.pinged {
            None => Some(self.heard),
            Some(_) if self.unanswered => None,
            Some(last) if self.probing => Some(last),
            Some(last) if self.busy => Some(last + PING),
            Some(last) => Some(last.max(self.heard) + IDLE_PING),
        }
    }

    /// When the link is dead, if nothing is heard until then.
    pub(super) fn dead_at(&self) -> Option<Instant> {
        let pinged = self.pinged.filter(|_| self.unanswered)?;
        Some(match self.probe {
            Some((probed, patience)) => pinged.max(probed) + patience,
            None => pinged.max(self.heard) + SILENCE,
        })
    }
}
