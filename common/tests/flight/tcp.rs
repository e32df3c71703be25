//! TCP below ssh, in one direction: a reliable stream over a path that has a rate, a delay, a queue and losses.

use std::collections::VecDeque;

use crate::path::Path;

/// Nanoseconds of virtual time.
pub(crate) type Time = u64;
pub(crate) const MS: Time = 1_000_000;

/// What a packet of the path holds beside its payload.
const HEADERS: u64 = 52;
/// Initial congestion window in segments (RFC 6928).
const INITIAL: f64 = 10.0;
/// The factor after a loss, and the growth (RFC 9438).
const BETA: f64 = 0.7;
const CUBIC: f64 = 0.4;
const MIN_RTO: Time = 200 * MS;

/// How the sender's congestion control answers a loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Control {
    /// As CUBIC does (RFC 9438).
    Cubic,
    /// Not at all, as BBR in substance.
    Steady,
}

#[derive(Debug, Clone, Copy)]
struct Segment {
    id: u64,
    start: u64,
    len: u64,
    sent: Time,
    arrived: bool,
    lost: bool,
}

/// What the caller has to do at a later time.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Due {
    /// [`Tcp::arrive`] at the receiver.
    Arrival { at: Time, start: u64, len: u64, id: u64 },
    /// [`Tcp::time_out`].
    TimeOut { at: Time },
}

#[derive(Debug)]
pub(crate) struct Tcp {
    control: Control,
    mss: u64,
    /// Most bytes that the receiver has not read: ssh's window of a channel.
    channel: u64,
    written: u64,
    next: u64,
    read: u64,
    next_id: u64,
    under_way: VecDeque<Segment>,
    flight: u64,
    /// How many segments are to be sent again.
    lost: usize,
    cwnd: f64,
    threshold: f64,
    limited: bool,
    /// CUBIC's plateau and the time of the latest reduction.
    plateau: f64,
    reduced: Time,
    recovery: u64,
    trip: Time,
    armed: bool,
    /// The receiver: the first missing byte, and what has arrived behind it.
    received: u64,
    behind: Vec<(u64, u64)>,
}

impl Tcp {
    pub(crate) fn new(control: Control, mss: u64, channel: u64) -> Self {
        Self {
            control,
            mss,
            channel,
            written: 0,
            next: 0,
            read: 0,
            next_id: 0,
            under_way: VecDeque::new(),
            flight: 0,
            lost: 0,
            cwnd: INITIAL.max(16_384.0 / mss as f64),
            threshold: f64::MAX,
            limited: false,
            plateau: 0.0,
            reduced: 0,
            recovery: 0,
            trip: 0,
            armed: false,
            received: 0,
            behind: Vec::new(),
        }
    }

    /// The application writes. Returns the position behind what it wrote.
    pub(crate) fn write(&mut self, bytes: u64) -> u64 {
        self.written += bytes;
        self.written
    }

    /// The application has no end of data.
    pub(crate) fn fill(&mut self) {
        self.written = u64::MAX / 2;
    }

    /// Sends what the windows allow.
    pub(crate) fn send(&mut self, path: &mut Path, now: Time, due: &mut Vec<Due>) {
        self.restart_after_idle(now);
        loop {
            let lost = self.lost > 0;
            let waits = lost || self.next < self.written.min(self.read + self.channel);
            let full = self.flight as f64 + self.mss as f64 > self.cwnd * self.mss as f64;
            self.limited = waits && full;
            if !waits || full {
                break;
            }
            let (start, len) = match self.take_lost() {
                Some(segment) => (segment.start, segment.len),
                None => {
                    let len = self.mss.min(self.written.min(self.read + self.channel) - self.next);
                    self.next += len;
                    (self.next - len, len)
                }
            };
            self.next_id += 1;
            let id = self.next_id;
            self.under_way.push_back(Segment { id, start, len, sent: now, arrived: false, lost: false });
            self.flight += len;
            if let Some(at) = path.carry(len + HEADERS, now) {
                due.push(Due::Arrival { at, start, len, id });
            }
        }
        if !self.armed && self.flight > 0 {
            self.armed = true;
            due.push(Due::TimeOut { at: now + self.rto() });
        }
    }

    fn take_lost(&mut self) -> Option<Segment> {
        if self.lost == 0 {
            return None;
        }
        self.lost -= 1;
        let at = self.under_way.iter().position(|segment| segment.lost)?;
        self.under_way.remove(at)
    }

    fn restart_after_idle(&mut self, now: Time) {
        let last = self.under_way.back().map_or(self.reduced, |segment| segment.sent);
        if self.flight == 0 && self.control == Control::Cubic && self.next > 0 && now > last + self.rto() {
            self.cwnd = self.cwnd.min(INITIAL);
        }
    }

    fn rto(&self) -> Time {
        if self.trip == 0 { 1000 * MS } else { MIN_RTO + self.trip * 2 }
    }

    /// A segment arrives. Returns the position up to which the stream is complete.
    pub(crate) fn arrive(&mut self, start: u64, len: u64) -> u64 {
        self.behind.push((start, start + len));
        while let Some(at) =
            self.behind.iter().position(|(start, end)| *start <= self.received && *end > self.received)
        {
            self.received = self.behind.swap_remove(at).1;
        }
        let received = self.received;
        self.behind.retain(|(_, end)| *end > received);
        self.received
    }

    /// The sender hears that a segment has arrived and that the application has read this much.
    pub(crate) fn acknowledge(&mut self, id: u64, read: u64, now: Time) {
        self.read = self.read.max(read);
        let Some(segment) = self.under_way.iter_mut().find(|segment| segment.id == id) else { return };
        segment.arrived = true;
        let (sent, len) = (segment.sent, segment.len);
        if std::mem::take(&mut segment.lost) {
            self.lost -= 1;
        } else {
            self.flight -= len;
        }
        let trip = now - sent;
        self.trip = if self.trip == 0 { trip } else { (self.trip * 7 + trip) / 8 };
        // The path keeps the order: what was sent earlier and has not arrived is lost (RFC 8985).
        let mut lost = false;
        for segment in self.under_way.iter_mut().take_while(|segment| segment.id < id) {
            if !segment.arrived && !segment.lost {
                segment.lost = true;
                self.lost += 1;
                self.flight -= segment.len;
                lost |= segment.id > self.recovery;
            }
        }
        while self.under_way.front().is_some_and(|segment| segment.arrived) {
            self.under_way.pop_front();
        }
        if lost {
            self.reduce(BETA, now);
        } else if self.limited {
            self.grow(len as f64 / self.mss as f64, now);
        }
    }

    fn reduce(&mut self, factor: f64, now: Time) {
        self.recovery = self.next_id;
        if self.control == Control::Steady {
            self.threshold = self.cwnd;
            return;
        }
        self.plateau = self.cwnd;
        self.cwnd = (self.cwnd * factor).max(2.0);
        self.threshold = self.cwnd;
        self.reduced = now;
    }

    fn grow(&mut self, segments: f64, now: Time) {
        if self.cwnd < self.threshold || self.control == Control::Steady {
            self.cwnd += segments;
            return;
        }
        let seconds = |time: Time| time as f64 / 1e9;
        let from = (self.plateau * (1.0 - BETA) / CUBIC).cbrt();
        let target = CUBIC * (seconds(now - self.reduced) + seconds(self.trip) - from).powi(3) + self.plateau;
        let reno = segments * 0.53 / self.cwnd;
        let cubic = (target - self.cwnd).clamp(0.0, self.cwnd / 2.0) / self.cwnd * segments;
        self.cwnd += reno.max(cubic);
    }

    /// The timer rings.
    pub(crate) fn time_out(&mut self, now: Time, due: &mut Vec<Due>) {
        self.armed = false;
        let Some(first) = self.under_way.front().copied() else { return };
        if now >= first.sent + self.rto() {
            for segment in &mut self.under_way {
                if !segment.lost && !segment.arrived {
                    segment.lost = true;
                    self.lost += 1;
                    self.flight -= segment.len;
                }
            }
            self.reduce(0.1, now);
        } else {
            self.armed = true;
            due.push(Due::TimeOut { at: first.sent + self.rto() });
        }
    }
}
