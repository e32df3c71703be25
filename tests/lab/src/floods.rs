//! Floods: what a hostile or careless program in the codespace can do to its gateway. Other programs must not notice.
//!
//! The floods are sockets of this process in the codespace's network. Each repeats its round until it is dropped, and
//! sends at a bounded rate: what is tested is what the gateway keeps for it, not the speed of the machine.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, SyncSender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::Lab;
use crate::dns::question;
pub use others::Others;

mod others;

/// Addresses that don't answer: [`Lab::silence_addresses`].
const SILENT: Ipv4Addr = Ipv4Addr::new(10, 20, 128, 0);
/// An address of the corporate network that drops everything.
const HOLE: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 66);
/// The corporate server.
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 10);
/// Packets or connections per second, of most floods.
const RATE: u32 = 2_000;
/// Every flood has begun in earnest by then.
const UNDER_WAY: Duration = Duration::from_secs(60);

/// A kind of flood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flood {
    /// SYNs to 20,000 addresses that don't answer, as port scanners send them.
    Scan,
    /// 3,000 connections to one address that does not answer.
    HangingConnects,
    /// Datagrams to 20,000 addresses, from 2,000 sockets.
    UdpSpray,
    /// 200 DNS questions a second to a zone whose server does not answer.
    DeadZone,
    /// 5,000 malformed packets.
    Malformed,
    /// 1,000 DNS-over-TCP connections that ask for large answers and don't read them.
    UnreadAnswers,
}

impl Flood {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Scan,
        Self::HangingConnects,
        Self::UdpSpray,
        Self::DeadZone,
        Self::Malformed,
        Self::UnreadAnswers,
    ];

    /// Its name, for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scan => "a scan of 20,000 silent addresses",
            Self::HangingConnects => "3,000 hanging connects",
            Self::UdpSpray => "a spray of 20,000 UDP targets",
            Self::DeadZone => "200 questions a second to a dead zone",
            Self::Malformed => "5,000 malformed packets",
            Self::UnreadAnswers => "1,000 DNS-over-TCP streams that read nothing",
        }
    }

    /// Starts the flood in the codespace, and waits until its first round is complete.
    ///
    /// # Errors
    /// It can't be started.
    pub fn start(self, lab: &Lab) -> Result<Flooding> {
        let target = Target { tunnel: tunnel_address(lab)?, resolver: lab.codespace_resolver()? };
        raise_descriptors().context("raising the number of open files")?;
        let stop = Arc::new(AtomicBool::new(false));
        let (begun, first_round) = mpsc::sync_channel(1);
        let shared = stop.clone();
        let thread = lab.codespace.thread(move || self.run(target, &Round { stop: &shared, begun }));
        let flooding = Flooding { flood: self, stop, thread: Some(thread) };
        if first_round.recv_timeout(UNDER_WAY).is_err() {
            flooding.stop()?;
            anyhow::bail!("{} did not begin", self.name());
        }
        Ok(flooding)
    }

    fn run(self, target: Target, round: &Round<'_>) -> Result<()> {
        while !round.is_stopped() {
            match self {
                Self::Scan => scan(round, target.tunnel, 20_000),
                Self::HangingConnects => hanging_connects(round, 3_000),
                Self::UdpSpray => spray(round, 2_000, 10),
                Self::DeadZone => dead_zone(round, target.resolver),
                Self::Malformed => malformed(round, 5_000),
                Self::UnreadAnswers => unread_answers(round, gateway(target.tunnel), 1_000),
            }
            .with_context(|| self.name().to_owned())?;
        }
        Ok(())
    }
}

/// A flood under way. It ends when dropped.
#[derive(Debug)]
pub struct Flooding {
    flood: Flood,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Flooding {
    /// Ends the flood.
    ///
    /// # Errors
    /// It failed before.
    pub fn stop(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let Some(thread) = self.thread.take() else { return Ok(()) };
        thread.join().unwrap_or_else(|_| anyhow::bail!("{} panicked", self.flood.name()))
    }
}

impl Drop for Flooding {
    fn drop(&mut self) {
        // The test has failed for another reason.
        let _ = self.end();
    }
}

impl Lab {
    /// Makes the corporate network's addresses from 10.20.128.0 on silent: their packets are dropped on the way.
    ///
    /// # Errors
    /// The route can't be added.
    pub fn silence_addresses(&self) -> Result<()> {
        self.vpn.script("ip route add blackhole 10.20.128.0/17")
    }
}

/// What the floods need to know of the lab.
#[derive(Debug, Clone, Copy)]
struct Target {
    /// The codespace's end of the tunnel.
    tunnel: Ipv4Addr,
    /// The codespace's resolver.
    resolver: SocketAddr,
}

/// A round of a flood.
struct Round<'a> {
    stop: &'a AtomicBool,
    begun: SyncSender<()>,
}

impl Round<'_> {
    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// The round's packets are sent. Only the first one is waited for.
    fn complete(&self) {
        let _ = self.begun.try_send(());
    }

    /// Calls `send` for 0, 1, … `count`, at most `rate` times a second, until the flood is stopped.
    fn at_rate(&self, count: u32, rate: u32, mut send: impl FnMut(u32) -> Result<()>) -> Result<()> {
        let start = Instant::now();
        for i in 0..count {
            let due = start + Duration::from_secs(1) * i / rate;
            while Instant::now() < due {
                if self.is_stopped() {
                    return Ok(());
                }
                thread::sleep(due.saturating_duration_since(Instant::now()).min(Duration::from_millis(50)));
            }
            send(i)?;
        }
        Ok(())
    }

    /// Keeps what the round has opened for a while.
    fn keep<T>(&self, opened: Vec<T>) {
        let until = Instant::now() + Duration::from_secs(5);
        while Instant::now() < until && !self.is_stopped() {
            thread::sleep(Duration::from_millis(50));
        }
        drop(opened);
    }
}

fn silent(i: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(SILENT.to_bits() + i)
}

fn scan(round: &Round<'_>, source: Ipv4Addr, count: u32) -> Result<()> {
    let socket = raw_socket()?;
    round.at_rate(count, RATE, |i| {
        let to = silent(i);
        let mut syn = [&(20_000 + (i % 40_000) as u16).to_be_bytes()[..], &80_u16.to_be_bytes()].concat();
        syn.extend(i.to_be_bytes());
        // No acknowledgment, five words, SYN, a window, no checksum yet, no urgent data.
        syn.extend([0, 0, 0, 0, 0x50, 2, 4, 0, 0, 0, 0, 0]);
        let checksum = tcp_checksum(source, to, &syn);
        syn[16..18].copy_from_slice(&checksum.to_be_bytes());
        send_raw(&socket, Header { source, destination: to, protocol: 6, fragment: 0 }, &syn);
        Ok(())
    })?;
    round.complete();
    Ok(())
}

fn tcp_checksum(source: Ipv4Addr, destination: Ipv4Addr, segment: &[u8]) -> u16 {
    let pseudo = [&source.octets()[..], &destination.octets(), &[0, 6, 0, segment.len() as u8]].concat();
    let words = pseudo.chunks(2).chain(segment.chunks(2));
    let sum: u32 =
        words.map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low))).sum();
    !((sum & 0xffff) + (sum >> 16)) as u16
}

/// A socket for packets with headers of our own (raw(7), IPPROTO_RAW).
fn raw_socket() -> Result<Socket> {
    Ok(Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)))?)
}

struct Header {
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: u8,
    fragment: u16,
}

fn send_raw(socket: &Socket, header: Header, payload: &[u8]) {
    let mut packet = vec![0x45, 0];
    packet.extend((20 + payload.len() as u16).to_be_bytes());
    // The kernel chooses the identification and computes the checksum.
    packet.extend([0, 0]);
    packet.extend(header.fragment.to_be_bytes());
    packet.extend([64, header.protocol, 0, 0]);
    packet.extend(header.source.octets());
    packet.extend(header.destination.octets());
    packet.extend(payload);
    let to = SockAddr::from(SocketAddr::from(SocketAddrV4::new(header.destination, 0)));
    // The codespace's kernel may refuse a packet, or have no room for it.
    let _ = socket.send_to(&packet, &to);
}

/// Begins connections without waiting for them.
fn connects(round: &Round<'_>, count: u32, to: SocketAddrV4) -> Result<Vec<Socket>> {
    let mut sockets = Vec::new();
    for _ in 0..count {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        sockets.push(socket);
    }
    round.at_rate(count, RATE, |i| {
        let _ = sockets[i as usize].connect(&SocketAddr::from(to).into());
        Ok(())
    })?;
    Ok(sockets)
}

fn hanging_connects(round: &Round<'_>, count: u32) -> Result<()> {
    let sockets = connects(round, count, SocketAddrV4::new(HOLE, 80))?;
    round.complete();
    round.keep(sockets);
    Ok(())
}

fn spray(round: &Round<'_>, sockets: u32, targets: u32) -> Result<()> {
    let mut opened = Vec::new();
    for _ in 0..sockets {
        opened.push(UdpSocket::bind("0.0.0.0:0")?);
    }
    round.at_rate(sockets * targets, RATE, |i| {
        let socket = &opened[(i % sockets) as usize];
        // An ICMP error for an earlier datagram is reported here.
        let _ = socket.send_to(b"spray", SocketAddrV4::new(silent(i), 9000));
        Ok(())
    })?;
    round.complete();
    round.keep(opened);
    Ok(())
}

fn dead_zone(round: &Round<'_>, resolver: SocketAddr) -> Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    let first = Instant::now().elapsed().subsec_nanos() as u16;
    round.at_rate(1_000, 200, |i| {
        if i == 200 {
            round.complete();
        }
        let name = format!("n{i}x{first}.{DEAD_ZONE}");
        let _ = socket.send_to(&question(i as u16, &name, 1), resolver);
        Ok(())
    })
}

/// A zone whose server does not answer.
const DEAD_ZONE: &str = "silent.corp.internal";

/// Packets of the forwarded protocols, and some others, with contents that mean nothing.
fn malformed(round: &Round<'_>, count: u32) -> Result<()> {
    const PROTOCOLS: [u8; 5] = [6, 17, 1, 2, 132];
    let socket = raw_socket()?;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    round.at_rate(count, RATE, |i| {
        let len = (random() % 1200) as usize;
        let fragment = if i % 7 == 0 { (random() as u16) & 0x3fff } else { 0 };
        let payload: Vec<u8> = (0..len).map(|_| random() as u8).collect();
        let protocol = PROTOCOLS[i as usize % PROTOCOLS.len()];
        let header = Header { source: Ipv4Addr::UNSPECIFIED, destination: SERVER, protocol, fragment };
        send_raw(&socket, header, &payload);
        Ok(())
    })?;
    round.complete();
    Ok(())
}

fn unread_answers(round: &Round<'_>, gateway: Ipv4Addr, count: u32) -> Result<()> {
    let huge = question(7, "huge.corp.internal", 16);
    let framed = [&(huge.len() as u16).to_be_bytes()[..], &huge].concat().repeat(32);
    let streams = connects(round, count, SocketAddrV4::new(gateway, 53))?;
    // A stream that is not connected yet, or never will be, asks in vain.
    round.at_rate(count, RATE, |i| {
        let _ = streams[i as usize].send(&framed);
        Ok(())
    })?;
    round.complete();
    round.keep(streams);
    Ok(())
}

fn tunnel_address(lab: &Lab) -> Result<Ipv4Addr> {
    let address = lab.codespace.shell("ip -4 -o addr show dev ghnet0 | awk '{print $4}'")?;
    let (address, _) = address.split_once('/').context("the tunnel's address has no prefix length")?;
    address.parse().context("the tunnel's address")
}

/// The laptop's end: the tunnel is a network of four addresses, and the two in the middle are used.
fn gateway(tunnel: Ipv4Addr) -> Ipv4Addr {
    Ipv4Addr::from_bits(tunnel.to_bits() ^ 0b11)
}

fn raise_descriptors() -> nix::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
}
