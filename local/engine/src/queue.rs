//! The packets that wait in one datagram flow.

use std::collections::VecDeque;

use super::api::Transmit;

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
