//! The engine: whole IP packets on one side, the user's sockets on the other.
//!
//! It is pure. It holds no socket, no clock, no task: `now` is a parameter, packets and socket events come
//! in by `handle_*`, packets and socket commands go out by `poll_*`. [`crate::io`] alone drives it:
//!
//! - [`Engine::handle_packet`] for each packet that came over the link (uplink).
//! - [`Engine::poll_command`] until it is empty, carrying each command out.
//! - [`Engine::poll_transmit`] while the link takes more, writing each packet to it (downlink).
//! - [`Engine::poll_timeout`] says when [`Engine::handle_timeout`] wants to be called.
//!
//! The payload of TCP is pulled, not pushed, so that back pressure needs no queue. On
//! [`Command::Service`], and whenever the flow's socket becomes readable or writable, io *serves* the flow:
//!
//! 1. While the socket is writable and [`Engine::uplink`] gives bytes: write them, and say how many the
//!    socket took with [`Engine::handle_accepted`]. When there are none and [`Engine::uplink_ended`] says
//!    so, shut the socket's writing down, once.
//! 2. While the socket is readable and [`Engine::downlink_room`] is not 0: read at most that many bytes and
//!    hand them over with [`Engine::handle_data`]; an end of file is [`Engine::handle_end`], an error
//!    [`Engine::handle_failed`].
//!
//! A [`FlowId`] may be stale (the flow ended while an event was under way): every call with one does nothing.

mod api;
mod datagrams;
mod deadline;
mod dns;
mod flow;
mod icmp;
pub(crate) mod packet;
mod schedule;
mod streams;
mod tcp;
mod udp;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;
use etherparse::IpNumber;
use gh_net_common::frame::HEADER_LEN;
use gh_net_common::window::Window;

pub use self::api::{
    Command, Config, ConnectError, Counters, FlowId, Headers, QueryId, Target, Transmit, Unreachable,
    UnreachableKind,
};
use self::deadline::Deadlines;
use self::flow::{Flow, Table};
use self::packet::icmp::{Message, is_unicast};
use self::packet::reassembly::Reassembly;
use self::packet::{Malformed, Packet};
use self::schedule::Schedule;
use crate::policy::{InterfaceIndex, Policy, Protocol, Refusal, Verdict};

/// Small packets (resets, errors, answers of the engine itself) that may wait for the link, in bytes.
const MAX_URGENT: usize = 1024 * 1024;
/// A hop limit from which on a packet is an ordinary one, and not the probe of a traceroute.
const ORDINARY_HOPS: u8 = 33;

/// See the [module's documentation](self).
#[derive(Debug)]
pub struct Engine {
    config: Config,
    table: Table,
    deadlines: Deadlines,
    schedule: Schedule,
    reassembly: Reassembly,
    queries: dns::Queries,
    window: Window,
    linked: bool,
    commands: VecDeque<Command>,
    urgent: VecDeque<Transmit>,
    urgent_bytes: usize,
    controls: VecDeque<FlowId>,
    counters: Counters,
    datagram_id: u16,
}

impl Engine {
    /// An engine without flows. It has a link from the start.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            table: Table::default(),
            deadlines: Deadlines::default(),
            schedule: Schedule::default(),
            reassembly: Reassembly::default(),
            queries: dns::Queries::default(),
            window: Window::default(),
            linked: true,
            commands: VecDeque::new(),
            urgent: VecDeque::new(),
            urgent_bytes: 0,
            controls: VecDeque::new(),
            counters: Counters::default(),
            datagram_id: 0,
        }
    }

    /// What has passed so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// How many flows of all kinds are known, finished ones that are remembered included.
    pub fn flows(&self) -> usize {
        self.table.len()
    }

    /// The laptop's networks, or the user's rules, changed. Flows that exist go on.
    pub fn set_policy(&mut self, policy: Policy) {
        self.config.policy = policy;
    }

    // ---- the link -----------------------------------------------------------------------------------

    /// The sidecar reports how many bytes of packet frames it has taken off this link.
    pub fn handle_delivered(&mut self, total: u64, now: Instant) {
        self.window.delivered(total, now);
    }

    /// A ping over the link came back.
    pub fn handle_round_trip(&mut self, trip: Duration, now: Instant) {
        self.window.measured(trip, now);
    }

    /// A (new) link is there: counts start at 0, what was under way on the old one is sent again.
    pub fn handle_link_up(&mut self, now: Instant) {
        self.window = Window::default();
        self.linked = true;
        for id in self.table.ids() {
            if let Some(entry) = self.table.get_mut(id) {
                entry.last_sent = 0;
                if let Flow::Tcp(connection) = &mut entry.flow {
                    connection.handle_link_up(now);
                }
            }
            self.settle(id, now);
        }
    }

    /// The link is gone; nothing is transmitted until the next one.
    pub fn handle_link_down(&mut self) {
        self.linked = false;
        self.urgent.clear();
        self.urgent_bytes = 0;
    }

    /// The next packet for the link, if the link's window has room. Small packets of the engine's own and
    /// segments without payload do not wait for room: they are few, and bounded by what came in.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Transmit> {
        if !self.linked {
            return None;
        }
        let packet = self
            .poll_urgent()
            .or_else(|| self.poll_control(now))
            .or_else(|| if self.window.is_open() { self.poll_scheduled(now) } else { None })?;
        self.window.sent((packet.len() + HEADER_LEN) as u64, now);
        self.counters.downlink_packets += 1;
        Some(packet)
    }

    fn poll_urgent(&mut self) -> Option<Transmit> {
        let packet = self.urgent.pop_front()?;
        self.urgent_bytes -= packet.len();
        Some(packet)
    }

    fn poll_control(&mut self, now: Instant) -> Option<Transmit> {
        while let Some(id) = self.controls.pop_front() {
            let Some(entry) = self.table.get_mut(id) else { continue };
            entry.control_listed = false;
            let Flow::Tcp(connection) = &mut entry.flow else { continue };
            let segment = connection.poll_control(now);
            self.settle(id, now);
            if segment.is_some() {
                return segment;
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
            let Some(packet) = entry.poll(now) else { continue };
            Schedule::sent(&mut entry.standing, packet.len());
            entry.last_sent = self.window.total_sent() + (packet.len() + HEADER_LEN) as u64;
            self.settle(candidate.flow, now);
            return Some(packet);
        }
        None
    }

    // ---- packets from the codespace -----------------------------------------------------------------

    /// A packet came over the link.
    pub fn handle_packet(&mut self, packet: Bytes, now: Instant) {
        self.counters.uplink_packets += 1;
        if let Err(malformed) = self.try_packet(packet, now) {
            tracing::trace!(%malformed, "packet dropped");
            self.counters.malformed += 1;
        }
    }

    fn try_packet(&mut self, packet: Bytes, now: Instant) -> Result<(), Malformed> {
        let mut packet = Packet::parse(packet)?;
        if !is_unicast(packet.source) || packet.source.is_loopback() {
            return Err(Malformed::Ip);
        }
        if packet.hop_limit <= 1 && !self.is_gateway(packet.destination) {
            self.answer(&packet, Message::Unreachable(UnreachableKind::TimeExceeded));
            return Ok(());
        }
        if let Some(fragment) = packet.fragment {
            match self.reassembly.add(packet, fragment, now) {
                Some(whole) => packet = whole,
                None => return Ok(()),
            }
        }
        match packet.protocol {
            IpNumber::TCP => self.handle_tcp(packet, now)?,
            IpNumber::UDP => self.handle_udp(packet, now)?,
            IpNumber::ICMP | IpNumber::IPV6_ICMP => self.handle_icmp(packet, now)?,
            _ => {
                self.counters.unsupported += 1;
                self.answer(&packet, Message::Protocol);
            }
        }
        Ok(())
    }

    fn is_gateway(&self, address: IpAddr) -> bool {
        self.config.gateways.contains(&address)
    }

    /// The engine's own address in the family of `address`.
    fn gateway(&self, address: IpAddr) -> IpAddr {
        let same = |gateway: &&IpAddr| gateway.is_ipv4() == address.is_ipv4();
        self.config.gateways.iter().find(same).copied().unwrap_or(address)
    }

    /// Answers a packet with an ICMP error from the engine's own address.
    fn answer(&mut self, packet: &Packet, message: Message) {
        let offender = self.gateway(packet.source);
        self.send_urgent(packet::icmp::about(packet, offender, message));
    }

    fn send_urgent(&mut self, packet: Option<Transmit>) {
        let Some(packet) = packet else { return };
        if !self.linked || self.urgent_bytes + packet.len() > MAX_URGENT {
            self.counters.dropped += 1;
            return;
        }
        self.urgent_bytes += packet.len();
        self.urgent.push_back(packet);
    }

    /// Asks the policy about a new flow, and answers the packet if it refuses.
    fn admit(&mut self, packet: &Packet, protocol: Protocol, port: u16) -> Option<Option<InterfaceIndex>> {
        let refusal = match self.config.policy.verdict(protocol, SocketAddr::new(packet.destination, port)) {
            Verdict::Forward { interface } => return Some(interface),
            Verdict::Refuse(refusal) => refusal,
        };
        self.counters.refused += 1;
        match refusal {
            Refusal::NoRoute => self.answer(packet, Message::Unreachable(UnreachableKind::Network)),
            Refusal::Prohibited => self.answer(packet, Message::Unreachable(UnreachableKind::Prohibited)),
            Refusal::Silent => {}
        }
        None
    }

    // ---- commands, time, and the lists --------------------------------------------------------------

    /// The next thing to do.
    pub fn poll_command(&mut self) -> Option<Command> {
        let command = self.commands.pop_front()?;
        if let Command::Service(flow) = command
            && let Some(entry) = self.table.get_mut(flow)
        {
            entry.service_listed = false;
        }
        Some(command)
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.first()
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(id) = self.deadlines.pop(now) {
            let Some(entry) = self.table.get_mut(id) else { continue };
            entry.registered = None;
            match &mut entry.flow {
                // Without a link nothing can be answered; the next link starts all timers anew.
                Flow::Tcp(_) if !self.linked => continue,
                Flow::Tcp(connection) => {
                    connection.handle_timeout(now, self.window.has_delivered(entry.last_sent));
                }
                Flow::Udp(_) | Flow::Echo(_) => {
                    if entry.deadline().is_some_and(|at| at <= now) {
                        self.commands.push_back(Command::Close(id));
                        self.remove(id);
                        continue;
                    }
                }
            }
            self.settle(id, now);
        }
    }

    /// After anything happened to a flow: puts it on the lists it now belongs on.
    fn settle(&mut self, id: FlowId, now: Instant) {
        let Some(entry) = self.table.get_mut(id) else { return };
        let mut resting = false;
        if let Flow::Tcp(connection) = &mut entry.flow {
            let wishes = connection.take_wishes();
            if wishes.service && !std::mem::replace(&mut entry.service_listed, true) {
                self.commands.push_back(Command::Service(id));
            }
            if wishes.abort {
                self.commands.push_back(Command::Abort(id));
            }
            if wishes.close {
                self.commands.push_back(Command::Close(id));
            }
            if connection.is_closed() {
                self.remove(id);
                return;
            }
            if connection.has_control() && !std::mem::replace(&mut entry.control_listed, true) {
                self.controls.push_back(id);
            }
            connection.persist_if_stuck(now);
            resting = connection.is_expendable();
        }
        if entry.is_ready() {
            self.schedule.add(id, &mut entry.standing);
        }
        let deadline = entry.deadline();
        self.deadlines.register(id, &mut entry.registered, deadline);
        if resting && let Some(oldest) = self.table.rest(id) {
            self.remove(oldest);
        }
    }

    fn remove(&mut self, id: FlowId) {
        if let Some(mut entry) = self.table.remove(id) {
            self.deadlines.forget(id, &mut entry.registered);
        }
    }
}

#[cfg(test)]
mod tests;
