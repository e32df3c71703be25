//! Arbitrary events for the engine that keep connections alive: segments near the right sequence numbers, sockets that
//! take and give, time, cuts of the link.
//!
//! What each side of a connection sends is a function of the position, so that both directions are checked byte by
//! byte: under loss, repetition and reordering, the engine passes on the right bytes in the right order, and sends no
//! byte that it did not receive.

use std::io::IoSlice;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use etherparse::PacketBuilder;
use gh_net_engine::{ConnectError, FlowId, Unreachable, UnreachableKind};
use gh_net_testkit::packet::Packet;

use super::Input;
use super::laptop::{GATEWAYS, Laptop, at_port_0};

/// The connections, told apart by the port in the codespace.
const PORTS: u16 = 4;
const CLIENTS: [&str; 2] = ["198.19.240.1", "fd67:682d:6e65:74::1"];
const SERVERS: [&str; 2] = ["10.20.0.10", "fd00:20::10"];

/// The bytes are a list of events: what happens, and how.
pub fn engine(data: &[u8]) {
    let mut input = Input(data);
    let mut world = World { laptop: Laptop::new(), clients: Default::default() };
    while !input.is_empty() {
        match input.u8() % 10 {
            0..=2 => world.segment(&mut input),
            3 => world.datagram(&mut input),
            4 => world.connected(&mut input),
            5 => world.serve(&mut input),
            6 => world.socket_ends(&mut input),
            7 => world.answer(&mut input),
            8 => world.link(&mut input),
            _ => world.laptop.pass(Duration::from_millis(u64::from(input.u16()))),
        }
        world.laptop.commands();
        world.receive(input.u8().into());
    }
    world.laptop.end();
}

/// The laptop, and the codespace's programs.
struct World {
    laptop: Laptop,
    clients: [Client; PORTS as usize],
}

/// One port of the codespace, and the connection that was last opened from it.
#[derive(Debug, Default)]
struct Client {
    /// The sequence number of its SYN, and the next one to send.
    initial: u32,
    next: u32,
    /// The engine's initial sequence number, once it has sent its SYN.
    theirs: Option<u32>,
    /// The next one expected of the engine.
    expected: u32,
    /// The connection as the engine calls it.
    flow: Option<FlowId>,
    /// How many bytes its socket was given and has given.
    accepted: u32,
    given: u32,
    /// The largest shift of its windows that it may have asked for.
    shift: u8,
    /// The window its SYN gave, and the furthest sequence number that any window of its ever allowed.
    first_window: u16,
    edge: u32,
}

/// The byte at a position of a stream.
fn content(position: u32) -> u8 {
    (position.wrapping_mul(0x9E37_79B1) >> 24) as u8
}

fn stream(from: u32, length: usize) -> Vec<u8> {
    (0..length).map(|offset| content(from.wrapping_add(offset as u32))).collect()
}

/// Whether `a` is behind `b` in sequence space.
fn after(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) > 0
}

impl World {
    /// A segment from the codespace: in order mostly, off by a little now and then.
    fn segment(&mut self, input: &mut Input) {
        let (port, flags) = (u16::from(input.u8()) % PORTS, input.u8());
        let (off, off_ack) = (u32::from(input.u8()), u32::from(input.u8()));
        let (window, length) = (input.u16(), usize::from(input.u16()) % 20_000);
        let (fin, syn, rst, ack) = (flags & 1 != 0, flags & 2 != 0, flags & 4 != 0, flags & 16 != 0);
        let client = &mut self.clients[usize::from(port)];
        if syn && !ack && !rst && off == 0 {
            // A new connection, far from the old one's numbers.
            client.next = client.next.wrapping_add(1 << 28);
        }
        let sequence = client.next.wrapping_sub(off * 16);
        let acknowledged = client.expected.wrapping_add(16).wrapping_sub(off_ack);
        let v6 = port % 2 == 1;
        let mut tcp = ip(v6).tcp(40_000 + port, 443, sequence, window);
        tcp = if ack { tcp.ack(if off_ack == 0 { client.expected } else { acknowledged }) } else { tcp };
        tcp = if syn { tcp.syn() } else { tcp };
        tcp = if fin { tcp.fin() } else { tcp };
        tcp = if rst { tcp.rst() } else { tcp };
        let shift = flags >> 5;
        if syn {
            let options = [2, 4, input.u8(), input.u8(), 3, 3, shift, 0];
            tcp = tcp.options_raw(&options).expect("options of 8 bytes");
        }
        let payload = stream(sequence.wrapping_add(u32::from(syn)), length);
        let mut packet = Vec::new();
        tcp.write(&mut packet, &payload).expect("a packet below 64 KiB");

        if syn {
            client.shift = client.shift.max(shift);
        }
        for base in [client.expected, acknowledged] {
            let edge = base.wrapping_add(u32::from(window) << client.shift);
            client.edge = if after(edge, client.edge) { edge } else { client.edge };
        }
        self.laptop.packet(packet);
        let client = &mut self.clients[usize::from(port)];
        if let Some(flow) = self.laptop.connects.pop() {
            let (initial, next, first_window) = (sequence, sequence, window);
            *client = Client { initial, next, first_window, shift, flow: Some(flow), ..Client::default() };
        }
        let end = sequence.wrapping_add(length as u32 + u32::from(syn) + u32::from(fin));
        client.next = if after(end, client.next) { end } else { client.next };
    }

    /// A UDP datagram, an echo request or a query from the codespace.
    fn datagram(&mut self, input: &mut Input) {
        let (kind, port, length) = (input.u8(), input.u8(), usize::from(input.u16()) % 60_000);
        let v6 = kind & 1 != 0;
        let payload = stream(port.into(), length);
        let mut packet = Vec::new();
        let written = match kind >> 1 & 3 {
            0 => ip(v6).udp(port.into(), 9).write(&mut packet, &payload),
            1 => to(v6, GATEWAYS[usize::from(v6)]).udp(port.into(), 53).write(&mut packet, &payload),
            _ if v6 => ip(v6).icmpv6_echo_request(port.into(), 1).write(&mut packet, &payload),
            _ => ip(v6).icmpv4_echo_request(port.into(), 1).write(&mut packet, &payload),
        };
        written.expect("a packet below 64 KiB");
        self.laptop.packet(packet);
    }

    /// A connection's socket connects, or fails to.
    fn connected(&mut self, input: &mut Input) {
        let (client, how) = (input.u8(), input.u8());
        let Some(flow) = self.clients[usize::from(client) % self.clients.len()].flow else { return };
        let (engine, now) = (&mut self.laptop.engine, self.laptop.now);
        let error = match how {
            1 => ConnectError::Refused,
            2 => ConnectError::NetworkUnreachable,
            3 => ConnectError::HostUnreachable,
            4 => ConnectError::Prohibited,
            5 => ConnectError::TimedOut,
            6 => ConnectError::Local,
            _ => return engine.handle_connected(flow, now),
        };
        engine.handle_connect_failed(flow, error, now);
    }

    /// A connection's socket takes bytes and gives bytes.
    fn serve(&mut self, input: &mut Input) {
        let client = usize::from(input.u8()) % self.clients.len();
        let (takes, gives) = (usize::from(input.u16()), usize::from(input.u16()));
        let client = &mut self.clients[client];
        let Some(flow) = client.flow else { return };
        let (engine, now) = (&mut self.laptop.engine, self.laptop.now);
        let mut slices = [IoSlice::new(&[]); 8];
        let filled = engine.uplink(flow, &mut slices);
        let waiting: Vec<u8> = slices[..filled].iter().flat_map(|slice| slice.iter().copied()).collect();
        let taken = takes.min(waiting.len());
        let position = client.initial.wrapping_add(1).wrapping_add(client.accepted);
        assert_eq!(waiting[..taken], stream(position, taken), "the uplink's bytes");
        if taken > 0 {
            client.accepted = client.accepted.wrapping_add(taken as u32);
            engine.handle_accepted(flow, taken, now);
        }
        let given = gives.min(engine.downlink_room(flow));
        if given > 0 {
            let data = stream(client.given, given);
            client.given = client.given.wrapping_add(given as u32);
            engine.handle_data(flow, data.into(), now);
        }
    }

    /// A connection's socket ends, by an end of file or an error.
    fn socket_ends(&mut self, input: &mut Input) {
        let (client, badly) = (input.u8(), input.u8() & 7 == 7);
        let Some(flow) = self.clients[usize::from(client) % self.clients.len()].flow else { return };
        let (engine, now) = (&mut self.laptop.engine, self.laptop.now);
        if badly { engine.handle_failed(flow, now) } else { engine.handle_end(flow, now) }
    }

    /// An answer to a datagram: from any host, to any flow, including TCP flows and finished ones.
    fn answer(&mut self, input: &mut Input) {
        let (kind, index, length) = (input.u8(), usize::from(input.u8()), input.u16().into());
        let payload = Bytes::from(stream(0, length));
        let source: IpAddr = SERVERS[usize::from(kind & 1)].parse().expect("an address");
        let (engine, now) = (&mut self.laptop.engine, self.laptop.now);
        if kind & 2 != 0 {
            if let Some(query) = self.laptop.queries.pop() {
                engine.handle_dns_answer(query, payload);
            }
            return;
        }
        let Some(flow) = self.laptop.flows.get(index % self.laptop.flows.len().max(1)).copied() else {
            return;
        };
        match kind >> 2 & 3 {
            0 => engine.handle_datagram(flow, SocketAddr::new(source, 9), payload, now),
            1 => engine.handle_echo_reply(flow, source, kind.into(), payload, now),
            _ => {
                let kind = match kind >> 4 & 7 {
                    0 => UnreachableKind::Network,
                    1 => UnreachableKind::Host,
                    2 => UnreachableKind::Port,
                    3 => UnreachableKind::Prohibited,
                    4 => UnreachableKind::TimeExceeded,
                    _ => UnreachableKind::TooBig { mtu: length as u32 },
                };
                let destination = at_port_0(source);
                engine.handle_unreachable(
                    flow,
                    Unreachable { offender: None, destination, sequence: None, kind },
                );
            }
        }
    }

    /// The link breaks, comes back, reports, or is full.
    fn link(&mut self, input: &mut Input) {
        let Laptop { engine, now, bulk, .. } = &mut self.laptop;
        match input.u8() % 4 {
            0 => engine.handle_link_down(*now),
            1 => engine.handle_link_up(*now),
            2 => engine.handle_delivered(u64::from(input.u16()) << 8),
            _ => *bulk = input.u16() & 1 == 0,
        }
    }

    /// The codespace takes so many packets off the link.
    fn receive(&mut self, count: usize) {
        for _ in 0..count {
            let Some(sent) = self.laptop.transmit() else { return };
            self.received(&sent);
        }
    }

    fn received(&mut self, sent: &Packet) {
        let Some(tcp) = sent.tcp() else { return };
        let port = tcp.destination_port().wrapping_sub(40_000);
        let Some(client) = self.clients.get_mut(usize::from(port)) else { return };
        // What is sent to an earlier connection of this port is not followed any more.
        let known = sent.to.is_ipv6() == (port % 2 == 1) && client.flow.is_some() && !tcp.rst();
        if !known {
            return;
        }
        let sequence = tcp.sequence_number();
        if tcp.syn() {
            if client.theirs.is_none() && tcp.acknowledgment_number() == client.initial.wrapping_add(1) {
                client.theirs = Some(sequence);
                client.expected = sequence.wrapping_add(1);
                client.edge = client.expected.wrapping_add(client.first_window.into());
            }
            return;
        }
        let Some(theirs) = client.theirs else { return };
        let position = sequence.wrapping_sub(theirs).wrapping_sub(1);
        let length = tcp.payload().len();
        if length > 0 {
            assert_eq!(tcp.payload(), stream(position, length), "the downlink's bytes");
            let end = sequence.wrapping_add(length as u32);
            assert!(position.wrapping_add(length as u32) <= client.given, "bytes that no socket gave");
            // One byte beyond the window is a probe of it (RFC 9293, 3.8.6.1).
            assert!(
                !after(end, client.edge.wrapping_add(1)),
                "{} bytes over the window",
                end.wrapping_sub(client.edge)
            );
        }
        let end = sequence.wrapping_add(length as u32 + u32::from(tcp.fin()));
        if after(end, client.expected) && !after(sequence, client.expected) {
            client.expected = end;
        }
    }
}

fn ip(v6: bool) -> etherparse::PacketBuilderStep<etherparse::IpHeaders> {
    to(v6, SERVERS[usize::from(v6)])
}

fn to(v6: bool, destination: &str) -> etherparse::PacketBuilderStep<etherparse::IpHeaders> {
    let parse = |address: &str| address.parse::<IpAddr>().expect("an address");
    match (parse(CLIENTS[usize::from(v6)]), parse(destination)) {
        (IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::ipv4(from.octets(), to.octets(), 64),
        (IpAddr::V6(from), IpAddr::V6(to)) => PacketBuilder::ipv6(from.octets(), to.octets(), 64),
        (from, to) => panic!("{from} and {to} are of two families"),
    }
}
