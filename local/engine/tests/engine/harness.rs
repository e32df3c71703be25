//! Packet scripts: raw packets of a peer and the engine's answers, by the engine's public interface alone.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use etherparse::{IpNumber, TcpHeader, TcpOptionElement};
use gh_net_common::frame::HEADER_LEN;
use gh_net_engine::{Command, Config, Engine, FlowId, Resources};
use gh_net_testkit::packet::Packet;
use gh_net_testkit::policy::Rules;
use gh_net_testkit::{build, driver, ip, socket};

pub(crate) const MTU: u16 = 65_520;

/// The networks behind the laptop.
pub(crate) fn rules() -> Rules {
    Rules::forward(&["10.20.0.0/16", "fd20::/16"])
}

pub(crate) fn engine(secret: u64) -> Engine {
    Engine::new(config(secret))
}

pub(crate) fn config(secret: u64) -> Config {
    let gateways = vec![ip("10.1.0.1"), ip("fd01::1")];
    Config {
        gateways,
        dns: true,
        mtu: MTU,
        policy: Box::new(rules()),
        secret,
        resources: Resources::default(),
    }
}

/// A UDP datagram as it comes from the codespace.
pub(crate) fn udp(from: &str, to: &str, payload: &[u8]) -> Vec<u8> {
    build::udp(socket(from), socket(to), payload)
}

/// An echo request as it comes from the codespace.
pub(crate) fn echo(from: &str, to: &str, identifier: u16, sequence: u16, payload: &[u8]) -> Vec<u8> {
    build::echo(ip(from), ip(to), identifier, sequence, payload)
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
    /// Whether the sidecar reports delivered bytes.
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

    /// A script after the handshake. The client's SYN announced an MSS of 1000 and a scale of 0.
    pub(crate) fn established() -> (Self, FlowId) {
        Self::new().connected(seg("S", 0, None, b"").mss(1000).scale(0))
    }

    /// A script whose connection both sides have ended, the server first. All commands are taken.
    pub(crate) fn in_time_wait() -> Self {
        let (mut script, flow) = Self::established();
        script.engine.handle_end(flow, script.now);
        script.expect(seg("FP", 1, 1, b""));
        script.send(seg("F", 1, 2, b""));
        script.expect(seg("", 2, 2, b""));
        while script.command().is_some() {}
        script
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
        // Its ports are filled in with the addresses.
        let mut tcp = TcpHeader::new(0, 0, self.ours.wrapping_add(segment.seq as u32), segment.window);
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
        build::tcp(self.client, self.server, tcp, &segment.data)
    }

    /// The client sends a segment.
    pub(crate) fn send(&mut self, segment: Seg) {
        let packet = self.raw(&segment);
        self.send_raw(&packet);
    }

    pub(crate) fn send_raw(&mut self, packet: &[u8]) {
        self.engine.handle_packet(Bytes::copy_from_slice(packet), self.now);
    }

    /// The next packet of the engine.
    pub(crate) fn sent(&mut self) -> Option<Packet> {
        let (packet, length) = driver::transmit(&mut self.engine, self.bulk, self.now)?;
        self.deliver(length);
        Some(packet)
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
        let tcp = sent.tcp().expect("a TCP segment");
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

    /// No packet is sent and there are no commands.
    #[track_caller]
    pub(crate) fn quiet(&mut self) {
        assert_eq!(self.command(), None);
        let packet = driver::transmit(&mut self.engine, self.bulk, self.now);
        assert!(packet.is_none(), "{packet:?}");
    }

    /// Nothing is sent, and the only commands are [`Command::Service`].
    #[track_caller]
    pub(crate) fn quiet_except_service(&mut self) {
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
        driver::pass(&mut self.engine, &mut self.now, time);
    }

    /// Bytes are read from the laptop's socket.
    #[track_caller]
    pub(crate) fn serve(&mut self, flow: FlowId, data: &[u8]) {
        assert!(self.engine.downlink_room(flow) >= data.len(), "no room for {} bytes", data.len());
        self.engine.handle_data(flow, Bytes::copy_from_slice(data), self.now);
    }

    /// The same, whether or not there is room.
    pub(crate) fn serve_more(&mut self, flow: FlowId, data: &[u8]) {
        self.engine.handle_data(flow, Bytes::copy_from_slice(data), self.now);
    }

    /// The laptop's socket accepts all available bytes, at most `most`.
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
