//! How fast the engine is by itself: no link, no sockets, one core. Run it by hand, in release:
//!
//! `cargo test --release -p gh-net-tests --test throughput -- --ignored --nocapture`

use std::io::IoSlice;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use etherparse::{IpNumber, Ipv4Header, TcpHeader, TcpOptionElement, TcpSlice};
use gh_net::engine::{Command, Engine, FlowId};
use gh_net_common::frame::HEADER_LEN;
use gh_net_tests::sim::{CLIENT_V4, engine};

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 10);
const SEGMENT: usize = 65_000;

/// A client's connection. Its data is all zeros, so that its checksums cost nothing.
struct Client {
    port: u16,
    flow: FlowId,
    next: u32,
    acknowledged: u32,
    /// Bytes the engine allows behind `next`.
    credit: usize,
}

struct Bench {
    engine: Engine,
    now: Instant,
    delivered: u64,
    clients: Vec<Client>,
    zeros: Bytes,
}

impl Bench {
    fn new(flows: u16) -> Self {
        let (now, zeros) = (Instant::now(), Bytes::from(vec![0; SEGMENT]));
        let mut bench = Self { engine: engine(65_520), now, delivered: 0, clients: Vec::new(), zeros };
        for n in 0..flows {
            bench.open(10_000 + n);
        }
        bench
    }

    fn open(&mut self, port: u16) {
        self.send(port, 0, None, true, 0);
        let Some(Command::Connect { flow, .. }) = self.engine.poll_command() else { panic!("no Connect") };
        self.engine.handle_connected(flow, self.now);
        let answer = self.receive().expect("a SYN-ACK");
        self.clients.push(Client {
            port,
            flow,
            next: 1,
            acknowledged: answer.1.wrapping_add(1),
            credit: answer.3.min(65_535),
        });
        self.send(port, 1, Some(answer.1.wrapping_add(1)), false, 0);
        while self.engine.poll_command().is_some() {}
    }

    fn send(&mut self, port: u16, sequence: u32, acknowledgment: Option<u32>, syn: bool, payload: usize) {
        let mut tcp = TcpHeader::new(port, 80, sequence, 60_000);
        (tcp.syn, tcp.ack) = (syn, acknowledgment.is_some());
        tcp.acknowledgment_number = acknowledgment.unwrap_or(0);
        if syn {
            let options = [TcpOptionElement::MaximumSegmentSize(65_480), TcpOptionElement::WindowScale(7)];
            tcp.set_options(&options).expect("room for options");
        }
        // Zeros add nothing but their length.
        let (from, to) = (CLIENT_V4.octets(), SERVER.octets());
        let sum = tcp.calc_checksum_ipv4_raw(from, to, &[]).expect("it fits");
        let length = tcp.header_len() as u16;
        let add = |a: u16, b: u16| {
            let sum = u32::from(a) + u32::from(b);
            (sum & 0xffff) as u16 + (sum >> 16) as u16
        };
        tcp.checksum = !add(add(!sum, !length), length + payload as u16);
        let ip = Ipv4Header::new(length + payload as u16, 64, IpNumber::TCP, from, to).expect("it fits");
        let mut packet = Vec::with_capacity(60 + payload);
        ip.write(&mut packet).expect("a Vec");
        tcp.write(&mut packet).expect("a Vec");
        packet.extend_from_slice(&self.zeros[..payload]);
        self.engine.handle_packet(packet.into(), self.now);
    }

    /// Port, sequence, acknowledgment, window in bytes, and payload length of the next packet.
    fn receive(&mut self) -> Option<(u16, u32, u32, usize, usize)> {
        let packet = self.engine.poll_transmit(self.now)?;
        self.delivered += (packet.len() + HEADER_LEN) as u64;
        let tcp = TcpSlice::from_slice(&packet.headers.as_slice()[20..]).expect("a TCP header");
        let window = usize::from(tcp.window_size()) << 7;
        let numbers = (tcp.sequence_number(), tcp.acknowledgment_number());
        Some((tcp.destination_port(), numbers.0, numbers.1, window, packet.payload.len()))
    }

    /// One turn: every flow's socket gives what there is room for, and the link takes all.
    fn download(&mut self) -> usize {
        let mut bytes = 0;
        for n in 0..self.clients.len() {
            let flow = self.clients[n].flow;
            let room = self.engine.downlink_room(flow).min(SEGMENT);
            if room > 0 {
                self.engine.handle_data(flow, self.zeros.slice(..room), self.now);
            }
        }
        while let Some((port, sequence, _, _, length)) = self.receive() {
            bytes += length;
            let client = &mut self.clients[usize::from(port - 10_000)];
            client.acknowledged = sequence.wrapping_add(length as u32);
            let (next, acknowledged) = (client.next, client.acknowledged);
            self.send(port, next, Some(acknowledged), false, 0);
            self.engine.handle_delivered(self.delivered, self.now);
        }
        while self.engine.poll_command().is_some() {}
        bytes
    }

    /// One turn: every client sends a segment, and its socket takes it.
    fn upload(&mut self) -> usize {
        (0..self.clients.len()).map(|n| self.upload_one(n)).sum()
    }

    fn upload_one(&mut self, n: usize) -> usize {
        let mut bytes = 0;
        let Client { port, next, acknowledged, credit, .. } = self.clients[n];
        let payload = SEGMENT.min(credit);
        self.send(port, next, Some(acknowledged), false, payload);
        self.clients[n].next = next.wrapping_add(payload as u32);
        while let Some(command) = self.engine.poll_command() {
            let Command::Service(flow) = command else { panic!("{command:?}") };
            let mut slices = [IoSlice::new(&[]); 16];
            let count = self.engine.uplink(flow, &mut slices);
            let took = slices[..count].iter().map(|slice| slice.len()).sum();
            bytes += took;
            self.engine.handle_accepted(flow, took, self.now);
        }
        while let Some((port, _, acknowledged, window, _)) = self.receive() {
            let client = &mut self.clients[usize::from(port - 10_000)];
            assert_eq!(client.next, acknowledged);
            client.credit = window;
        }
        self.engine.handle_delivered(self.delivered, self.now);
        bytes
    }
}

#[test]
#[ignore = "a measurement"]
fn throughput() {
    for flows in [1, 500, 5000] {
        for (way, turn) in [
            ("down", Bench::download as fn(&mut Bench) -> usize),
            ("up", Bench::upload as fn(&mut Bench) -> usize),
        ] {
            let mut bench = Bench::new(flows);
            turn(&mut bench);
            let (start, mut bytes, mut packets) = (Instant::now(), 0, bench.engine.counters());
            while start.elapsed() < Duration::from_secs(2) {
                bytes += turn(&mut bench);
            }
            let took = start.elapsed().as_secs_f64();
            let after = bench.engine.counters();
            packets.downlink_packets = after.downlink_packets - packets.downlink_packets;
            packets.uplink_packets = after.uplink_packets - packets.uplink_packets;
            let gigabits = bytes as f64 * 8e-9 / took;
            let rate = (packets.downlink_packets + packets.uplink_packets) as f64 / took / 1e6;
            println!("{flows:>5} flows {way:<4} {gigabits:6.1} Gbit/s, {rate:5.2} million packets/s");
        }
    }
}
