//! The servers no tool offers: each behaves in one particular way, and says what it saw.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use super::Host;

mod http;
mod pattern;

pub(super) use http::read_path;
pub use pattern::Pattern;

/// TCP and UDP: what comes goes back.
pub const ECHO: u16 = 7;
/// TCP: takes everything, and records how the connection ends.
pub const DISCARD: u16 = 9;
/// TCP: never reads.
pub const STALL: u16 = 9001;
/// TCP: reads to the end of file, and only then answers with the number of bytes.
pub const COUNT: u16 = 9002;
/// TCP: says `bye` and ends its direction at once, then takes what comes, and records its end.
pub const BYE: u16 = 9003;
/// TCP: resets the connection at the first byte.
pub const RESET: u16 = 9004;

/// The corporate server's addresses.
const CORPORATE: [&str; 4] = ["10.20.0.10", "10.20.0.53", "fd20:20::10", "fd20:20::53"];

/// Something a server saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// Which server.
    pub port: u16,
    /// The client's address.
    pub peer: SocketAddr,
    /// What it saw.
    pub kind: EventKind,
}

/// What a server saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// A connection came.
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
}

impl Servers {
    /// The corporate server's.
    pub(super) fn corporate(host: &Host) -> Result<Arc<Self>> {
        Self::run(host, |servers| {
            servers.tcp(80, |_, stream, peer| http::serve("corp", stream, peer))?;
            servers.tcp(ECHO, |_, stream, _| echo(stream))?;
            servers.tcp(DISCARD, |servers, stream, peer| servers.discard(DISCARD, stream, peer))?;
            servers.tcp(STALL, |_, stream, _| stall(stream))?;
            servers.tcp(COUNT, |_, stream, _| count(stream))?;
            servers.tcp(BYE, |servers, stream, peer| servers.bye(stream, peer))?;
            servers.tcp(RESET, |_, stream, _| reset(stream))?;
            udp_echo()
        })
    }

    /// A web server that says the host's name.
    pub(super) fn web(host: &Host, port: u16) -> Result<Arc<Self>> {
        let name = host.name();
        Self::run(host, move |servers| {
            servers.tcp(port, move |_, stream, peer| http::serve(name, stream, peer))
        })
    }

    /// A server of another module's.
    pub(super) fn custom<F>(host: &Host, port: u16, serve: fn(TcpStream) -> F) -> Result<Arc<Self>>
    where
        F: Future<Output = io::Result<()>> + Send + 'static,
    {
        Self::run(host, move |servers| servers.tcp(port, move |_, stream, _| serve(stream)))
    }

    /// Runs servers on a thread in the host's network. `listen` opens all sockets.
    fn run(
        host: &Host,
        listen: impl FnOnce(&Arc<Self>) -> io::Result<()> + Send + 'static,
    ) -> Result<Arc<Self>> {
        let servers = Arc::new(Self::default());
        let (started, start) = mpsc::channel();
        let ours = servers.clone();
        host.thread(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.expect("a runtime can be built");
            runtime.block_on(async {
                let listening = listen(&ours);
                let failed = listening.is_err();
                if started.send(listening).is_ok() && !failed {
                    std::future::pending().await
                }
            });
        });
        start.recv()?.with_context(|| format!("opening the servers of {}", host.name()))?;
        Ok(servers)
    }

    /// Everything seen so far.
    pub fn events(&self) -> Vec<Event> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for an event.
    ///
    /// # Errors
    /// It does not come in time; the message shows what came.
    pub fn wait_for(&self, limit: Duration, wanted: impl Fn(&Event) -> bool) -> Result<Event> {
        let deadline = Instant::now() + limit;
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(event) = events.iter().find(|event| wanted(event)) {
                return Ok(*event);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("the server did not see it within {limit:?}, but {events:?}");
            }
            events = self.happened.wait_timeout(events, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn record(&self, port: u16, peer: SocketAddr, kind: EventKind) {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).push(Event { port, peer, kind });
        self.happened.notify_all();
    }

    fn tcp<S, F>(self: &Arc<Self>, port: u16, serve: S) -> io::Result<()>
    where
        S: Fn(Arc<Self>, TcpStream, SocketAddr) -> F + Send + 'static,
        F: Future<Output = io::Result<()>> + Send + 'static,
    {
        let listener = TcpListener::from_std(socket(Type::STREAM, Protocol::TCP, port)?.into())?;
        let servers = self.clone();
        local(async move {
            loop {
                let (stream, peer) = listener.accept().await?;
                let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                servers.record(port, peer, EventKind::Connected);
                // What a client makes of its connection is its own affair.
                tokio::spawn(serve(servers.clone(), stream, peer));
            }
        });
        Ok(())
    }

    async fn discard(self: Arc<Self>, port: u16, mut stream: TcpStream, peer: SocketAddr) -> io::Result<()> {
        let mut total = 0;
        let mut buffer = vec![0; 256 * 1024];
        let kind = loop {
            match stream.read(&mut buffer).await {
                Ok(0) => break EventKind::Ended(total),
                Ok(read) => total += read as u64,
                Err(error) => break EventKind::Broken(total, error.kind()),
            }
        };
        self.record(port, peer, kind);
        Ok(())
    }

    async fn bye(self: Arc<Self>, mut stream: TcpStream, peer: SocketAddr) -> io::Result<()> {
        stream.write_all(b"bye\n").await?;
        stream.shutdown().await?;
        self.discard(BYE, stream, peer).await
    }
}

/// A listening or bound socket for both families.
fn socket(kind: Type, protocol: Protocol, port: u16) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV6, kind, Some(protocol))?;
    socket.set_only_v6(false)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::from(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))))?;
    if kind == Type::STREAM {
        socket.listen(1024)?;
    }
    Ok(socket)
}

/// Runs an endless task on the current thread's runtime.
fn local(task: impl Future<Output = io::Result<std::convert::Infallible>> + 'static + Send) {
    tokio::spawn(task);
}

/// A UDP echo on each of the corporate server's addresses: one on all of them would answer from whatever
/// address the kernel prefers, and not from the one it was asked at.
fn udp_echo() -> io::Result<()> {
    for address in CORPORATE {
        let domain = if address.contains(':') { Domain::IPV6 } else { Domain::IPV4 };
        let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        let address = address.parse::<IpAddr>().map_err(io::Error::other)?;
        socket.set_nonblocking(true)?;
        socket.set_recv_buffer_size(8 << 20)?;
        socket.bind(&SockAddr::from(SocketAddr::new(address, ECHO)))?;
        let socket = UdpSocket::from_std(socket.into())?;
        local(async move {
            let mut buffer = vec![0; 1 << 16];
            loop {
                // An ICMP error about an earlier answer is no reason to stop.
                let Ok((len, peer)) = socket.recv_from(&mut buffer).await else { continue };
                let _ = socket.send_to(&buffer[..len], peer).await;
            }
        });
    }
    Ok(())
}

async fn echo(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut read, mut write) = stream.split();
    tokio::io::copy(&mut read, &mut write).await?;
    write.shutdown().await
}

async fn stall(stream: TcpStream) -> io::Result<()> {
    let _open = stream;
    std::future::pending().await
}

async fn count(mut stream: TcpStream) -> io::Result<()> {
    let mut hash = Sha256::new();
    let mut total = 0u64;
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match stream.read(&mut buffer).await? {
            0 => break,
            read => {
                total += read as u64;
                hash.update(&buffer[..read]);
            }
        }
    }
    stream.write_all(format!("{total} {}\n", hex(hash)).as_bytes()).await?;
    stream.shutdown().await
}

async fn reset(mut stream: TcpStream) -> io::Result<()> {
    stream.read_u8().await?;
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))
}

/// A finished hash as `sha256sum` writes it.
pub fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
