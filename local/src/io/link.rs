//! One link to the sidecar: what it is made of, how it ends, and its pulse: the small frames beside the packets.

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use gh_net_common::frame::{Frame, FrameError, Goodbye, HEADER_LEN};
use gh_net_common::framed::{FrameReader, FrameWriter};
use tokio::sync::oneshot;

/// Between pings while packets pass, so that the link's window follows its round trip.
const PING: Duration = Duration::from_secs(1);
/// Between pings of an idle link.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How long nothing at all may come from a sidecar that owes us a pong.
const SILENCE: Duration = Duration::from_secs(45);
/// Delivered bytes are reported at once when they come to this many, a small part of the smallest window …
const REPORT_BYTES: u64 = 16 * 1024;
/// … and otherwise with the next packet that goes the other way, or after this time: a report of its own for
/// each keystroke would cost more than the keystroke.
const REPORT_DELAY: Duration = Duration::from_millis(5);

/// Both directions of a link, past the handshake.
#[derive(Debug)]
pub struct LinkIo<R, W> {
    /// Frames from the sidecar.
    pub reader: FrameReader<R>,
    /// Frames to the sidecar.
    pub writer: FrameWriter<W>,
    /// Told once the sidecar has dealt with what the session sent first.
    pub settled: Option<oneshot::Sender<()>>,
}

/// How a link ended.
#[derive(Debug)]
pub enum LinkEnd {
    /// The link broke; the session can be resumed on another.
    Lost(LostLink),
    /// The sidecar ended the session. The text is fit to print.
    Goodbye(Goodbye),
    /// The sidecar broke the protocol.
    Protocol(ProtocolError),
    /// We were told to stop.
    Shutdown,
}

/// Why a link is lost.
#[derive(Debug, thiserror::Error)]
pub enum LostLink {
    /// The stream from the sidecar ended.
    #[error("the connection to the codespace ended")]
    Ended,
    /// The stream ended within a frame.
    #[error("the connection to the codespace was cut")]
    Cut,
    /// Reading failed.
    #[error("the connection to the codespace failed: {0}")]
    Read(#[source] io::Error),
    /// Writing failed.
    #[error("the connection to the codespace failed: {0}")]
    Write(#[source] io::Error),
    /// Nothing came for too long.
    #[error("nothing came from the codespace for {} seconds", .0.as_secs())]
    Silent(Duration),
}

/// How the sidecar broke the protocol.
#[derive(Debug, thiserror::Error)]
pub enum ProtocolError {
    /// What it sent is no frame.
    #[error("the sidecar broke the protocol: {0}")]
    Frame(#[from] FrameError),
    /// A frame that has no place after the handshake.
    #[error("the sidecar broke the protocol: it sent {0}, which has no place after the handshake")]
    Unexpected(&'static str),
}

impl fmt::Display for LinkEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost(lost) => lost.fmt(f),
            Self::Goodbye(goodbye) if goodbye.text.is_empty() => f.write_str("the sidecar ended the session"),
            Self::Goodbye(goodbye) => write!(f, "the sidecar ended the session: {}", goodbye.text),
            Self::Protocol(error) => error.fmt(f),
            Self::Shutdown => f.write_str("told to stop"),
        }
    }
}

/// Which small frames are due, and whether the link is alive. Pure: the clock is a parameter.
#[derive(Debug)]
pub(super) struct Pulse {
    /// Bytes of packet frames taken off the link, and how many of them the sidecar knows of.
    taken: u64,
    reported: u64,
    report_due: Option<Instant>,
    /// The last ping's value, which is also its number, when it was sent, and whether it is unanswered.
    ping: u64,
    pinged: Option<Instant>,
    unanswered: bool,
    /// Whether packets have passed since the last ping.
    busy: bool,
    /// A ping of the sidecar's to answer. Only the latest: a flood of them must not fill our memory.
    pong: Option<u64>,
    heard: Instant,
}

impl Pulse {
    /// The pulse of a link that is up from `now` on. The first ping is due at once.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            taken: 0,
            reported: 0,
            report_due: None,
            ping: 0,
            pinged: None,
            unanswered: false,
            busy: false,
            pong: None,
            heard: now,
        }
    }

    /// Something came from the sidecar.
    pub(super) fn heard(&mut self, now: Instant) {
        self.heard = now;
    }

    /// A packet of `len` bytes was taken off the link.
    pub(super) fn packet_taken(&mut self, len: usize, now: Instant) {
        self.taken += (HEADER_LEN + len) as u64;
        self.busy = true;
        let due = if self.taken - self.reported >= REPORT_BYTES { now } else { now + REPORT_DELAY };
        self.report_due = Some(self.report_due.map_or(due, |earlier| earlier.min(due)));
    }

    /// A packet was sent.
    pub(super) fn packet_sent(&mut self) {
        self.busy = true;
    }

    /// The sidecar pings.
    pub(super) fn pinged(&mut self, value: u64) {
        self.pong = Some(value);
    }

    /// The sidecar answers a ping. Returns the round trip if it is the last one's.
    pub(super) fn ponged(&mut self, value: u64, now: Instant) -> Option<Duration> {
        let sent = self.pinged.filter(|_| self.unanswered && value == self.ping)?;
        self.unanswered = false;
        Some(now.saturating_duration_since(sent))
    }

    /// When the next ping is due, if none is under way.
    fn ping_due(&self) -> Option<Instant> {
        let interval = if self.busy { PING } else { KEEP_ALIVE };
        match self.pinged {
            None => Some(self.heard),
            Some(_) if self.unanswered => None,
            Some(last) => Some(last + interval),
        }
    }

    /// The next frame that is due. A `congested` link gets none but pings, of which one is under way at most:
    /// whatever else there is to say grows no longer by waiting.
    pub(super) fn next_due(&mut self, congested: bool, now: Instant) -> Option<Frame> {
        if self.ping_due().is_some_and(|due| due <= now) {
            self.ping += 1;
            self.pinged = Some(now);
            self.unanswered = true;
            self.busy = false;
            return Some(Frame::Ping(self.ping));
        }
        if congested {
            return None;
        }
        if let Some(value) = self.pong.take() {
            return Some(Frame::Pong(value));
        }
        self.report_due.filter(|due| *due <= now).and_then(|_| self.report())
    }

    /// The report of delivered bytes, if there is something to report.
    pub(super) fn report(&mut self) -> Option<Frame> {
        self.report_due = None;
        (self.reported < self.taken).then(|| {
            self.reported = self.taken;
            Frame::Delivered(self.taken)
        })
    }

    /// How long the sidecar has been silent, if that is too long.
    pub(super) fn silence(&self, now: Instant) -> Option<Duration> {
        (self.dead_at()? <= now).then(|| now.saturating_duration_since(self.heard))
    }

    fn dead_at(&self) -> Option<Instant> {
        let pinged = self.pinged.filter(|_| self.unanswered)?;
        Some(pinged.max(self.heard) + SILENCE)
    }

    /// When something is due next.
    pub(super) fn deadline(&self, congested: bool) -> Option<Instant> {
        let report = self.report_due.filter(|_| !congested);
        [self.ping_due(), self.dead_at(), report].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_busy_link_is_pinged_each_second_and_an_idle_one_seldom() {
        let start = Instant::now();
        let mut pulse = Pulse::new(start);
        assert_eq!(pulse.next_due(false, start), Some(Frame::Ping(1)));
        assert_eq!(pulse.next_due(false, start + PING), None, "one ping is under way");
        assert_eq!(pulse.ponged(1, start + 30 * MS), Some(30 * MS));
        assert_eq!(pulse.ponged(1, start + 40 * MS), None, "answered already");
        assert_eq!(pulse.next_due(false, start + PING), None);
        assert_eq!(pulse.next_due(false, start + KEEP_ALIVE), Some(Frame::Ping(2)));
        let now = start + KEEP_ALIVE;
        assert_eq!(pulse.ponged(2, now), Some(Duration::ZERO));
        pulse.packet_sent();
        assert_eq!(pulse.next_due(false, now + PING), Some(Frame::Ping(3)));
    }

    #[test]
    fn a_keystroke_is_reported_with_the_next_packet_or_soon_and_bulk_at_once() {
        let now = Instant::now();
        let mut pulse = Pulse::new(now);
        let _ = pulse.next_due(false, now);
        pulse.packet_taken(60, now);
        assert_eq!(pulse.next_due(false, now), None);
        assert_eq!(pulse.report(), Some(Frame::Delivered(64)));
        assert_eq!(pulse.next_due(false, now + REPORT_DELAY), None, "nothing new");
        pulse.packet_taken(60, now);
        assert_eq!(pulse.next_due(false, now + REPORT_DELAY), Some(Frame::Delivered(128)));
        pulse.packet_taken(65_000, now);
        assert_eq!(pulse.next_due(false, now), Some(Frame::Delivered(128 + 65_004)));
    }

    #[test]
    fn a_flood_of_pings_is_answered_by_one_pong_and_by_none_while_nothing_is_taken_from_us() {
        let now = Instant::now();
        let mut pulse = Pulse::new(now);
        let _ = pulse.next_due(false, now);
        for value in 0..1000 {
            pulse.pinged(value);
        }
        assert_eq!(pulse.next_due(true, now), None);
        assert_eq!(pulse.next_due(false, now), Some(Frame::Pong(999)));
        assert_eq!(pulse.next_due(false, now), None);
    }

    #[test]
    fn a_link_that_answers_nothing_is_dead_and_one_that_is_merely_slow_is_not() {
        let start = Instant::now();
        let mut pulse = Pulse::new(start);
        let _ = pulse.next_due(false, start);
        assert_eq!(pulse.silence(start + SILENCE - MS), None);
        pulse.heard(start + SILENCE - MS);
        assert_eq!(pulse.silence(start + SILENCE), None);
        let dead = start + SILENCE - MS + SILENCE;
        assert_eq!(pulse.deadline(true), Some(dead));
        assert_eq!(pulse.silence(dead), Some(SILENCE));
    }
}
