//! The sum of the bounds: everything that the codespace can fill is full at once, and what is really allocated is counted.
//!
//! A test binary of its own, because it counts all memory of the process.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]
#![allow(clippy::disallowed_methods, reason = "the driver of the engine has a clock")]
#![allow(clippy::print_stdout, reason = "the figures are of interest")]
#![allow(unsafe_code, reason = "an allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use etherparse::{IpNumber, TcpHeader, TcpOptionElement};
use gh_net_engine::{Bounds, Command, Config, ConnectError, Engine, FlowId, Resources};
use gh_net_testkit::policy::Rules;
use gh_net_testkit::{build, ip, socket};

const MIB: usize = 1 << 20;
/// What the user allows by default, and what the tables' own entries may take beside it.
const BUDGET: usize = 256 * MIB;
const BOOKKEEPING: usize = 64 * MIB;
/// The flows that there may be.
const OPEN: usize = 8192;
const OPENING: usize = 4096;
const ENDED: usize = 4096;
const MAPPINGS: usize = 4096;
const SESSIONS: usize = 512;
/// What each flow may hold in any case, of each kind.
const FLOOR: usize = 3 * 1024;
/// A buffer of the link, which a large segment may pin.
const LINK_BUFFER: usize = 256 * 1024;
/// A buffer that sockets are read into.
const READ_BUFFER: usize = 64 * 1024;

/// Counts what is allocated, as the C library rounds it.
struct Counting;

static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

fn chunk(size: usize) -> usize {
    (size + 8).next_multiple_of(16).max(32)
}

// SAFETY: every call is passed on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(chunk(layout.size()), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(chunk(layout.size()), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        ALLOCATED.fetch_sub(chunk(layout.size()), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocated() -> usize {
    ALLOCATED.load(Ordering::Relaxed)
}

/// How the codespace and the hosts fill what they can: with few large pieces, or with as many small ones as there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pieces {
    Large,
    Small,
}

/// An engine that is being filled.
struct Full {
    engine: Engine,
    now: Instant,
    /// What the process had before.
    before: usize,
    pieces: Pieces,
    /// Rows that keep more than is promised.
    broken: Vec<String>,
}

/// A connection that is open: its flow, its ends, and the engine's first sequence number.
type Open = (FlowId, (SocketAddr, SocketAddr), u32);

impl Full {
    fn new(pieces: Pieces) -> Self {
        let before = allocated();
        let mut engine = Engine::new(Config {
            gateways: vec![ip("10.1.0.1"), ip("fd01::1")],
            dns: true,
            mtu: 65_520,
            policy: Box::new(Rules::forward(&["10.0.0.0/8"]).prohibit(&["10.9.0.0/16"]).refer_to(".rule")),
            secret: 7,
            resources: Resources { memory: BUDGET, ..Resources::default() },
        });
        engine.tell_flows(true);
        Self { engine, now: Instant::now(), before, pieces, broken: Vec::new() }
    }

    fn kept(&self) -> usize {
        allocated() - self.before
    }

    /// Fills something, which may keep as much as `promised`.
    fn row<T>(&mut self, what: &str, promised: usize, fill: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.kept();
        let result = fill(self);
        let kept = self.kept().saturating_sub(before);
        let row = format!("{what}: {} of {} KiB", kept / 1024, promised / 1024);
        println!("{:?} {row}", self.pieces);
        if kept > promised {
            self.broken.push(row);
        }
        result
    }

    /// A packet arrives as the reader gives it: a part of a buffer of the link.
    fn send(&mut self, packet: &[u8]) {
        let mut buffer = vec![0; if packet.len() < 16 * 1024 { packet.len() } else { LINK_BUFFER }];
        buffer[..packet.len()].copy_from_slice(packet);
        self.engine.handle_packet(Bytes::from(buffer).slice(..packet.len()), self.now);
    }

    /// Io has taken all commands and events. Returns the flow that was opened.
    fn take(&mut self) -> Option<FlowId> {
        while self.engine.poll_event().is_some() {}
        let opened = |command| match command {
            Command::Connect { flow, .. }
            | Command::OpenUdp { flow, .. }
            | Command::OpenEcho { flow, .. } => Some(flow),
            Command::Service(_)
            | Command::Abort(_)
            | Command::Close(_)
            | Command::Hold(_)
            | Command::SendUdp { .. }
            | Command::SendToLaptop { .. }
            | Command::SendEcho { .. }
            | Command::Resolve { .. }
            | Command::Forget(_) => None,
        };
        std::iter::from_fn(|| self.engine.poll_command()).fold(None, |last, command| last.or(opened(command)))
    }

    /// The link takes all packets. Returns the acknowledgment of the last one.
    fn transmit(&mut self) -> Option<u32> {
        let last = std::iter::from_fn(|| self.engine.poll_transmit(true, self.now)).last()?;
        Some(u32::from_be_bytes(last.headers.as_slice()[28..32].try_into().unwrap()))
    }

    /// The address has eight names of as many bytes as are kept, which no other flow shares.
    fn name(&mut self, address: &str, salt: usize) {
        let names: Vec<String> = (0..8).map(|n| format!("{n}{salt:07}.{}.example", "x".repeat(44))).collect();
        self.engine.handle_names(&names, &[(ip(address), Duration::from_secs(86_400))], self.now);
    }

    fn segment(
        &mut self,
        (client, server): (SocketAddr, SocketAddr),
        flags: &str,
        seq: u32,
        ack: u32,
        payload: &[u8],
    ) {
        let mut tcp = TcpHeader::new(0, 0, seq, 60_000);
        tcp.syn = flags == "S";
        tcp.fin = flags == "F";
        tcp.ack = !tcp.syn;
        tcp.acknowledgment_number = ack;
        if tcp.syn {
            let options = [TcpOptionElement::MaximumSegmentSize(65_000), TcpOptionElement::WindowScale(14)];
            tcp.set_options(&options).unwrap();
        }
        self.send(&build::tcp(client, server, tcp, payload));
    }

    /// A program connects.
    fn connect(&mut self, n: usize, server: &str) -> (FlowId, (SocketAddr, SocketAddr)) {
        let ends = (client(n), socket(server));
        self.name(&ends.1.ip().to_string(), n);
        self.segment(ends, "S", 0, 0, b"");
        (self.take().expect("a connection"), ends)
    }

    fn open(&mut self, n: usize, server: &str) -> Open {
        let (flow, ends) = self.connect(n, server);
        self.engine.handle_connected(flow, self.now);
        let answer = self.engine.poll_transmit(true, self.now).expect("a SYN-ACK");
        let theirs =
            u32::from_be_bytes(answer.headers.as_slice()[24..28].try_into().unwrap()).wrapping_add(1);
        self.segment(ends, "", 1, theirs, b"");
        self.take();
        self.transmit();
        (flow, ends, theirs)
    }

    /// Connections that both sides have ended, that are open, and that are not open yet.
    fn connections(&mut self) -> Vec<Open> {
        for n in 0..ENDED {
            let (flow, ends, theirs) = self.open(n, "10.20.0.1:80");
            self.engine.handle_end(flow, self.now);
            self.transmit();
            self.segment(ends, "F", 1, theirs.wrapping_add(1), b"");
            self.transmit();
            self.take();
        }
        let mut open: Vec<Open> = (1..OPEN).map(|n| self.open(n, "10.21.0.1:80")).collect();
        (0..OPENING).for_each(|n| _ = self.connect(n, "10.22.0.1:80"));
        // It displaces an attempt.
        open.push(self.open(0, "10.21.0.1:80"));
        open
    }

    /// The codespace sends all that the hosts' sockets don't take.
    fn uplink(&mut self, open: &[Open]) {
        let payload = vec![0; 60_000];
        for (_, ends, ack) in open {
            let mut next = 1;
            while self.pieces == Pieces::Large {
                self.segment(*ends, "", next, *ack, &payload);
                let acknowledged = self.transmit().expect("an acknowledgment");
                if std::mem::replace(&mut next, acknowledged) == acknowledged {
                    break;
                }
            }
            if self.pieces == Pieces::Small {
                // Every other byte.
                (0..50).for_each(|n| self.segment(*ends, "", 2 + 2 * n, *ack, b"x"));
                self.transmit();
            }
            self.take();
        }
    }

    /// The hosts send all that the codespace does not acknowledge. Returns how many bytes that is.
    fn downlink(&mut self, open: &[Open]) -> u32 {
        let mut sent = 0;
        let most = if self.pieces == Pieces::Large { READ_BUFFER } else { 1 };
        let mut any = true;
        while std::mem::take(&mut any) {
            for (flow, ..) in open {
                let room = self.engine.downlink_room(*flow).min(most);
                if room > 0 {
                    any = true;
                    sent += room as u32;
                    let pinned = if room < READ_BUFFER / 4 * 3 { room } else { READ_BUFFER };
                    self.engine.handle_data(*flow, Bytes::from(vec![0; pinned]).slice(..room), self.now);
                    self.transmit();
                }
            }
            self.take();
        }
        sent
    }

    /// Mappings and sessions, each with the names of as many destinations as are kept.
    fn datagram_flows(&mut self) -> (Vec<FlowId>, Vec<FlowId>) {
        let (mut mappings, mut sessions) = (Vec::new(), Vec::new());
        for (n, host) in (0..MAPPINGS).flat_map(|n| (0..4).map(move |host| (n, host))) {
            let to = format!("10.23.0.{host}");
            self.name(&to, n);
            self.send(&build::udp(client(n), SocketAddr::new(ip(&to), 7), b"x"));
            mappings.extend(self.take());
        }
        for (n, host) in (0..SESSIONS).flat_map(|n| (0..4).map(move |host| (n, host))) {
            let to = format!("10.24.0.{host}");
            self.name(&to, n);
            self.send(&build::echo(ip("10.1.0.2"), ip(&to), n as u16, 1, b"x"));
            sessions.extend(self.take());
        }
        assert_eq!((mappings.len(), sessions.len()), (MAPPINGS, SESSIONS));
        (mappings, sessions)
    }

    /// Each endpoint sends to as many hosts as it may.
    fn destinations(&mut self) {
        for (host, n) in (0..40).flat_map(|host| (0..MAPPINGS).map(move |n| (host, n))) {
            self.send(&build::udp(client(n), SocketAddr::new(ip(&format!("10.25.0.{host}")), 7), b""));
            self.take();
        }
    }

    /// The hosts answer, and the link takes nothing.
    fn datagrams(&mut self, mappings: &[FlowId], sessions: &[FlowId]) {
        let size = if self.pieces == Pieces::Large { 1400 } else { 1 };
        for _ in 0..30 {
            for flow in mappings {
                let datagram = Bytes::from(vec![0; size]);
                self.engine.handle_datagram(*flow, socket("10.25.0.39:7"), datagram, self.now);
            }
            for flow in sessions {
                let reply = Bytes::from(vec![0; size]);
                self.engine.handle_echo_reply(*flow, ip("10.24.0.1"), 1, reply, self.now);
            }
        }
    }

    fn names(&mut self) {
        (0..5000).for_each(|n| self.name(&format!("10.30.{}.{}", n / 250, n % 250), n));
    }

    fn questions(&mut self) {
        for n in 0..5000 {
            self.send(&build::udp(client(n), socket("10.1.0.1:53"), &[0; 512]));
            self.take();
        }
    }

    /// The largest first fragments, and nothing that follows.
    fn fragments(&mut self) {
        for n in 0..100_u16 {
            let mut packet = build::packet(ip("10.1.0.2"), ip("10.20.0.1"), IpNumber::UDP, 64, &[0; 65_512]);
            packet[4..6].copy_from_slice(&n.to_be_bytes());
            packet[6] = 0x20;
            packet[10..12].copy_from_slice(&[0, 0]);
            let sum = etherparse::checksum::Sum16BitWords::new().add_slice(&packet[..20]).ones_complement();
            packet[10..12].copy_from_slice(&sum.to_ne_bytes());
            self.send(&packet);
        }
    }

    /// Refused datagrams, about which nobody is told, and whose errors the link does not take.
    fn refusals(&mut self) {
        for n in 0..20_000_u16 {
            self.send(&build::udp(client(n.into()), SocketAddr::new(ip("10.9.1.1"), n), b""));
        }
    }
}

fn client(n: usize) -> SocketAddr {
    SocketAddr::new(ip("10.1.0.2"), 10_000 + n as u16)
}

/// The rows of the tables in ARCHITECTURE.md, all filled at once.
fn fill(pieces: Pieces) {
    let mut full = Full::new(pieces);
    let flows = OPEN + OPENING + ENDED + MAPPINGS + SESSIONS;
    let datagram_flows = (MAPPINGS + SESSIONS) * FLOOR;
    // With the names that flows keep.
    let entries = 32 * MIB + 24 * MIB;
    let (open, (mappings, sessions)) =
        full.row("entries", entries, |full| (full.connections(), full.datagram_flows()));
    full.row("uplink", 32 * MIB + OPEN * FLOOR + 16 * MIB, |full| full.uplink(&open));
    full.row("downlink", 64 * MIB + OPEN * FLOOR, |full| full.downlink(&open));
    full.row("destinations", 4 * MIB + datagram_flows, Full::destinations);
    full.row("datagrams", 8 * MIB + datagram_flows, |full| full.datagrams(&mappings, &sessions));
    full.row("names", 5 * MIB, Full::names);
    full.row("questions", 2 * MIB, Full::questions);
    full.row("fragments", 8 * MIB + MIB / 4, Full::fragments);
    full.row("errors and events", MIB + 5 * MIB, Full::refusals);
    let Bounds { datagrams, destinations, questions, fragments, answers, .. } = full.engine.counters().bounds;
    let refused = [datagrams, destinations, questions, fragments, answers];
    assert!(refused.iter().all(|count| *count > 0), "each of these was full: {refused:?}");
    println!("{pieces:?} in all: {} MiB, {:?}", full.kept() / MIB, full.engine.counters());
    assert_eq!(full.engine.flow_count(), flows - 1);
    assert!(full.broken.is_empty(), "{:#?}", full.broken);
    assert!(full.kept() <= BUDGET + BOOKKEEPING, "{} MiB", full.kept() / MIB);
    assert!(full.kept() >= BUDGET / 2, "{} MiB: something is not filled", full.kept() / MIB);
}

/// A connection that held much holds nothing more once the codespace has acknowledged it.
fn drain() {
    let mut full = Full::new(Pieces::Small);
    let open = [full.open(0, "10.21.0.1:80")];
    let (before, received) = (full.kept(), full.downlink(&open));
    assert!(full.kept() > 8 * MIB, "{} KiB", full.kept() / 1024);
    let [(_, ends, theirs)] = open;
    full.segment(ends, "", 1, theirs.wrapping_add(received), b"");
    full.take();
    let more = full.kept().saturating_sub(before);
    assert!(more <= 4096, "{more} bytes are left");
}

/// Flows come and go while the link takes nothing: none of them leaves anything behind.
fn churn() {
    let mut full = Full::new(Pieces::Small);
    let rounds = |full: &mut Full, count: usize| {
        for n in 0..count {
            // A refused connection, whose reset waits, and which the program tries again.
            let (flow, ends) = full.connect(0, "10.21.0.1:80");
            full.engine.handle_connect_failed(flow, ConnectError::Refused, full.now);
            full.segment(ends, "S", n as u32, 0, b"");
            let again = full.take().expect("another attempt");
            full.engine.handle_connect_failed(again, ConnectError::TimedOut, full.now);
            // A mapping with an answer that waits, and that times out.
            full.send(&build::udp(client(n % 100), socket("10.21.0.1:53"), b"x"));
            let mapping = full.take().expect("a mapping");
            full.engine.handle_datagram(mapping, socket("10.21.0.1:53"), Bytes::from_static(b"x"), full.now);
            full.now += Duration::from_secs(11);
            full.engine.handle_timeout(full.now);
            full.take();
        }
    };
    rounds(&mut full, 5000);
    let before = full.kept();
    rounds(&mut full, 50_000);
    let more = full.kept().saturating_sub(before);
    assert!(full.engine.flow_count() <= 1, "{}", full.engine.flow_count());
    assert!(more <= 64 * 1024, "{more} bytes are left of flows that are gone");
}

/// One test: what one allocates must not count for another.
#[test]
fn all_bounds_filled_at_once_keep_no_more_than_is_promised() {
    drain();
    churn();
    fill(Pieces::Large);
    fill(Pieces::Small);
}
