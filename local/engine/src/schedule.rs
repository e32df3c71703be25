//! Which flow sends next: round robin by bytes, with flows that send little first.
//!
//! Deficit round robin with two lists, as in fq_codel (RFC 8290, 4.1 and 4.2): a flow that begins to send is
//! *fresh* and goes before the *bulk* flows until it has used up its quantum. So a keystroke or the first segment of
//! a page does not wait behind a download.

use std::collections::VecDeque;

use super::api::{FlowId, Transmit};

/// Bytes a flow may send in its turn: one of the largest segments.
const QUANTUM: i64 = 64 * 1024;

/// A flow's state in the schedule.
#[derive(Debug, Default)]
pub(super) struct Standing {
    listed: bool,
    deficit: i64,
}

/// The flows that have something to send.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    fresh: VecDeque<FlowId>,
    bulk: VecDeque<FlowId>,
}

/// The flow that may send next.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    /// The flow at the head of a list.
    pub flow: FlowId,
    fresh: bool,
}

impl Schedule {
    /// The flow has something to send.
    pub(super) fn add(&mut self, flow: FlowId, standing: &mut Standing) {
        if !standing.listed {
            *standing = Standing { listed: true, deficit: QUANTUM };
            self.fresh.push_back(flow);
        }
    }

    /// The head of the lists.
    pub(super) fn candidate(&self) -> Option<Candidate> {
        let fresh = self.fresh.front().map(|flow| Candidate { flow: *flow, fresh: true });
        fresh.or_else(|| self.bulk.front().map(|flow| Candidate { flow: *flow, fresh: false }))
    }

    /// Whether the candidate may send now. If not, it has moved to the end of the list with another quantum.
    pub(super) fn may_send(&mut self, candidate: Candidate, standing: &mut Standing) -> bool {
        if standing.deficit > 0 {
            return true;
        }
        standing.deficit += QUANTUM;
        self.remove(candidate);
        self.bulk.push_back(candidate.flow);
        false
    }

    /// The candidate has sent `bytes`.
    pub(super) fn sent(standing: &mut Standing, bytes: usize) {
        standing.deficit -= bytes as i64;
    }

    /// The candidate has nothing more to send. A fresh flow goes once to the end of the bulk list, so that it can't
    /// stay fresh by sending little at a time.
    pub(super) fn emptied(&mut self, candidate: Candidate, standing: &mut Standing) {
        self.remove(candidate);
        if candidate.fresh && !self.bulk.is_empty() {
            self.bulk.push_back(candidate.flow);
        } else {
            standing.listed = false;
        }
    }

    /// The candidate no longer exists.
    pub(super) fn remove(&mut self, candidate: Candidate) {
        if candidate.fresh {
            self.fresh.pop_front();
        } else {
            self.bulk.pop_front();
        }
    }
}

/// What a packet costs beside its bytes.
const PACKET: usize = 320;

/// Queued packets of one datagram flow. When the queue is full, new packets are dropped, as in a router.
#[derive(Debug, Default)]
pub(super) struct Queue {
    packets: VecDeque<Transmit>,
    bytes: usize,
}

/// What a packet that waits costs: headers and the list's spare room, too.
pub(super) fn cost(packet: &Transmit) -> usize {
    packet.len() + PACKET
}

impl Queue {
    /// What it holds.
    pub(super) fn charge(&self) -> usize {
        self.bytes + self.packets.len() * PACKET
    }

    /// Adds a packet, if no more than `most` is held then. Returns whether there was room.
    pub(super) fn push(&mut self, packet: Transmit, most: usize) -> bool {
        let fits = self.charge() + cost(&packet) <= most;
        if fits {
            self.bytes += packet.len();
            self.packets.push_back(packet);
        }
        fits
    }

    pub(super) fn pop(&mut self) -> Option<Transmit> {
        let packet = self.packets.pop_front()?;
        self.bytes -= packet.len();
        if self.packets.is_empty() {
            // A queue that was long once keeps no memory.
            *self = Self::default();
        }
        Some(packet)
    }

    /// Drops all packets; returns how many.
    pub(super) fn clear(&mut self) -> u64 {
        let count = self.packets.len() as u64;
        *self = Self::default();
        count
    }

    pub(super) fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }
}
