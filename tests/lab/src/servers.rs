//! Servers for which there is no tool: each behaves in one particular way, and records events.
//!
//! Each listener and each connection has a thread: with an async runtime, `cargo xtask` would have one more dependency to
//! compile before it starts.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

use super::Host;

mod http;
mod pattern;

pub(super) use http::read_path;
pub use pattern::{Check, Pattern};

/// TCP and UDP: sends back what it receives.
pub const ECHO: u16 = 7;
/// TCP: reads everything, and records the end of the connection.
pub const DISCARD: u16 = 9;
/// TCP: never reads.
pub const STALL: u16 = 9001;
/// TCP: reads to the end of file, then answers with the number of bytes and their hash.
pub const COUNT: u16 = 9002;
/// TCP: sends `bye`, shuts down its direction at once, then reads to the end, and records that end.
pub const BYE: u16 = 9003;
/// TCP: resets the connection at the first byte.
pub const RESET: u16 = 9004;
/// TCP: reads `COUNT MILLISECONDS` to the end of file, then sends the first COUNT bytes of the [`Pattern`], evenly over
/// this time, or the rest at once after [`Servers::hurry`].
pub const DRIP: u16 = 9005;
/// TCP: shuts down its direction at once, then reads to the end, and records that end; as [`EventKind::Broken`] if what
/// it read is not the [`Pattern`].
pub const SINK: u16 = 9006;

/// TCP: a web server as port 80, where PostgreSQL would be.
pub const DATABASE: u16 = 5432;

/// How many pieces [`DRIP`] sends.
const PIECES: u64 = 500;

/// Size of a read, in bytes.
const BUFFER: usize = 256 * 1024;

/// The corporate server's addresses.
const CORPORATE: [&str; 4] = ["10.20.0.10", "10.20.0.53", "fd20:20::10", "fd20:20::53"];

/// An event at a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// The server's port.
    pub port: u16,
    /// The client's address.
    pub peer: SocketAddr,
    /// What happened.
    pub kind: EventKind,
}

/// What happened at a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// A connection was accepted.
    Connected,
    /// The client's end of file, after this many bytes.
    Ended(u64),
    /// The connection broke, after this many bytes.
    Broken(u64, io::ErrorKind),
}

/// The servers of one host, running until the lab ends.
#[derive(Debug, Default)]
pub struct Servers {
    events: Mutex<Vec<Event>>,
    happened: Condvar,
    hurry: AtomicBool,
}

impl Servers {
    /// The servers of the corporate host.
    pub(super) fn corporate(host: &Host) -> Result<Arc<Self>> {
        Self::run(host, |servers| {
            servers.tcp(80, |_, stream, peer| http::serve("corp", stream, peer))?;
            servers.tcp(DATABASE, |_, stream, peer| http::serve("database", stream, peer))?;
            servers.tcp(ECHO, |_, stream, _| echo(stream))?;
            servers.tcp(DISCARD, |servers, stream, peer| {
                servers.discard(DISCARD, stream, peer);
                Ok(())
            })?;
            servers.tcp(STALL, |_, stream, _| {
                // Keeps the connection open until this process ends.
                std::mem::forget(stream);
                Ok(())
            })?;
            servers.tcp(COUNT, |_, stream, _| count(stream))?;
            servers.tcp(BYE, |servers, stream, peer| servers.bye(stream, peer))?;
            servers.tcp(RESET, |_, stream, _| reset(stream))?;
            servers.tcp(DRIP, |servers, stream, _| drip(&servers.hurry, stream))?;
            servers.tcp(SINK, |servers, stream, peer| servers.sink(stream, peer))?;
            udp_echo()
        })
    }

    /// A web server that answers with the host's name.
    pub(super) fn web(host: &Host, port: u16) -> Result<Arc<Self>> {
        let name = host.name();
        Self::run(host, move |servers| {
            servers.tcp(port, move |_, stream, peer| http::serve(name, stream, peer))
        })
    }

    /// A server that is implemented in another module.
    pub(super) fn custom(
        host: &Host,
        port: u16,
        serve: fn(TcpStream) -> io::Result<()>,
    ) -> Result<Arc<Self>> {
        Self::run(host, move |servers| servers.tcp(port, move |_, stream, _| serve(stream)))
    }

    /// Opens servers in the host's network. Threads that `listen` starts are in the same network.
    fn run(
        host: &Host,
        listen: impl FnOnce(&Arc<Self>) -> io::Result<()> + Send + 'static,
    ) -> Result<Arc<Self>> {
        let servers = Arc::new(Self::default());
        let listeners = servers.clone();
        let listening =
            host.thread(move || listen(&listeners)).join().expect("opening sockets does not panic");
        listening.with_context(|| format!("opening the servers of {}", host.name()))?;
        Ok(servers)
    }

    /// All events so far.
    pub fn events(&self) -> Vec<Event> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets [`DRIP`] send the rest of each answer at once.
    pub fn hurry(&self) {
        self.hurry.store(true, Ordering::Relaxed);
    }

    /// Waits for an event.
    ///
    /// # Errors
    /// It does not happen in time; the message shows all events.
    pub fn wait_for(&self, limit: Duration, wanted: impl Fn(&Event) -> bool) -> Result<Event> {
        let deadline = Instant::now() + limit;
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(event) = events.iter().find(|event| wanted(event)) {
                return Ok(*event);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("the event did not happen within {limit:?}; events: {events:?}");
            }
            events = self.happened.wait_timeout(events, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn record(&self, port: u16, peer: SocketAddr, kind: EventKind) {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).push(Event { port, peer, kind });
        self.happened.notify_all();
    }

    fn tcp<S>(self: &Arc<Self>, port: u16, serve: S) -> io::Result<()>
    where
        S: Fn(&Self, TcpStream, SocketAddr) -> io::Result<()> + Clone + Send + 'static,
    {
        let listener = TcpListener::from(socket(Type::STREAM, Protocol::TCP, port)?);
        let servers = self.clone();
        start(move || {
            while let Ok((stream, peer)) = listener.accept() {
                let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                servers.record(port, peer, EventKind::Connected);
                let (servers, serve) = (servers.clone(), serve.clone());
                // An error of a connection concerns only its client.
                let _ = start(move || drop(serve(&servers, stream, peer)));
            }
        })
    }

    fn discard(&self, port: u16, mut stream: TcpStream, peer: SocketAddr) {
        let mut total = 0;
        let kind = match read_all(&mut stream, |bytes| {
            total += bytes.len() as u64;
            Ok(())
        }) {
            Ok(()) => EventKind::Ended(total),
            Err(error) => EventKind::Broken(total, error.kind()),
        };
        self.record(port, peer, kind);
    }

    fn sink(&self, mut stream: TcpStream, peer: SocketAddr) -> io::Result<()> {
        stream.shutdown(Shutdown::Write)?;
        let mut check = pattern::Check::default();
        let kind = match read_all(&mut stream, |bytes| check.next(bytes)) {
            Ok(()) => EventKind::Ended(check.count()),
            Err(error) => EventKind::Broken(check.count(), error.kind()),
        };
        self.record(SINK, peer, kind);
        Ok(())
    }

    fn bye(&self, mut stream: TcpStream, peer: SocketAddr) -> io::Result<()> {
        stream.write_all(b"bye\n")?;
        stream.shutdown(Shutdown::Write)?;
        self.discard(BYE, stream, peer);
        Ok(())
    }
}

/// Starts a detached thread.
fn start(body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name("lab-server".to_owned()).spawn(body).map(drop)
}

/// Reads to the end of file.
fn read_all(stream: &mut impl Read, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            read => take(&buffer[..read])?,
        }
    }
}

/// A listening or bound socket for both families.
fn socket(kind: Type, protocol: Protocol, port: u16) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV6, kind, Some(protocol))?;
    socket.set_only_v6(false)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SockAddr::from(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))))?;
    if kind == Type::STREAM {
        socket.listen(1024)?;
    }
    Ok(socket)
}

/// A UDP echo on each of the corporate server's addresses. A wildcard socket would answer from the address that the kernel
/// prefers, which may differ from the one that the client used.
fn udp_echo() -> io::Result<()> {
    for address in CORPORATE {
        let domain = if address.contains(':') { Domain::IPV6 } else { Domain::IPV4 };
        let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        let address = address.parse::<IpAddr>().map_err(io::Error::other)?;
        socket.set_recv_buffer_size(8 << 20)?;
        socket.bind(&SockAddr::from(SocketAddr::new(address, ECHO)))?;
        let socket = UdpSocket::from(socket);
        start(move || {
            let mut buffer = vec![0; 1 << 16];
            loop {
                // The error may be an ICMP error for an earlier answer.
                let Ok((len, peer)) = socket.recv_from(&mut buffer) else { continue };
                let _ = socket.send_to(&buffer[..len], peer);
            }
        })?;
    }
    Ok(())
}

fn echo(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut answers = stream.try_clone()?;
    read_all(&mut stream, |bytes| answers.write_all(bytes))?;
    stream.shutdown(Shutdown::Write)
}

fn count(mut stream: TcpStream) -> io::Result<()> {
    let mut hash = Sha256::new();
    let mut total = 0u64;
    read_all(&mut stream, |bytes| {
        total += bytes.len() as u64;
        hash.update(bytes);
        Ok(())
    })?;
    stream.write_all(format!("{total} {}\n", hex(hash)).as_bytes())?;
    stream.shutdown(Shutdown::Write)
}

fn drip(hurry: &AtomicBool, mut stream: TcpStream) -> io::Result<()> {
    let mut request = String::new();
    stream.read_to_string(&mut request)?;
    let mut numbers = request.split_whitespace().map(|word| word.parse::<u64>().map_err(io::Error::other));
    let mut number = || numbers.next().unwrap_or(Ok(0));
    let (count, time) = (number()?, Duration::from_millis(number()?));
    let mut pattern = Pattern::new(count);
    let piece = usize::try_from((count / PIECES).max(1)).unwrap_or(usize::MAX);
    while let Some(block) = pattern.next_block() {
        for bytes in block.chunks(piece) {
            stream.write_all(bytes)?;
            if !hurry.load(Ordering::Relaxed) {
                thread::sleep(time / PIECES as u32);
            }
        }
    }
    stream.shutdown(Shutdown::Write)
}

fn reset(mut stream: TcpStream) -> io::Result<()> {
    stream.read_exact(&mut [0])?;
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))
}

/// A finished hash in the format of `sha256sum`.
pub fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
