//! Segments from a connection to the codespace.

use std::time::Instant;

use bytes::Bytes;

use super::{Connection, SHIFT, Timer, max_mss};
use crate::api::Transmit;
use crate::packet::build::{self, FIN, PSH, RST, SYN};

impl Connection {
    /// Whether a segment without payload is due.
    pub(crate) fn has_control(&self) -> bool {
        self.due.syn || self.due.ack || self.due.duplicates > 0 || self.due.probe || self.due.reset
    }

    /// Whether all segments without payload that are due only acknowledge or probe.
    pub(crate) fn has_only_bare_control(&self) -> bool {
        !self.due.syn && !self.due.reset
    }

    /// The next segment without payload.
    pub(crate) fn poll_control(&mut self, now: Instant) -> Option<Transmit> {
        let due = std::mem::take(&mut self.due);
        if due.reset {
            return Some(self.build(self.send.control_sequence(), RST, Bytes::new()));
        }
        if due.syn {
            return Some(self.build_syn(now));
        }
        if due.ack || due.duplicates > 0 {
            // A probe does not replace it: the peer ignores the acknowledgment of a segment out of its window.
            self.due.probe = due.probe;
            self.due.duplicates = due.duplicates.saturating_sub(u8::from(!due.ack));
            return Some(self.build(self.send.control_sequence(), 0, Bytes::new()));
        }
        due.probe.then(|| self.build(self.send.probe_sequence(), 0, Bytes::new()))
    }

    /// The answer to a keepalive.
    pub(crate) fn standby(&mut self) -> Option<Transmit> {
        self.state.is_synchronized().then(|| self.build(self.send.control_sequence(), 0, Bytes::new()))
    }

    /// Whether a segment with payload or FIN can be sent.
    pub(crate) fn has_segment(&self) -> bool {
        self.state.is_synchronized() && self.send.is_ready()
    }

    /// The next segment with payload or FIN, in a packet of at most `largest` bytes.
    pub(crate) fn poll_segment(&mut self, largest: u16, now: Instant) -> Option<Transmit> {
        if !self.has_segment() {
            return None;
        }
        let had_room = self.downlink_room() > 0;
        let sequence = self.send.sequence();
        let most = usize::from(max_mss(largest, self.endpoints.server.is_ipv4()));
        let (payload, fin) = self.send.segment(most, now)?;
        let push = if self.send.is_waiting() { 0 } else { PSH };
        let flags = push | if fin { FIN } else { 0 };
        if self.send.fin_sent() {
            self.set_state(self.state.fin_sent());
        }
        if !matches!(self.timer, Timer::Retransmit { .. }) {
            self.arm_retransmit(0, now);
        }
        self.due.ack = false;
        self.actions.service |= !had_room && self.downlink_room() > 0 && self.has_socket;
        let segment = self.build(sequence, flags, payload);
        self.reset_if_all_sent();
        Some(segment)
    }

    fn build(&mut self, sequence: u32, flags: u8, payload: Bytes) -> Transmit {
        let segment = build::Segment {
            sequence,
            acknowledgment: Some(self.receive.acknowledgment()),
            flags,
            window: if flags & RST != 0 { 0 } else { self.receive.window(false) },
            mss: None,
            window_scale: None,
        };
        build::tcp(self.endpoints.server, self.endpoints.client, &segment, payload)
    }

    fn build_syn(&mut self, now: Instant) -> Transmit {
        self.send.syn_sent(now);
        let segment = build::Segment {
            sequence: self.send.initial(),
            acknowledgment: Some(self.receive.acknowledgment()),
            flags: SYN,
            window: self.receive.window(true),
            mss: Some(max_mss(self.mtu, self.endpoints.server.is_ipv4())),
            window_scale: self.peer_shift.map(|_| SHIFT),
        };
        build::tcp(self.endpoints.server, self.endpoints.client, &segment, Bytes::new())
    }
}
