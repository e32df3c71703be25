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
mod deadline;
mod dns;
mod flow;
mod icmp;
pub(crate) mod packet;
mod schedule;
mod tcp;
mod udp;

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::IoSlice;
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
use self::flow::{Entry, Flow, Key, Table};
use self::packet::icmp::{Message, is_unicast};
use self::packet::reassembly::Reassembly;
use self::packet::{Malformed, Packet, build};
use self::schedule::Schedule;
use self::tcp::{Connection, Segment, Shares};
use crate::policy::{InterfaceIndex, Policy, Protocol, Refusal, Verdict};

/// What all connections together may hold for the hosts' sockets, and as much again for the codespace, in
/// bytes. Those that are there already keep the larger shares they had, so it comes to several times that.
const BUDGET: usize = 128 * 1024 * 1024;
/// The share of one connection at least, in bytes: one of the largest segments.
const MIN_SHARE: usize = 64 * 1024;
/// The share of one connection at most, for the host's socket.
const MAX_UPLINK_SHARE: usize = 4 * 1024 * 1024;
/// The same for the codespace: a second's worth at 128 Mbit/s, which the link may well hold.
const MAX_DOWNLINK_SHARE: usize = 16 * 1024 * 1024;
/// Small packets (resets, errors, answers of the engine itself) that may wait for the link, in bytes.
const MAX_URGENT: usize = 1024 * 1024;
/// A hop limit from which on a packet is an ordinary one, and not the probe of a traceroute.
const ORDINARY_HOPS: u8 = 33;
/// The hop limit of ordinary packets.
const DEFAULT_HOPS: u8 = 64;

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

    // ---- TCP ----------------------------------------------------------------------------------------

    fn handle_tcp(&mut self, packet: Packet, now: Instant) -> Result<(), Malformed> {
        let segment = Segment::parse(&packet)?;
        let client = SocketAddr::new(packet.source, segment.source_port);
        let server = SocketAddr::new(packet.destination, segment.destination_port);
        let key = Key::Tcp { client, server };
        if let Some(id) = self.table.find(&key)
            && let Some(connection) = self.table.connection_mut(id)
        {
            if !connection.gives_way_to(&segment) {
                connection.handle_segment(segment, now);
                self.settle(id, now);
                return Ok(());
            }
            if connection.is_draining() {
                // Its bytes were acknowledged: it lives on behind the new one until the server has them.
                connection.leave(now);
                self.settle(id, now);
                self.table.detach(id);
            } else {
                connection.reset();
                self.settle(id, now);
                self.remove(id);
            }
        }
        if segment.is_opening() {
            self.open_tcp(&packet, key, &segment, now);
        } else {
            self.send_urgent(tcp::refusal(&packet, &segment));
        }
        Ok(())
    }

    fn open_tcp(&mut self, packet: &Packet, key: Key, segment: &Segment, now: Instant) {
        let Key::Tcp { client, server } = key else { return };
        let target = if self.is_gateway(server.ip()) {
            if server.port() != dns::PORT {
                return self.send_urgent(tcp::refusal(packet, segment));
            }
            Target::Resolver
        } else {
            let Some(interface) = self.admit(packet, Protocol::Tcp, server.port()) else { return };
            Target::Host { address: server, interface }
        };
        if !self.table.has_room(&key) {
            self.counters.dropped += 1;
            return;
        }
        let initial = self.initial_sequence(&key);
        let shares = self.shares();
        let connection = Connection::new(client, server, segment, initial, self.config.mtu, shares, now);
        let flow = self.table.insert(key, Flow::Tcp(Box::new(connection)));
        self.counters.connections += 1;
        let hop_limit = (packet.hop_limit < ORDINARY_HOPS).then(|| packet.hop_limit.saturating_sub(1));
        self.commands.push_back(Command::Connect { flow, target, hop_limit });
    }

    /// RFC 6528: unpredictable without the secret, and increasing for the same pair of endpoints.
    fn initial_sequence(&self, key: &Key) -> u32 {
        let mut hasher = DefaultHasher::new();
        (self.config.secret, key).hash(&mut hasher);
        // Each connection moves the start on, as the RFC's clock does.
        (hasher.finish() as u32).wrapping_add((self.counters.connections as u32).wrapping_mul(64 * 1024))
    }

    /// What one of the connections may hold. However many there are, and whether or not the codespace ever
    /// acknowledges anything, all together hold some hundreds of megabytes at most.
    fn shares(&self) -> Shares {
        let share = BUDGET / (self.table.connections() + 1);
        Shares {
            uplink: share.clamp(MIN_SHARE, MAX_UPLINK_SHARE),
            downlink: share.clamp(MIN_SHARE, MAX_DOWNLINK_SHARE),
        }
    }

    /// The flow's socket is connected.
    pub fn handle_connected(&mut self, flow: FlowId, now: Instant) {
        self.with_connection(flow, now, |connection| connection.handle_connected(now));
    }

    /// The flow's socket could not be connected, and io has closed it.
    pub fn handle_connect_failed(&mut self, flow: FlowId, error: ConnectError, now: Instant) {
        let Some(connection) = self.table.connection_mut(flow).filter(|flow| flow.is_connecting()) else {
            return;
        };
        let kind = match error {
            ConnectError::Refused => {
                connection.handle_refused();
                return self.settle(flow, now);
            }
            ConnectError::NetworkUnreachable => Some(UnreachableKind::Network),
            ConnectError::HostUnreachable => Some(UnreachableKind::Host),
            ConnectError::Prohibited => Some(UnreachableKind::Prohibited),
            ConnectError::TimedOut | ConnectError::Local => None,
        };
        let (client, server, quotation) = (connection.client, connection.server, connection.quotation());
        connection.handle_silence();
        self.settle(flow, now);
        if let Some(kind) = kind {
            let offender = self.gateway(client.ip());
            let message = Message::Unreachable(kind);
            let tcp = IpNumber::TCP;
            let error =
                packet::icmp::about_transport(client.ip(), server.ip(), tcp, &quotation, offender, message);
            self.send_urgent(error);
        }
    }

    /// Fills `slices` with the bytes the flow's socket is to be given next; returns how many slices.
    pub fn uplink<'a>(&'a self, flow: FlowId, slices: &mut [IoSlice<'a>]) -> usize {
        self.table.connection(flow).map_or(0, |connection| connection.uplink(slices))
    }

    /// Whether the codespace has sent its FIN and every byte before it has been accepted by the socket.
    pub fn uplink_ended(&self, flow: FlowId) -> bool {
        self.table.connection(flow).is_some_and(Connection::uplink_ended)
    }

    /// The socket accepted the next `count` bytes of [`Self::uplink`].
    pub fn handle_accepted(&mut self, flow: FlowId, count: usize, now: Instant) {
        let shares = self.shares();
        self.with_connection(flow, now, |connection| {
            connection.set_shares(shares);
            connection.handle_accepted(count);
        });
    }

    /// How many bytes the engine would take from the flow's socket now. An end of file or an error may be
    /// reported whatever this says.
    pub fn downlink_room(&self, flow: FlowId) -> usize {
        self.table.connection(flow).map_or(0, Connection::downlink_room)
    }

    /// Bytes read from the flow's socket, at most [`Self::downlink_room`] of them.
    pub fn handle_data(&mut self, flow: FlowId, data: Bytes, now: Instant) {
        let shares = self.shares();
        self.with_connection(flow, now, |connection| {
            connection.set_shares(shares);
            connection.handle_data(data);
        });
    }

    /// The flow's socket has reached the end of file.
    pub fn handle_end(&mut self, flow: FlowId, now: Instant) {
        self.with_connection(flow, now, Connection::handle_end);
    }

    /// The flow's socket failed (was reset, timed out), and io has closed it.
    pub fn handle_failed(&mut self, flow: FlowId, now: Instant) {
        self.with_connection(flow, now, Connection::handle_failed);
    }

    fn with_connection(&mut self, flow: FlowId, now: Instant, act: impl FnOnce(&mut Connection)) {
        if let Some(connection) = self.table.connection_mut(flow) {
            act(connection);
            self.settle(flow, now);
        }
    }

    // ---- UDP and DNS --------------------------------------------------------------------------------

    fn handle_udp(&mut self, packet: Packet, now: Instant) -> Result<(), Malformed> {
        let datagram = udp::Datagram::parse(&packet)?;
        let client = SocketAddr::new(packet.source, datagram.source_port);
        let destination = SocketAddr::new(packet.destination, datagram.destination_port);
        if self.is_gateway(destination.ip()) {
            self.handle_query(&packet, client, destination, datagram.payload, now);
            return Ok(());
        }
        let Some(interface) = self.admit(&packet, Protocol::Udp, destination.port()) else { return Ok(()) };
        let key = Key::Udp { client, interface };
        let v6 = client.is_ipv6();
        let open = |flow| Command::OpenUdp { flow, v6, interface };
        let new = || Flow::Udp(udp::Mapping::new(client, now));
        let Some(flow) = self.find_or_open(key, new, open) else { return Ok(()) };
        if let Some(Entry { flow: Flow::Udp(mapping), .. }) = self.table.get_mut(flow) {
            mapping.sends(destination, now);
        }
        let hop_limit = onward(packet.hop_limit);
        self.commands.push_back(Command::SendUdp { flow, destination, hop_limit, payload: datagram.payload });
        self.settle(flow, now);
        Ok(())
    }

    fn handle_query(
        &mut self,
        packet: &Packet,
        client: SocketAddr,
        server: SocketAddr,
        message: Bytes,
        now: Instant,
    ) {
        if server.port() != dns::PORT {
            return self.answer(packet, Message::Unreachable(UnreachableKind::Port));
        }
        match self.queries.add(dns::Asker { client, server }, now) {
            Some(query) => self.commands.push_back(Command::Resolve { query, message }),
            None => self.counters.dropped += 1,
        }
    }

    /// The resolver's answer to a [`Command::Resolve`], made to fit the query's UDP size.
    pub fn handle_dns_answer(&mut self, query: QueryId, message: Bytes) {
        if let Some(asker) = self.queries.remove(query) {
            let id = self.next_datagram_id();
            self.send_urgent(build::udp(asker.server, asker.client, id, message));
        }
    }

    fn next_datagram_id(&mut self) -> u16 {
        self.datagram_id = self.datagram_id.wrapping_add(1);
        self.datagram_id
    }

    /// The flow under `key`, opened with `command` if it is new and there is room.
    fn find_or_open(
        &mut self,
        key: Key,
        new: impl FnOnce() -> Flow,
        open: impl FnOnce(FlowId) -> Command,
    ) -> Option<FlowId> {
        if let Some(flow) = self.table.find(&key) {
            return Some(flow);
        }
        if !self.table.has_room(&key) {
            self.counters.dropped += 1;
            return None;
        }
        let flow = self.table.insert(key, new());
        self.commands.push_back(open(flow));
        Some(flow)
    }

    /// A datagram arrived at a mapping's UDP socket.
    pub fn handle_datagram(&mut self, flow: FlowId, source: SocketAddr, payload: Bytes, now: Instant) {
        let id = self.next_datagram_id();
        let Some(Entry { flow: Flow::Udp(mapping), .. }) = self.table.get_mut(flow) else { return };
        if !mapping.receives(source, now) {
            return;
        }
        let queued = build::udp(source, mapping.client, id, payload).is_some_and(|p| mapping.queue.push(p));
        self.counters.dropped += u64::from(!queued);
        self.settle(flow, now);
    }

    // ---- ICMP ---------------------------------------------------------------------------------------

    fn handle_icmp(&mut self, packet: Packet, now: Instant) -> Result<(), Malformed> {
        let Some(request) = icmp::Request::parse(&packet)? else { return Ok(()) };
        let (client, identifier) = (packet.source, request.identifier);
        if self.is_gateway(packet.destination) {
            let header = packet::icmp::echo_header(false, client.is_ipv6(), identifier, request.sequence);
            let id = self.next_datagram_id();
            self.send_urgent(build::icmp(packet.destination, client, id, header, request.payload));
            return Ok(());
        }
        let Some(interface) = self.admit(&packet, Protocol::Echo, 0) else { return Ok(()) };
        let key = Key::Echo { client, identifier, interface };
        let open = |flow| Command::OpenEcho { flow, v6: client.is_ipv6(), interface };
        let new = || Flow::Echo(icmp::Session::new(client, identifier, now));
        let Some(flow) = self.find_or_open(key, new, open) else { return Ok(()) };
        if let Some(Entry { flow: Flow::Echo(session), .. }) = self.table.get_mut(flow) {
            session.touch(now);
        }
        self.commands.push_back(Command::SendEcho {
            flow,
            destination: packet.destination,
            sequence: request.sequence,
            hop_limit: onward(packet.hop_limit),
            payload: request.payload,
        });
        self.settle(flow, now);
        Ok(())
    }

    /// An echo reply arrived at an echo socket.
    pub fn handle_echo_reply(
        &mut self,
        flow: FlowId,
        source: IpAddr,
        sequence: u16,
        payload: Bytes,
        now: Instant,
    ) {
        let id = self.next_datagram_id();
        let Some(Entry { flow: Flow::Echo(session), .. }) = self.table.get_mut(flow) else { return };
        session.touch(now);
        let header = packet::icmp::echo_header(false, source.is_ipv6(), session.identifier, sequence);
        let reply = build::icmp(source, session.client, id, header, payload);
        let queued = reply.is_some_and(|reply| session.queue.push(reply));
        self.counters.dropped += u64::from(!queued);
        self.settle(flow, now);
    }

    /// Something a UDP or echo flow sent did not arrive.
    pub fn handle_unreachable(&mut self, flow: FlowId, error: Unreachable) {
        let Some(entry) = self.table.get(flow) else { return };
        let message = Message::Unreachable(error.kind);
        let gateway = self.gateway(error.destination.ip());
        let offender = error.offender.unwrap_or(match error.kind {
            UnreachableKind::Port => error.destination.ip(),
            UnreachableKind::Network
            | UnreachableKind::Host
            | UnreachableKind::Prohibited
            | UnreachableKind::TimeExceeded
            | UnreachableKind::TooBig { .. } => gateway,
        });
        let packet = match &entry.flow {
            Flow::Udp(mapping) => {
                packet::icmp::about_udp(mapping.client, error.destination, offender, message)
            }
            Flow::Echo(session) => packet::icmp::about_echo(
                session.client,
                error.destination.ip(),
                session.identifier,
                error.sequence.unwrap_or(0),
                offender,
                message,
            ),
            Flow::Tcp(_) => None,
        };
        self.send_urgent(packet);
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

/// The hop limit a packet leaves the laptop with. Ordinary packets leave with the ordinary one, so that
/// sockets need no option set; the probes of a traceroute with one less than they came with.
fn onward(hop_limit: u8) -> u8 {
    if hop_limit < ORDINARY_HOPS { hop_limit.saturating_sub(1) } else { DEFAULT_HOPS }
}

#[cfg(test)]
mod tests;
