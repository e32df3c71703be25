//! The engine's side of the link: what is sent next, and how much of it has been delivered.
//!
//! How much may be under way on a link is decided by the driver, which says with each
//! [`Engine::poll_transmit`] whether there is room for bulk. The engine counts only what TCP's timers need: whether
//! what a flow sent has been delivered.
//!
//! A session outlives its links. While there is none, all timers of flows stand still: a peer that can't be reached
//! has not failed to answer. On the next link every deadline is later by the time without one, and every TCP
//! connection at once sends what makes the codespace's kernel continue (see `Connection::handle_link_up`). Until then,
//! data from host sockets is bounded: sockets are not read once TCP's send buffers are full; datagrams are dropped,
//! because stale ones are useless and would only delay later packets.

pub(super) mod state;

use std::time::Instant;

use self::state::Link;
use super::api::Transmit;
use super::deadline::Pause;
use super::flow::{Entry, Flow};
use super::{Engine, icmp, queue, udp};

impl Engine {
    /// The sidecar reports how many bytes of packet frames it has taken off this link. The count is clamped: it
    /// never decreases, and never exceeds what was sent.
    pub fn handle_delivered(&mut self, total: u64) {
        self.link.delivered = total.clamp(self.link.delivered, self.link.sent);
    }

    /// A (new) link is there: counts start at 0, what was under way on the old one is sent again, and timers go on.
    pub fn handle_link_up(&mut self, now: Instant) {
        let down_since = self.link.down_since.unwrap_or(now);
        self.active.get_or_insert(now);
        self.exchange = Some(now);
        self.link = Link::default();
        let pause = Pause { from: down_since, to: now };
        self.names.resume(pause);
        for id in self.table.ids() {
            if let Some(entry) = self.table.get_mut(id) {
                entry.last_sent = 0;
                entry.held_since = entry.held_since.map(|since| pause.shift(since));
                self.deadlines.forget(id, &mut entry.registered);
                match &mut entry.flow {
                    Flow::Tcp(connection) => connection.handle_link_up(pause),
                    Flow::Udp(mapping) => mapping.resume(pause),
                    Flow::Echo(session) => session.resume(pause),
                }
            }
            self.settle(id, now);
        }
    }

    /// The link is gone. Nothing is transmitted and nothing times out until the next one.
    pub fn handle_link_down(&mut self, now: Instant) {
        self.link.down_since.get_or_insert(now);
        self.urgent.clear();
        self.answers.clear();
        self.urgent_bytes = 0;
        for entry in self.table.entries_mut() {
            match &mut entry.flow {
                Flow::Tcp(_) => {}
                Flow::Udp(udp::Mapping { queue, .. }) | Flow::Echo(icmp::Session { queue, .. }) => {
                    self.counters.dropped += queue.clear();
                }
            }
        }
    }

    /// When payload of a TCP connection or UDP mapping last passed in either direction, or the first link came up.
    /// Other packets don't count: keepalives and window probes of TCP, echo requests, ICMP errors, name lookups over
    /// UDP.
    pub fn last_active(&self) -> Option<Instant> {
        self.active
    }

    /// When any packet but a bare acknowledgment of TCP last passed in either direction, or a link came up.
    pub fn last_exchange(&self) -> Option<Instant> {
        self.exchange
    }

    /// The link has become quiet or ceases to be. While it is quiet, keepalives and window probes are put off
    /// until it ends; data that has to be sent ends it.
    pub fn set_quiet(&mut self, quiet: bool, now: Instant) {
        if std::mem::replace(&mut self.link.quiet, quiet) && !quiet {
            for id in self.table.ids() {
                if let Some(Entry { flow: Flow::Tcp(connection), .. }) = self.table.get_mut(id)
                    && connection.end_quiet(now)
                {
                    self.settle(id, now);
                }
            }
        }
    }

    /// The acknowledgments with which connections would answer a keepalive (RFC 9293, 3.8.4), at most `limit` of them.
    /// Somebody nearer to the codespace can give them while the link is quiet.
    pub fn standby(&mut self, limit: usize) -> impl Iterator<Item = Transmit> {
        let acknowledgment = |entry: &mut Entry| match &mut entry.flow {
            Flow::Tcp(connection) => connection.standby(),
            Flow::Udp(_) | Flow::Echo(_) => None,
        };
        self.table.entries_mut().filter_map(acknowledgment).take(limit)
    }

    /// Segments of TCP are not sent in larger packets than this from now on, and that is what a flow sends in its turn: what
    /// is urgent would wait behind more.
    pub fn set_largest_packet(&mut self, bytes: usize) {
        self.largest_packet = u16::try_from(bytes).unwrap_or(u16::MAX);
        self.schedule.set_quantum(usize::from(self.largest_packet).max(1));
    }

    /// The next packet for the link. `bulk` says whether the link's window has room. A bounded number of bytes goes ahead of
    /// everything else, room or not: the engine's own small packets and segments without payload. A program that causes
    /// more of them has them wait: the first in turn with everything else, the others for room. Acknowledgments that wait
    /// become one.
    pub fn poll_transmit(&mut self, bulk: bool, now: Instant) -> Option<Transmit> {
        if !self.link.is_up() {
            return None;
        }
        let packet = self
            .poll_urgent(now)
            .or_else(|| self.poll_control(bulk, now))
            .or_else(|| if bulk { self.poll_bulk(now) } else { None })?;
        self.link.sent = self.link.end_of(&packet);
        self.counters.downlink_packets += 1;
        Some(packet)
    }

    /// One of the engine's own small packets, if it may go ahead.
    fn poll_urgent(&mut self, now: Instant) -> Option<Transmit> {
        if !self.link.urgent.has_room(&self.link) {
            return None;
        }
        let packet = self.take_urgent(now)?;
        let (end, delivered) = (self.link.end_of(&packet), self.link.delivered);
        self.link.urgent.sent(packet.len(), end, delivered);
        Some(packet)
    }

    fn take_urgent(&mut self, now: Instant) -> Option<Transmit> {
        let packet = self.urgent.pop_front()?;
        self.exchange = Some(now);
        self.urgent_bytes -= queue::cost(&packet);
        Some(packet)
    }

    /// A packet of the engine itself or of a flow, in turn.
    fn poll_bulk(&mut self, now: Instant) -> Option<Transmit> {
        if self.answered_last
            && let Some(packet) = self.poll_scheduled(now)
        {
            self.answered_last = false;
            return Some(packet);
        }
        let own = self.take_urgent(now).or_else(|| self.take_answer(now));
        self.answered_last = own.is_some();
        own.or_else(|| self.poll_scheduled(now))
    }

    fn take_answer(&mut self, now: Instant) -> Option<Transmit> {
        let packet = self.answers.pop_front()?;
        self.exchange = Some(now);
        self.urgent_bytes -= queue::cost(&packet);
        Some(packet)
    }

    fn poll_control(&mut self, bulk: bool, now: Instant) -> Option<Transmit> {
        if !bulk && !self.link.control.has_room(&self.link) {
            return None;
        }
        while let Some(id) = self.controls.pop_front() {
            let Some(entry) = self.table.get_mut(id) else { continue };
            entry.control_listed = false;
            let Flow::Tcp(connection) = &mut entry.flow else { continue };
            let is_bare = connection.has_only_bare_control();
            let segment = connection.poll_control(now);
            if segment.is_some() && !is_bare {
                self.exchange = Some(now);
            }
            self.settle(id, now);
            if let Some(segment) = segment {
                let (end, delivered) = (self.link.end_of(&segment), self.link.delivered);
                self.link.control.sent(segment.len(), end, delivered);
                return Some(segment);
            }
        }
        None
    }

    fn poll_scheduled(&mut self, now: Instant) -> Option<Transmit> {
        while let Some(candidate) = self.schedule.candidate() {
            let Some(entry) = self.table.get_mut(candidate.flow) else {
                self.schedule.remove(candidate);
                continue;
            };
            if !entry.is_ready() {
                self.schedule.emptied(candidate, &mut entry.standing);
                continue;
            }
            if !self.schedule.may_send(candidate, &mut entry.standing) {
                continue;
            }
            let Some(packet) = entry.poll(self.largest_packet, now) else { continue };
            self.schedule.sent(candidate, &mut entry.standing, packet.len());
            entry.last_sent = self.link.end_of(&packet);
            self.exchange = Some(now);
            self.settle(candidate.flow, now);
            return Some(packet);
        }
        None
    }
}
