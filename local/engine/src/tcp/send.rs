//! The sending half of a connection (downlink): bytes from the host's socket, until the codespace's kernel
//! has acknowledged them.
//!
//! The link to the codespace is a reliable, ordered pipe. Loss happens only in the codespace's own queues, and when
//! the link is cut. So there is no congestion window: the link's budget and the peer's window bound what is in flight,
//! and after a loss everything from the first missing byte on is sent again (go-back-N).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};

use super::seq;

/// The shortest retransmission time-out (RFC 6298, 2.4): the link does not lose, so a late one costs nothing and an
/// early one costs bandwidth.
const MIN_RTO: Duration = Duration::from_secs(1);
/// The longest (RFC 6298, 2.5).
const MAX_RTO: Duration = Duration::from_secs(60);
/// Maximum bytes read from the host's socket before the link takes them. Small, so that waiting bytes stay in the host
/// kernel, whose back pressure reaches the server.
const MAX_UNSENT: u64 = 256 * 1024;
/// Chunks shorter than this are copied together to fill a segment.
const GATHER_BELOW: usize = 16 * 1024;

/// The driver's buffer for reads, which a long read keeps.
const READ_BUFFER: usize = 64 * 1024;
/// What a read costs beside its bytes: its places in three lists, which have spare room, and two allocations. A short read
/// may become a segment of its own.
const READ: usize = 192;
/// What each further segment of a read costs.
const SEGMENT: usize = 64;
/// What a segment of a connection with a larger MSS has at least, unless there is no more to send: it fits the smallest
/// packet that every link carries (RFC 8200, 5).
const SMALLEST: usize = 1220;
/// What the lists cost as soon as they hold anything.
const LISTS: usize = 384;
/// Lists of this length keep their room.
const SHORT: usize = 32;

#[derive(Debug)]
pub(super) struct Send {
    initial: u32,
    mss: usize,
    shift: u8,
    /// The first position not acknowledged.
    acknowledged: u64,
    /// The next position to send.
    next: u64,
    /// The highest position ever sent, exclusive: what an acknowledgment may reach.
    highest: u64,
    /// The position behind the last byte taken from the host's socket.
    end: u64,
    /// Where the reads that are not acknowledged end, and what each costs.
    reads: VecDeque<(u64, usize)>,
    cost: usize,
    sent: VecDeque<Bytes>,
    unsent: VecDeque<Bytes>,
    fin: bool,
    /// Bytes kept for retransmission and not yet sent, in all, at most.
    most_kept: u64,
    /// The right edge of the peer's window.
    edge: u64,
    largest_window: u64,
    /// Where the last window update came from (SND.WL1).
    updated_by: u64,
    duplicates: u8,
    /// No second rewind before this position is acknowledged.
    recover: u64,
    timing: Option<(u64, Instant)>,
    trip: Option<(Duration, Duration)>,
    /// Time-outs since the last round trip was measured.
    backoff: u8,
}

/// The effect of an acknowledgment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Acknowledged {
    /// It covers data that was never sent.
    TooMuch,
    /// It is older than any segment that may still be under way.
    TooOld,
    /// New bytes, or the SYN or FIN.
    Progress,
    /// Nothing new.
    Nothing,
    /// The third duplicate: sending starts again at the first missing byte.
    Rewound,
}

/// The fields of a segment that matter to the sending half.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ack {
    pub number: u32,
    pub window: u16,
    /// The position of the segment itself in the other half's stream.
    pub position: u64,
    /// Whether the segment carries data, SYN or FIN.
    pub occupies: bool,
}

impl Send {
    pub(super) fn new(initial: u32, mss: usize, shift: u8, most_kept: usize) -> Self {
        Self {
            initial,
            mss,
            shift,
            acknowledged: 0,
            next: 0,
            highest: 0,
            end: 1,
            reads: VecDeque::new(),
            cost: 0,
            sent: VecDeque::new(),
            unsent: VecDeque::new(),
            fin: false,
            most_kept: most_kept as u64,
            edge: 1,
            largest_window: 0,
            updated_by: 0,
            duplicates: 0,
            recover: 0,
            timing: None,
            trip: None,
            backoff: 0,
        }
    }

    /// What is kept.
    pub(super) fn charge(&self) -> usize {
        self.cost + if self.cost == 0 { 0 } else { LISTS }
    }

    /// The sequence number of the next segment.
    pub(super) fn sequence(&self) -> u32 {
        seq::wrap(self.initial, self.next)
    }

    /// The sequence number of a segment without data. Not that of the next one with data: after a rewind the peer
    /// already has that position, and would ignore the segment's acknowledgment. Nor one beyond the window, if the
    /// peer has shrunk it (Linux's `tcp_acceptable_seq`).
    pub(super) fn control_sequence(&self) -> u32 {
        seq::wrap(self.initial, self.highest.min(self.edge).max(self.next))
    }

    /// The sequence number of the SYN.
    pub(super) fn initial(&self) -> u32 {
        self.initial
    }

    /// A sequence number just before what the peer expects, which makes it answer (RFC 9293, 3.8.4).
    pub(super) fn probe_sequence(&self) -> u32 {
        seq::wrap(self.initial, self.acknowledged).wrapping_sub(1)
    }

    /// The SYN is on its way.
    pub(super) fn syn_sent(&mut self, now: Instant) {
        if self.highest == 0 {
            self.timing = Some((0, now));
        } else {
            self.timing = None;
        }
        self.next = 1;
        self.highest = self.highest.max(1);
    }

    /// The first window, from the peer's SYN: never scaled (RFC 7323, 2.2).
    pub(super) fn first_window(&mut self, window: u16) {
        self.edge = 1 + u64::from(window);
        self.largest_window = window.into();
    }

    /// Whether the SYN has been acknowledged.
    pub(super) fn is_synchronized(&self) -> bool {
        self.acknowledged > 0
    }

    /// Positions sent and not acknowledged.
    pub(super) fn in_flight(&self) -> u64 {
        self.next - self.acknowledged
    }

    /// Whether something waits to be sent, regardless of the window.
    pub(super) fn is_waiting(&self) -> bool {
        self.next < self.end + u64::from(self.fin)
    }

    /// Whether the FIN has been sent at least once.
    pub(super) fn fin_sent(&self) -> bool {
        self.fin && self.highest > self.end
    }

    /// Whether the FIN has been acknowledged.
    pub(super) fn fin_acknowledged(&self) -> bool {
        self.fin && self.acknowledged > self.end
    }

    /// Whether the host's end of file has been taken.
    pub(super) fn has_ended(&self) -> bool {
        self.fin
    }

    /// How many more bytes to read from the host's socket.
    pub(super) fn room(&self) -> usize {
        if self.fin {
            return 0;
        }
        let unsent = self.end - self.next.clamp(1, self.end);
        // One segment is read even if the window is closed. Otherwise there would be nothing to probe the window with,
        // and the connection would stall if the window update was lost with a link.
        let one = if unsent == 0 { self.mss as u64 } else { 0 };
        let ahead = self.edge.saturating_sub(self.end).max(one);
        let room = MAX_UNSENT
            .saturating_sub(unsent)
            .min(self.most_kept.saturating_sub((LISTS + self.cost) as u64))
            .min(ahead);
        // Small reads would make small segments.
        if room < ahead.min(self.mss as u64).min(self.most_kept / 2) { 0 } else { room as usize }
    }

    /// Sets the maximum number of bytes kept.
    pub(super) fn set_most_kept(&mut self, bytes: usize) {
        self.most_kept = bytes as u64;
    }

    /// Takes bytes from the host's socket.
    pub(super) fn push(&mut self, data: Bytes) {
        if !data.is_empty() && !self.fin {
            self.end += data.len() as u64;
            // A read of at least three quarters of a buffer pins all of it; see `Engine::handle_data`.
            let pinned =
                if data.len() < READ_BUFFER / 4 * 3 { data.len() } else { data.len().max(READ_BUFFER) };
            let cost = pinned + READ + pinned * SEGMENT / self.mss.min(SMALLEST);
            self.cost += cost;
            self.reads.push_back((self.end, cost));
            self.unsent.push_back(data);
        }
    }

    /// Takes the host's end of file.
    pub(super) fn finish(&mut self) {
        self.fin = true;
    }

    /// Whether [`Self::segment`] has something to send.
    pub(super) fn is_ready(&self) -> bool {
        self.is_synchronized() && self.next_len().is_some()
    }

    /// The payload length of the next segment; `None` if none may be sent.
    fn next_len(&self) -> Option<usize> {
        if !self.is_waiting() {
            return None;
        }
        let waiting = self.end.saturating_sub(self.next);
        let usable = self.edge.saturating_sub(self.next);
        let len = waiting.min(usable).min(self.mss as u64);
        // Sender's silly window avoidance (RFC 9293, 3.8.6.2.1).
        let worthwhile = len == waiting
            || len >= self.mss.min(SMALLEST) as u64
            || len * 2 >= self.largest_window
            || (len > 0 && self.in_flight() == 0);
        // A bare FIN needs no window.
        ((len > 0 && worthwhile) || waiting == 0).then_some(len as usize)
    }

    /// The next segment's payload, `most` bytes of it, and whether it carries the FIN; moves on behind it.
    pub(super) fn segment(&mut self, most: usize, now: Instant) -> Option<(Bytes, bool)> {
        let payload = self.take_unsent(self.next_len()?.min(most));
        trim(&mut self.unsent);
        let start = self.next;
        self.next += payload.len() as u64;
        if !payload.is_empty() {
            self.sent.push_back(payload.clone());
        }
        let fin = self.fin && self.next == self.end;
        self.next += u64::from(fin);
        // Karn's algorithm: only what is sent for the first time is timed (RFC 6298, 3).
        if start >= self.highest && self.timing.is_none() {
            self.timing = Some((start, now));
        }
        self.highest = self.highest.max(self.next);
        Some((payload, fin))
    }

    fn take_unsent(&mut self, len: usize) -> Bytes {
        let Some(front) = self.unsent.front_mut() else {
            return Bytes::new();
        };
        if front.len() > len {
            return front.split_to(len);
        }
        if front.len() == len || front.len() >= GATHER_BELOW || self.unsent.len() == 1 {
            return self.unsent.pop_front().unwrap_or_default();
        }
        let mut gathered = BytesMut::with_capacity(len);
        while gathered.len() < len
            && let Some(front) = self.unsent.front_mut()
        {
            let part = front.split_to(front.len().min(len - gathered.len()));
            gathered.extend_from_slice(&part);
            if front.is_empty() {
                self.unsent.pop_front();
            }
        }
        gathered.freeze()
    }

    /// Takes an acknowledgment and window (RFC 9293, 3.10.7.4, fifth check).
    pub(super) fn acknowledge(&mut self, ack: Ack, now: Instant) -> Acknowledged {
        let Some(position) = seq::unwrap(self.initial, ack.number, self.acknowledged) else {
            return Acknowledged::TooOld;
        };
        if position > self.highest {
            return Acknowledged::TooMuch;
        }
        // RFC 5961, 5: who guesses numbers must not get data into the stream.
        if position + self.largest_window < self.acknowledged {
            return Acknowledged::TooOld;
        }
        if position < self.acknowledged {
            return Acknowledged::Nothing;
        }
        let old_edge = self.edge;
        self.update_window(position, ack);
        if position > self.acknowledged {
            self.advance(position, now);
            return Acknowledged::Progress;
        }
        let duplicate = !ack.occupies && self.edge == old_edge && self.in_flight() > 0;
        if !duplicate {
            return Acknowledged::Nothing;
        }
        self.duplicates = self.duplicates.saturating_add(1);
        if self.duplicates == 3 && self.acknowledged >= self.recover {
            self.rewind();
            return Acknowledged::Rewound;
        }
        Acknowledged::Nothing
    }

    fn update_window(&mut self, position: u64, ack: Ack) {
        if ack.position < self.updated_by {
            return;
        }
        let window = u64::from(ack.window) << self.shift;
        self.updated_by = ack.position;
        self.edge = position + window;
        self.largest_window = self.largest_window.max(window);
    }

    fn advance(&mut self, position: u64, now: Instant) {
        if let Some((timed, since)) = self.timing
            && position > timed
        {
            self.timing = None;
            self.measured(now.saturating_duration_since(since));
        }
        while let Some((end, cost)) = self.reads.front()
            && *end <= position
        {
            self.cost -= cost;
            self.reads.pop_front();
        }
        trim(&mut self.reads);
        let mut bytes = position.min(self.end).saturating_sub(self.acknowledged.max(1));
        self.acknowledged = position;
        self.duplicates = 0;
        // After a rewind the peer may acknowledge more than has been sent again.
        for queue in [&mut self.sent, &mut self.unsent] {
            while bytes > 0
                && let Some(front) = queue.front_mut()
            {
                let part = bytes.min(front.len() as u64);
                front.advance(part as usize);
                bytes -= part;
                if front.is_empty() {
                    queue.pop_front();
                }
            }
            trim(queue);
        }
        self.next = self.next.max(position);
    }

    /// Starts again at the first byte that is not acknowledged.
    pub(super) fn rewind(&mut self) {
        self.recover = self.highest;
        self.duplicates = 0;
        self.timing = None;
        self.next = self.acknowledged;
        while let Some(segment) = self.sent.pop_back() {
            self.unsent.push_front(segment);
        }
        trim(&mut self.sent);
    }

    /// RFC 6298, 2.
    fn measured(&mut self, trip: Duration) {
        self.backoff = 0;
        self.trip = Some(match self.trip {
            None => (trip, trip / 2),
            Some((smoothed, variance)) => {
                ((smoothed * 7 + trip) / 8, (variance * 3 + smoothed.abs_diff(trip)) / 4)
            }
        });
    }

    /// The retransmission time-out has passed. The next one is longer, until the round trip of a segment that was sent
    /// only once has been measured (RFC 6298, 5.5; Karn's algorithm): on a slow link the acknowledgment of one that
    /// was sent twice may be the first one's, late.
    pub(super) fn timed_out(&mut self) {
        self.backoff = self.backoff.saturating_add(1);
    }

    /// A new link: the old one's round trips do not count.
    pub(super) fn restart(&mut self) {
        self.backoff = 0;
        self.trip = None;
    }

    /// The retransmission time-out.
    pub(super) fn rto(&self) -> Duration {
        self.backed_off(self.backoff)
    }

    /// The time to the next probe after `attempts` of them.
    pub(super) fn probe_interval(&self, attempts: u8) -> Duration {
        self.backed_off(attempts)
    }

    fn backed_off(&self, times: u8) -> Duration {
        let rto = self.trip.map_or(MIN_RTO, |(smoothed, variance)| smoothed + variance * 4);
        (rto.max(MIN_RTO) * (1 << times.min(6))).min(MAX_RTO)
    }
}

/// Gives back the room of a list that was much longer: what a connection is charged follows what it holds now.
fn trim<T>(list: &mut VecDeque<T>) {
    if list.capacity() > SHORT && list.len() < list.capacity() / 4 {
        list.shrink_to(2 * list.len());
    }
}
