//! The receiving half of a connection (uplink): bytes from the codespace, until the host's socket accepts them.
//!
//! The window is credit. Room is reserved for every byte that was ever offered, so nothing within the window is
//! dropped and no retransmission, which costs a round trip of the link, is caused here. The right edge of the window
//! does not move back.
//!
//! What has been received is acknowledged, although the host's socket may not have taken it yet. If bytes stayed
//! unacknowledged because a server reads slowly, the codespace's kernel would retransmit them and end the connection
//! after some fifteen minutes; a closed window may stay closed indefinitely.

use std::collections::{BTreeMap, VecDeque};
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};

use super::seq;

/// Segments smaller than this are copied together. A slice pins the whole buffer that it was read into, so keeping
/// small ones by reference would let a peer pin many times its credit.
const COPY_BELOW: usize = 16 * 1024;
/// Copied segments are gathered in pieces of this size.
const GATHER: usize = 64 * 1024;
/// Maximum number of segments kept behind a gap.
const MAX_AHEAD: usize = 512;
/// What a segment behind a gap costs beside its bytes.
const AHEAD: usize = 128;
/// How far the offered edge may overshoot the credit because the window field counts in units of
/// 2^shift bytes.
const SLACK: u64 = 16 * 1024;

#[derive(Debug)]
pub(super) struct Receive {
    initial: u32,
    /// The next position expected: everything before it was received.
    next: u64,
    /// The host's socket has accepted everything before this position.
    accepted: u64,
    /// The credit: bytes before this position have room.
    edge: u64,
    /// The highest right edge ever put into a window field.
    offered: u64,
    capacity: u64,
    shift: u8,
    mss: u64,
    /// Pieces, and whether each is a slice of a buffer of the link.
    queue: VecDeque<(Bytes, bool)>,
    /// Where the latest such slice ends, until that is taken.
    pinned: Option<u64>,
    /// Small segments after `queue`, being gathered.
    tail: BytesMut,
    ahead: BTreeMap<u64, Bytes>,
    ahead_bytes: u64,
    /// The position of the FIN, once its segment has arrived.
    fin: Option<u64>,
}

impl Receive {
    /// A stream whose SYN had the sequence number `initial`.
    pub(super) fn new(initial: u32, shift: u8, mss: usize, capacity: usize) -> Self {
        let capacity = capacity as u64;
        Self {
            initial,
            next: 1,
            accepted: 1,
            edge: 1 + capacity,
            offered: 1,
            capacity,
            shift,
            mss: mss as u64,
            queue: VecDeque::new(),
            pinned: None,
            tail: BytesMut::new(),
            ahead: BTreeMap::new(),
            ahead_bytes: 0,
            fin: None,
        }
    }

    /// Opens the window for the first time.
    pub(super) fn open(&mut self) {
        self.edge = self.edge.max(1 + self.capacity);
    }

    /// What is kept, and what may still come.
    pub(super) fn charge(&self) -> usize {
        let accepted = self.next - self.queued();
        let edge = if self.fin_received() { self.next } else { self.edge.max(self.offered) };
        (edge - accepted) as usize + self.ahead.len() * AHEAD
    }

    /// The acknowledgment number.
    pub(super) fn acknowledgment(&self) -> u32 {
        seq::wrap(self.initial, self.next)
    }

    /// The next position expected.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// The position of `sequence`.
    pub(super) fn position(&self, sequence: u32) -> Option<u64> {
        seq::unwrap(self.initial, sequence, self.next)
    }

    /// Whether a segment that covers `length` positions from `position` on lies in the window at least in
    /// part (RFC 9293, 3.4, the four cases).
    pub(super) fn acceptable(&self, position: u64, length: u64) -> bool {
        let end = self.offered.max(self.next);
        let within = |position| (self.next..end).contains(&position);
        match (length, end - self.next) {
            (0, 0) => position == self.next,
            (0, _) => within(position),
            (_, 0) => false,
            (_, _) => within(position) || within(position + length - 1),
        }
    }

    /// Takes a segment's payload and FIN. Returns whether `next` moved.
    pub(super) fn insert(&mut self, position: u64, payload: Bytes, fin: bool) -> bool {
        let before = self.next;
        if fin && self.fin.is_none() {
            self.fin = Some(position + payload.len() as u64);
        }
        self.insert_data(position, payload);
        self.take_ahead();
        if self.fin == Some(self.next) {
            self.next += 1;
            // The FIN takes no room.
            self.edge += 1;
        }
        self.next != before
    }

    fn insert_data(&mut self, mut position: u64, mut payload: Bytes) {
        let end = self.fin.unwrap_or(u64::MAX).min(self.offered);
        let room = end.saturating_sub(position);
        payload.truncate(usize::try_from(room).unwrap_or(usize::MAX));
        if position < self.next {
            let known = (self.next - position).min(payload.len() as u64);
            payload.advance(known as usize);
            position += known;
        }
        if payload.is_empty() || self.fin_received() {
            return;
        }
        if position == self.next {
            self.append(payload);
        } else if position > self.next {
            self.keep_ahead(position, payload);
        }
    }

    fn append(&mut self, payload: Bytes) {
        self.next += payload.len() as u64;
        if payload.len() >= COPY_BELOW {
            self.flush_tail();
            self.queue.push_back((payload, true));
            self.pinned = Some(self.next);
            return;
        }
        if self.tail.len() + payload.len() > GATHER {
            self.flush_tail();
        }
        self.tail.extend_from_slice(&payload);
    }

    fn flush_tail(&mut self) {
        if !self.tail.is_empty() {
            self.queue.push_back((self.tail.split().freeze(), false));
        }
    }

    fn keep_ahead(&mut self, position: u64, payload: Bytes) {
        let length = payload.len() as u64;
        let known = self.ahead.get(&position).map_or(0, |known| known.len() as u64);
        let full = self.ahead.len() >= MAX_AHEAD
            || self.ahead_bytes + length + (self.ahead.len() * AHEAD) as u64 > self.capacity + SLACK;
        if length <= known || full {
            return;
        }
        // It may stay for long.
        let payload = Bytes::copy_from_slice(&payload);
        self.ahead.insert(position, payload);
        self.ahead_bytes += length - known;
    }

    fn take_ahead(&mut self) {
        while let Some(entry) = self.ahead.first_entry() {
            if *entry.key() > self.next {
                return;
            }
            let (position, mut payload) = entry.remove_entry();
            self.ahead_bytes -= payload.len() as u64;
            // Data after the FIN is not part of the stream.
            let end = self.fin.unwrap_or(u64::MAX).saturating_sub(position);
            payload.truncate(usize::try_from(end).unwrap_or(usize::MAX));
            let known = self.next - position;
            if known < payload.len() as u64 {
                self.append(payload.slice(known as usize..));
            }
        }
    }

    /// Where the latest slice of a buffer of the link ends, once.
    pub(super) fn take_pinned(&mut self) -> Option<u64> {
        self.pinned.take()
    }

    /// Copies slices of buffers of the link up to this position.
    pub(super) fn release(&mut self, end: u64) {
        let mut at = self.accepted;
        for (chunk, pins) in &mut self.queue {
            at += chunk.len() as u64;
            if at > end {
                return;
            }
            if std::mem::take(pins) {
                *chunk = Bytes::copy_from_slice(chunk);
            }
        }
    }

    /// Whether everything up to the FIN has arrived.
    pub(super) fn fin_received(&self) -> bool {
        self.fin.is_some_and(|fin| self.next > fin)
    }

    /// Whether everything up to the FIN has arrived and been taken by the host's socket.
    pub(super) fn is_drained(&self) -> bool {
        self.fin_received() && self.queued() == 0
    }

    /// Bytes not yet accepted by the host's socket.
    pub(super) fn queued(&self) -> u64 {
        self.next - u64::from(self.fin_received()) - self.accepted
    }

    /// The next bytes for the host's socket.
    pub(super) fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let tail = (!self.tail.is_empty()).then_some(&self.tail[..]);
        let mut count = 0;
        for (slice, chunk) in
            slices.iter_mut().zip(self.queue.iter().map(|(chunk, _)| &chunk[..]).chain(tail))
        {
            *slice = IoSlice::new(chunk);
            count += 1;
        }
        count
    }

    /// The host's socket took `count` of the bytes in [`Self::slices`]. Returns whether the window opened
    /// far enough for a window update.
    pub(super) fn accept(&mut self, count: usize) -> bool {
        let mut left = count.min(self.queued() as usize);
        self.accepted += left as u64;
        while let Some((front, _)) = self.queue.front_mut() {
            if left < front.len() {
                front.advance(left);
                left = 0;
                break;
            }
            left -= front.len();
            self.queue.pop_front();
        }
        self.tail.advance(left.min(self.tail.len()));
        if self.tail.is_empty() {
            // An idle connection keeps no memory.
            self.tail = BytesMut::new();
        }
        self.move_edge()
    }

    /// Sets the maximum in flight and queued. Credit already offered stays valid.
    pub(super) fn set_capacity(&mut self, capacity: usize) {
        self.capacity = capacity as u64;
    }

    /// Moves the right edge by a full segment or not at all (silly window syndrome, RFC 9293, 3.8.6.2.2).
    fn move_edge(&mut self) -> bool {
        let edge = self.next - self.queued() + self.capacity;
        if edge < self.edge + self.mss.min(self.capacity / 2) {
            return false;
        }
        let almost_closed = self.edge.saturating_sub(self.next) < self.capacity / 4;
        let moved = edge - self.edge;
        self.edge = edge;
        almost_closed || moved >= self.capacity / 4
    }

    /// The window field for a segment that is sent now; unscaled on a SYN.
    pub(super) fn window(&mut self, syn: bool) -> u16 {
        let shift = if syn { 0 } else { self.shift };
        let mut field = self.edge.max(self.offered).saturating_sub(self.next) >> shift;
        let unit = 1 << shift;
        // The field counts in units of 2^shift from a `next` that moves by single bytes. Rounding down
        // takes up to a unit back (RFC 7323, 2.4), so round up as long as the reserve lasts.
        if self.next + (field << shift) < self.offered
            && self.offered + unit <= self.edge + SLACK.min(self.capacity / 4)
        {
            field = (self.offered - self.next).div_ceil(unit);
        }
        let field = u16::try_from(field).unwrap_or(u16::MAX);
        self.offered = self.offered.max(self.next + (u64::from(field) << shift));
        field
    }
}
