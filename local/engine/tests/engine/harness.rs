//! Packet scripts: what a peer sends as raw packets, and what it gets, by the engine's public face alone.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;
use etherparse::{
    IpNumber, IpSlice, Ipv4Header, Ipv6Header, TcpHeader, TcpOptionElement, TcpSlice, UdpHeader,
};
use gh_net_common::frame::HEADER_LEN;
use gh_net_common::reserved::{self, Answer};
use gh_net_engine::{
    Command, Config, Engine, FlowId, Headers, NewFlow, Policy, Refusal, RuleId, Transmit, Verdict,
};
use ipnet::IpNet;

pub(crate) const MTU: u16 = 65_520;

/// An address of either family.
pub(crate) fn ip(address: &str) -> IpAddr {
    address.parse().unwrap()
}

pub(crate) fn socket(address: &str) -> SocketAddr {
    address.parse().unwrap()
}

/// Forwards some networks, some destinations to others, and refuses what is reserved.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rules {
    forwarded: Vec<IpNet>,
    translated: Vec<(SocketAddr, SocketAddr)>,
}

impl Rules {
    /// Forwards these networks.
    pub(crate) fn forward(networks: &[&str]) -> Self {
        let forwarded = networks.iter().map(|network| network.parse().unwrap()).collect();
        Self { forwarded, ..Self::default() }
    }

    /// Forwards what is asked of the one destination to the other.
    pub(crate) fn translate(mut self, asked: &str, actual: &str) -> Self {
        self.translated.push((socket(asked), socket(actual)));
        self
    }
}

impl Policy for Rules {
    fn verdict(&self, flow: &NewFlow<'_>) -> Verdict {
        let rule = RuleId(0);
        let asked = flow.destination;
        if let Some((_, destination)) = self.translated.iter().find(|(from, _)| *from == asked) {
            return Verdict::Forward { destination: *destination, interface: None, rule };
        }
        if let Some((_, answer)) = reserved::all().find(|(block, _)| block.contains(&asked.ip())) {
            let refusal = match answer {
                Answer::Prohibited => Refusal::Prohibited,
                Answer::Silent => Refusal::Silent,
            };
            return Verdict::Refuse { refusal, rule };
        }
        if self.forwarded.iter().any(|network| network.contains(&asked.ip())) {
            return Verdict::Forward { destination: asked, interface: None, rule };
        }
        Verdict::Refuse { refusal: Refusal::NoRoute, rule }
    }
}

/// The networks behind the laptop.
pub(crate) fn rules() -> Rules {
    Rules::forward(&["10.20.0.0/16", "fd20::/16"])
}

pub(crate) fn engine(secret: u64) -> Engine {
    let gateways = vec![ip("10.1.0.1"), ip("fd01::1")];
    Engine::new(Config { gateways, mtu: MTU, policy: Box::new(rules()), secret })
}

/// An IP packet around a transport header and payload.
pub(crate) fn packet(
    from: IpAddr,
    to: IpAddr,
    protocol: IpNumber,
    hop_limit: u8,
    transport: &[u8],
) -> Vec<u8> {
    let mut bytes = Vec::new();
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let len = transport.len() as u16;
            let header = Ipv4Header::new(len, hop_limit, protocol, from.octets(), to.octets()).unwrap();
            header.write(&mut bytes).unwrap();
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => Ipv6Header {
            payload_length: transport.len() as u16,
            next_header: protocol,
            hop_limit,
            source: from.octets(),
            destination: to.octets(),
            ..Ipv6Header::default()
        }
        .write(&mut bytes)
        .unwrap(),
        _ => panic!("one family"),
    }
    bytes.extend_from_slice(transport);
    bytes
}

/// A UDP datagram as it comes from the codespace.
pub(crate) fn udp(from: &str, to: &str, payload: &[u8]) -> Vec<u8> {
    let (from, to) = (socket(from), socket(to));
    packet(from.ip(), to.ip(), IpNumber::UDP, 64, &udp_segment(from, to, payload))
}

/// The same without its IP header.
pub(crate) fn udp_segment(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let (ports, len) = ((from.port(), to.port()), (8 + payload.len()) as u16);
    let mut header = UdpHeader { source_port: ports.0, destination_port: ports.1, length: len, checksum: 0 };
    header.checksum = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            header.calc_checksum_ipv4_raw(from.octets(), to.octets(), payload).unwrap()
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            header.calc_checksum_ipv6_raw(from.octets(), to.octets(), payload).unwrap()
        }
        _ => panic!("one family"),
    };
    [&header.to_bytes()[..], payload].concat()
}

/// An echo request as it comes from the codespace.
pub(crate) fn echo(from: &str, to: &str, identifier: u16, sequence: u16, payload: &[u8]) -> Vec<u8> {
    let (from, to) = (ip(from), ip(to));
    let kind = if from.is_ipv4() { 8 } else { 128 };
    icmp(from, to, kind, 0, [identifier.to_be_bytes(), sequence.to_be_bytes()].concat(), payload)
}

/// Any ICMP or ICMPv6 message as it comes from the codespace.
pub(crate) fn icmp(from: IpAddr, to: IpAddr, kind: u8, code: u8, rest: Vec<u8>, payload: &[u8]) -> Vec<u8> {
    let mut message = [&[kind, code, 0, 0], &rest[..], payload].concat();
    let mut sum = etherparse::checksum::Sum16BitWords::new();
    let protocol = match (from, to) {
        (IpAddr::V4(_), IpAddr::V4(_)) => IpNumber::ICMP,
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            sum = sum.add_16bytes(from.octets()).add_16bytes(to.octets());
            sum = sum.add_2bytes([0, 58]).add_4bytes((message.len() as u32).to_be_bytes());
            IpNumber::IPV6_ICMP
        }
        _ => panic!("one family"),
    };
    let sum = sum.add_slice(&message).ones_complement().to_ne_bytes();
    message[2..4].copy_from_slice(&sum);
    packet(from, to, protocol, 64, &message)
}

/// A packet from the engine, checked and taken apart.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    pub from: IpAddr,
    pub to: IpAddr,
    pub protocol: IpNumber,
    /// Transport header and payload.
    pub transport: Vec<u8>,
}

impl Sent {
    fn new(bytes: &[u8]) -> Self {
        let slice = IpSlice::from_slice(bytes).unwrap();
        if let IpSlice::Ipv4(v4) = &slice {
            let header = v4.header();
            assert_eq!(header.header_checksum(), header.to_header().calc_header_checksum());
            assert_eq!(usize::from(header.total_len()), bytes.len());
        }
        Self {
            from: slice.source_addr(),
            to: slice.destination_addr(),
            protocol: slice.payload_ip_number(),
            transport: slice.payload().payload.to_vec(),
        }
    }

    /// Type, code and what follows the first eight bytes of an ICMP message.
    pub(crate) fn icmp(&self) -> (u8, u8, &[u8]) {
        let mut sum = etherparse::checksum::Sum16BitWords::new().add_slice(&self.transport);
        if let (IpAddr::V6(from), IpAddr::V6(to)) = (self.from, self.to) {
            assert_eq!(self.protocol, IpNumber::IPV6_ICMP);
            sum = sum.add_16bytes(from.octets()).add_16bytes(to.octets());
            sum = sum.add_2bytes([0, 58]).add_4bytes((self.transport.len() as u32).to_be_bytes());
        } else {
            assert_eq!(self.protocol, IpNumber::ICMP);
        }
        assert_eq!(sum.ones_complement(), 0, "ICMP checksum");
        (self.transport[0], self.transport[1], &self.transport[8..])
    }

    /// Source, destination and payload of a UDP datagram.
    pub(crate) fn udp(&self) -> (SocketAddr, SocketAddr, &[u8]) {
        assert_eq!(self.protocol, IpNumber::UDP);
        let [a, b, c, d, ..] = self.transport[..] else { panic!("a UDP header") };
        let from = SocketAddr::new(self.from, u16::from_be_bytes([a, b]));
        let to = SocketAddr::new(self.to, u16::from_be_bytes([c, d]));
        assert_eq!(self.transport, udp_segment(from, to, &self.transport[8..]), "lengths and checksum");
        (from, to, &self.transport[8..])
    }

    /// The packet quoted in an ICMP error: source, destination, protocol, and its transport's first bytes.
    pub(crate) fn quotation(&self) -> (IpAddr, IpAddr, IpNumber, &[u8]) {
        let quoted = self.icmp().2;
        if self.from.is_ipv4() {
            let (header, rest) = Ipv4Header::from_slice(quoted).unwrap();
            assert_eq!(header.header_checksum, header.calc_header_checksum(), "the quoted header's checksum");
            (header.source.into(), header.destination.into(), header.protocol, rest)
        } else {
            let (header, rest) = Ipv6Header::from_slice(quoted).unwrap();
            (header.source.into(), header.destination.into(), header.next_header, rest)
        }
    }
}

/// A TCP segment, its numbers relative to the initial ones: the SYNs are at 0.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Seg {
    pub flags: &'static str,
    pub seq: i64,
    pub ack: Option<i64>,
    pub window: u16,
    pub mss: Option<u16>,
    pub scale: Option<u8>,
    pub data: Vec<u8>,
}

/// A segment with these flags (of `SFRP`, in this order), numbers and data, and a large window.
pub(crate) fn seg(flags: &'static str, seq: i64, ack: impl Into<Option<i64>>, data: &[u8]) -> Seg {
    Seg { flags, seq, ack: ack.into(), window: 60_000, data: data.to_vec(), ..Seg::default() }
}

impl Seg {
    pub(crate) fn window(self, window: u16) -> Self {
        Self { window, ..self }
    }

    pub(crate) fn mss(self, mss: u16) -> Self {
        Self { mss: Some(mss), ..self }
    }

    pub(crate) fn scale(self, scale: u8) -> Self {
        Self { scale: Some(scale), ..self }
    }
}

const FLAGS: [&str; 9] = ["", "S", "F", "R", "P", "FP", "SF", "RP", "SR"];

/// One client in the codespace, one server, and the engine between them.
pub(crate) struct Script {
    pub engine: Engine,
    pub now: Instant,
    pub client: SocketAddr,
    pub server: SocketAddr,
    /// The client's initial sequence number.
    pub ours: u32,
    /// The engine's.
    pub theirs: u32,
    commands: VecDeque<Command>,
    delivered: u64,
    /// Whether the sidecar reports what it takes off the link.
    pub reports: bool,
    /// Whether the link has room for bulk.
    pub bulk: bool,
}

impl Script {
    pub(crate) fn new() -> Self {
        Self::with_secret(7)
    }

    pub(crate) fn with_secret(secret: u64) -> Self {
        Self {
            engine: engine(secret),
            now: Instant::now(),
            client: socket("10.1.0.2:40000"),
            server: socket("10.20.0.10:80"),
            ours: 1_000_000,
            theirs: 0,
            commands: VecDeque::new(),
            delivered: 0,
            reports: true,
            bulk: true,
        }
    }

    pub(crate) fn v6() -> Self {
        let (client, server) = (socket("[fd01::2]:40000"), socket("[fd20::10]:80"));
        Self { client, server, ..Self::new() }
    }

    /// A script behind the handshake, the client's SYN having announced an MSS of 1000 and a scale of 0.
    pub(crate) fn established() -> (Self, FlowId) {
        Self::new().connected(seg("S", 0, None, b"").mss(1000).scale(0))
    }

    pub(crate) fn connected(mut self, syn: Seg) -> (Self, FlowId) {
        self.send(syn);
        let Some(Command::Connect { flow, .. }) = self.command() else { panic!("no Connect") };
        self.engine.handle_connected(flow, self.now);
        self.expect(seg("S", 0, 1, b""));
        self.send(seg("", 1, 1, b""));
        assert_eq!(self.command(), Some(Command::Service(flow)));
        self.quiet();
        (self, flow)
    }

    /// The client's segment as a packet.
    pub(crate) fn raw(&self, segment: &Seg) -> Vec<u8> {
        let mut tcp = TcpHeader::new(
            self.client.port(),
            self.server.port(),
            self.ours.wrapping_add(segment.seq as u32),
            segment.window,
        );
        tcp.syn = segment.flags.contains('S');
        tcp.fin = segment.flags.contains('F');
        tcp.rst = segment.flags.contains('R');
        tcp.psh = segment.flags.contains('P');
        tcp.ack = segment.ack.is_some();
        tcp.acknowledgment_number = segment.ack.map_or(0, |ack| self.theirs.wrapping_add(ack as u32));
        let mss = segment.mss.map(TcpOptionElement::MaximumSegmentSize);
        let scale = segment.scale.map(TcpOptionElement::WindowScale);
        let options: Vec<_> = mss.into_iter().chain(scale).collect();
        tcp.set_options(&options).unwrap();
        tcp.checksum = match (self.client.ip(), self.server.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                tcp.calc_checksum_ipv4_raw(from.octets(), to.octets(), &segment.data).unwrap()
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                tcp.calc_checksum_ipv6_raw(from.octets(), to.octets(), &segment.data).unwrap()
            }
            _ => panic!("one family"),
        };
        let mut bytes = Vec::new();
        tcp.write(&mut bytes).unwrap();
        bytes.extend_from_slice(&segment.data);
        packet(self.client.ip(), self.server.ip(), IpNumber::TCP, 64, &bytes)
    }

    /// The client sends a segment.
    pub(crate) fn send(&mut self, segment: Seg) {
        let packet = self.raw(&segment);
        self.send_raw(&packet);
    }

    pub(crate) fn send_raw(&mut self, packet: &[u8]) {
        self.engine.handle_packet(Bytes::copy_from_slice(packet), self.now);
    }

    /// The next packet of the engine, as it leaves it.
    pub(crate) fn transmit(&mut self) -> Option<Transmit> {
        self.engine.poll_transmit(self.bulk, self.now)
    }

    /// The next packet of the engine.
    pub(crate) fn sent(&mut self) -> Option<Sent> {
        let packet = self.transmit()?;
        assert!(packet.headers.as_slice().len() <= Headers::MAX);
        self.deliver(packet.len());
        Some(Sent::new(&[packet.headers.as_slice(), &packet.payload].concat()))
    }

    /// A packet of this length reaches the sidecar.
    pub(crate) fn deliver(&mut self, length: usize) {
        self.delivered += (length + HEADER_LEN) as u64;
        if self.reports {
            self.engine.handle_delivered(self.delivered);
        }
    }

    /// The next segment of the engine.
    pub(crate) fn recv(&mut self) -> Option<Seg> {
        let sent = self.sent()?;
        assert_eq!((sent.from, sent.to), (self.server.ip(), self.client.ip()));
        assert_eq!(sent.protocol, IpNumber::TCP, "{sent:?}");
        let tcp = TcpSlice::from_slice(&sent.transport).unwrap();
        let sum = match (sent.from, sent.to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => tcp.calc_checksum_ipv4(from.octets(), to.octets()),
            (IpAddr::V6(from), IpAddr::V6(to)) => tcp.calc_checksum_ipv6(from.octets(), to.octets()),
            _ => panic!("one family"),
        };
        assert_eq!(sum.unwrap(), tcp.checksum());
        assert_eq!((tcp.source_port(), tcp.destination_port()), (self.server.port(), self.client.port()));
        if tcp.syn() {
            self.theirs = tcp.sequence_number();
        }
        let set = [(tcp.syn(), 'S'), (tcp.fin(), 'F'), (tcp.rst(), 'R'), (tcp.psh(), 'P')];
        let flags: String = set.iter().filter(|(set, _)| *set).map(|(_, letter)| letter).collect();
        let mut segment = Seg {
            flags: FLAGS.into_iter().find(|known| *known == flags).expect("legal flags"),
            seq: (tcp.sequence_number().wrapping_sub(self.theirs) as i32).into(),
            ack: tcp.ack().then(|| (tcp.acknowledgment_number().wrapping_sub(self.ours) as i32).into()),
            window: tcp.window_size(),
            mss: None,
            scale: None,
            data: tcp.payload().to_vec(),
        };
        for option in tcp.options_iterator() {
            match option.unwrap() {
                TcpOptionElement::MaximumSegmentSize(mss) => segment.mss = Some(mss),
                TcpOptionElement::WindowScale(scale) => segment.scale = Some(scale),
                TcpOptionElement::Noop => {}
                other @ (TcpOptionElement::SelectiveAcknowledgementPermitted
                | TcpOptionElement::SelectiveAcknowledgement(..)
                | TcpOptionElement::Timestamp(..)) => panic!("an option not asked for: {other:?}"),
            }
        }
        Some(segment)
    }

    /// The next segment has these flags, numbers and data; returns all of it.
    #[track_caller]
    pub(crate) fn expect(&mut self, expected: Seg) -> Seg {
        let segment = self.recv().expect("a segment");
        let Seg { flags, seq, ack, data, .. } = &segment;
        assert_eq!((*flags, *seq, *ack), (expected.flags, expected.seq, expected.ack), "{segment:?}");
        assert!(*data == expected.data, "{} bytes, not {}", data.len(), expected.data.len());
        segment
    }

    /// Nothing is sent and nothing is asked for.
    #[track_caller]
    pub(crate) fn quiet(&mut self) {
        assert_eq!(self.command(), None);
        let segment = self.transmit();
        assert!(segment.is_none(), "{segment:?}");
    }

    /// Nothing is sent, and nothing but service is asked for.
    #[track_caller]
    pub(crate) fn quiet_but_for_service(&mut self) {
        while let Some(command) = self.command() {
            assert!(matches!(command, Command::Service(_)), "{command:?}");
        }
        self.quiet();
    }

    /// The engine's next command.
    pub(crate) fn command(&mut self) -> Option<Command> {
        self.commands.extend(std::iter::from_fn(|| self.engine.poll_command()));
        self.commands.pop_front()
    }

    /// Time passes until the engine wakes; asserts that it wakes after this time.
    #[track_caller]
    pub(crate) fn wakes_after(&mut self, expected: Duration) {
        let at = self.engine.poll_timeout().expect("a deadline");
        assert_eq!(at.saturating_duration_since(self.now), expected);
        self.pass(expected);
    }

    /// Time passes, with all that is due in it.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.engine.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.engine.handle_timeout(self.now);
        }
        self.now = end;
    }

    /// The laptop's socket gives bytes.
    #[track_caller]
    pub(crate) fn serve(&mut self, flow: FlowId, data: &[u8]) {
        assert!(self.engine.downlink_room(flow) >= data.len(), "no room for {} bytes", data.len());
        self.engine.handle_data(flow, Bytes::copy_from_slice(data), self.now);
    }

    /// The same, whether or not there is room.
    pub(crate) fn serve_more(&mut self, flow: FlowId, data: &[u8]) {
        self.engine.handle_data(flow, Bytes::copy_from_slice(data), self.now);
    }

    /// The laptop's socket takes all there is, or as much as `most`.
    pub(crate) fn take(&mut self, flow: FlowId, most: usize) -> Vec<u8> {
        let mut taken = Vec::new();
        loop {
            let mut slices = [IoSlice::new(&[]); 4];
            let count = self.engine.uplink(flow, &mut slices);
            let before = taken.len();
            for slice in &slices[..count] {
                let part = slice.len().min(most - taken.len());
                taken.extend_from_slice(&slice[..part]);
            }
            let count = taken.len() - before;
            if count == 0 {
                return taken;
            }
            self.engine.handle_accepted(flow, count, self.now);
        }
    }
}
