//! The engine's UDP, ICMP, and DNS to its own address: looks up or opens the flow of a packet from the codespace, and
//! passes socket events to their flow.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::admission::{Admitted, Destination};
use super::api::{Command, FlowId, QueryId, Unreachable, UnreachableKind};
use super::flow::{Entry, Flow, Key};
use super::packet::icmp::Message;
use super::packet::{Malformed, Packet, build};
use super::peers::Peer;
use super::policy::RuleId;
use super::{Engine, ORDINARY_HOPS, Protocol, dns, icmp, packet, udp};

/// The hop limit of ordinary packets.
const DEFAULT_HOPS: u8 = 64;

impl Engine {
    pub(super) fn handle_udp(&mut self, packet: Packet, now: Instant) -> Result<(), Malformed> {
        let datagram = udp::Datagram::parse(&packet)?;
        let client = SocketAddr::new(packet.source, datagram.source_port);
        let destination = SocketAddr::new(packet.destination, datagram.destination_port);
        if self.is_resolver(destination) {
            self.handle_query(client, destination, datagram.payload, now);
            return Ok(());
        }
        let Some(admitted) = self.admit(&packet, Protocol::Udp, client, destination, now) else {
            return Ok(());
        };
        let Admitted { destination: actual, interface, rule, names } = admitted;
        let key = Key::Udp { client, interface };
        let v6 = client.is_ipv6();
        let open = |flow| Command::OpenUdp { flow, v6, interface };
        let new = || Flow::Udp(udp::Mapping::new(client, now));
        let Some(flow) = self.find_or_open(key, new, open, (destination.ip(), rule), now) else {
            return Ok(());
        };
        let payload = datagram.payload;
        if let Some(Entry { flow: Flow::Udp(mapping), usage, names: kept, charged, .. }) =
            self.table.get_mut(flow)
        {
            let most = self.budget.peers(*charged);
            kept.keep(destination, &names);
            let added = mapping.sends(
                Peer { asked: destination, actual: actual.address() },
                rule,
                payload.len(),
                most,
                now,
            );
            usage.uplink(payload.len(), now);
            if destination.port() != dns::PORT {
                self.active = Some(now);
            }
            self.counters.bounds.destinations += u64::from(added.forgotten.is_some());
            self.tell_added(flow, added);
        }
        let hop_limit = onward(packet.hop_limit);
        self.commands.push_back(match actual {
            Destination::Host(destination) => Command::SendUdp { flow, destination, hop_limit, payload },
            Destination::Laptop(destination) => Command::SendToLaptop { flow, destination, payload },
        });
        self.settle(flow, now);
        Ok(())
    }

    fn handle_query(&mut self, client: SocketAddr, server: SocketAddr, message: Bytes, now: Instant) {
        if message.len() > dns::MAX_QUESTION {
            self.counters.dropped += 1;
            self.counters.bounds.questions += 1;
            return;
        }
        let (query, gave_way) = self.queries.add(dns::Endpoints { client, server }, now);
        self.counters.dropped += u64::from(gave_way.is_some());
        self.counters.bounds.questions += u64::from(gave_way.is_some());
        self.commands.extend(gave_way.map(Command::Forget));
        // It waits for its answer: a slice would pin the whole buffer of the link meanwhile.
        let message = Bytes::copy_from_slice(&message);
        self.commands.push_back(Command::Resolve { query, message });
    }

    /// The resolver's answer to a [`Command::Resolve`], made to fit the query's UDP size.
    pub fn handle_dns_answer(&mut self, query: QueryId, message: Bytes) {
        if let Some(endpoints) = self.queries.remove(query) {
            let id = self.next_datagram_id();
            self.send_urgent(build::udp(endpoints.server, endpoints.client, id, message));
        }
    }

    /// The laptop's resolver has given the codespace an answer: `names` are the name that was asked for and the aliases
    /// that led on from there, each in lower case without a trailing dot; `addresses` are what they resolved to, each
    /// with its TTL.
    pub fn handle_names(&mut self, names: &[String], addresses: &[(IpAddr, Duration)], now: Instant) {
        self.names.learn_answer(names, addresses, &*self.config.policy, now);
    }

    /// The names that a new flow to `address` is judged by, the one that was asked for last first.
    pub fn names_of(&mut self, address: IpAddr, now: Instant) -> Vec<String> {
        self.names.of(address, now).to_vec()
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
        (destination, rule): (IpAddr, RuleId),
        now: Instant,
    ) -> Option<FlowId> {
        if let Some(flow) = self.table.find(&key) {
            return Some(flow);
        }
        if !self.make_room(&key, now) {
            return None;
        }
        let flow = self.table.insert(key, new(), destination, rule, now);
        self.commands.push_back(open(flow));
        Some(flow)
    }

    /// A datagram arrived at a mapping's UDP socket.
    pub fn handle_datagram(&mut self, flow: FlowId, source: SocketAddr, payload: Bytes, now: Instant) {
        let id = self.next_datagram_id();
        let Some(Entry { flow: Flow::Udp(mapping), usage, charged, .. }) = self.table.get_mut(flow) else {
            return;
        };
        let most = self.budget.queue(*charged);
        let Some(source) = mapping.receives(source, payload.len(), now) else { return };
        usage.downlink(payload.len(), now);
        if source.port() != dns::PORT {
            self.active = Some(now);
        }
        let is_up = self.link.is_up();
        let queued = is_up
            && build::udp(source, mapping.client, id, payload).is_some_and(|p| mapping.queue.push(p, most));
        self.counters.dropped += u64::from(!queued);
        self.counters.bounds.datagrams += u64::from(is_up && !queued);
        self.table.answered(flow);
        self.settle(flow, now);
    }

    pub(super) fn handle_icmp(&mut self, packet: Packet, now: Instant) -> Result<(), Malformed> {
        let Some(request) = icmp::Request::parse(&packet)? else { return Ok(()) };
        let (client, identifier) = (packet.source, request.identifier);
        if self.is_gateway(packet.destination) {
            let header = packet::icmp::echo_header(false, client.is_ipv6(), identifier, request.sequence);
            let id = self.next_datagram_id();
            self.send_urgent(build::icmp(packet.destination, client, id, header, request.payload));
            return Ok(());
        }
        let asked = SocketAddr::new(packet.destination, 0);
        let sender = SocketAddr::new(client, identifier);
        let Some(admitted) = self.admit(&packet, Protocol::Echo, sender, asked, now) else { return Ok(()) };
        let Admitted { destination: actual, interface, rule, names } = admitted;
        let actual = actual.address();
        let key = Key::Echo { client, identifier, interface };
        let open = |flow| Command::OpenEcho { flow, v6: client.is_ipv6(), interface };
        let new = || Flow::Echo(icmp::Session::new(client, identifier, now));
        let Some(flow) = self.find_or_open(key, new, open, (asked.ip(), rule), now) else { return Ok(()) };
        if let Some(Entry { flow: Flow::Echo(session), usage, names: kept, charged, .. }) =
            self.table.get_mut(flow)
        {
            let most = self.budget.peers(*charged);
            kept.keep(asked, &names);
            let peer = Peer { asked, actual: SocketAddr::new(actual.ip(), 0) };
            let added = session.peers.add(peer, rule, request.payload.len(), most);
            session.touch(now);
            usage.uplink(request.payload.len(), now);
            self.counters.bounds.destinations += u64::from(added.forgotten.is_some());
            self.tell_added(flow, added);
        }
        self.commands.push_back(Command::SendEcho {
            flow,
            destination: actual.ip(),
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
        let Some(Entry { flow: Flow::Echo(session), usage, charged, .. }) = self.table.get_mut(flow) else {
            return;
        };
        let most = self.budget.queue(*charged);
        let Some(source) = session.peers.receives(SocketAddr::new(source, 0), payload.len()) else { return };
        let source = source.ip();
        session.touch(now);
        session.answered = true;
        usage.downlink(payload.len(), now);
        let header = packet::icmp::echo_header(false, source.is_ipv6(), session.identifier, sequence);
        let is_up = self.link.is_up();
        let reply = build::icmp(source, session.client, id, header, payload);
        let queued = is_up && reply.is_some_and(|reply| session.queue.push(reply, most));
        self.counters.dropped += u64::from(!queued);
        self.counters.bounds.datagrams += u64::from(is_up && !queued);
        self.table.answered(flow);
        self.settle(flow, now);
    }

    /// A packet of a UDP or echo flow was not delivered.
    pub fn handle_unreachable(&mut self, flow: FlowId, error: Unreachable) {
        let Some(entry) = self.table.get(flow) else { return };
        let peers = match &entry.flow {
            Flow::Udp(mapping) => &mapping.peers,
            Flow::Echo(session) => &session.peers,
            Flow::Tcp(_) => return,
        };
        let Some(destination) = peers.asked(error.destination) else { return };
        let message = Message::Unreachable(error.kind);
        let gateway = self.gateway(destination.ip());
        let offender = match (error.offender, error.kind) {
            (Some(offender), _) if offender == error.destination.ip() => destination.ip(),
            (Some(offender), _) => offender,
            (None, UnreachableKind::Port) => destination.ip(),
            (
                None,
                UnreachableKind::Network
                | UnreachableKind::Host
                | UnreachableKind::Prohibited
                | UnreachableKind::TimeExceeded
                | UnreachableKind::TooBig { .. },
            ) => gateway,
        };
        let packet = match &entry.flow {
            Flow::Udp(mapping) => packet::icmp::about_udp(mapping.client, destination, offender, message),
            Flow::Echo(session) => packet::icmp::about_echo(
                session.client,
                destination.ip(),
                session.identifier,
                error.sequence.unwrap_or(0),
                offender,
                message,
            ),
            Flow::Tcp(_) => None,
        };
        self.send_urgent(packet);
    }
}

/// The hop limit that a packet is sent on with. Ordinary packets get the default, so that no socket option has to be
/// set; the probes of a traceroute get one less than they came with.
fn onward(hop_limit: u8) -> u8 {
    if hop_limit < ORDINARY_HOPS { hop_limit.saturating_sub(1) } else { DEFAULT_HOPS }
}
