//! Traffic of programs in the codespace that checks every byte, and goes on for as long as a test wants: connections
//! that have to survive what happens to the link.
//!
//! The clients are sockets of this process in the codespace's network.

mod everything;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::servers::{COUNT, Check, DRIP, Event, EventKind, Pattern, SINK};
use crate::{Host, Lab, Process};
pub use everything::{Everything, MOVES};

/// The corporate server.
const CORPORATE: &str = "10.20.0.10";
/// A client moves so much at once, in bytes.
const PIECE: usize = 16 * 1024;
/// A client that is not in a hurry waits so long between pieces.
const PAUSE: Duration = Duration::from_millis(40);
/// What was sent arrives at the server within this time, in which links may be lost and replaced.
const ARRIVED: Duration = Duration::from_secs(120);
/// Interval at which a datagram is sent again.
const AGAIN: Duration = Duration::from_millis(200);

/// Whether clients take their time, so that they are under way while something happens.
#[derive(Debug, Clone, Default)]
pub struct Pace(Arc<AtomicBool>);

impl Pace {
    /// From now on clients finish as fast as they can.
    pub fn hurry(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn pause(&self) {
        if !self.0.load(Ordering::Relaxed) {
            thread::sleep(PAUSE);
        }
    }
}

/// A connection in use.
#[derive(Debug)]
pub struct Client {
    name: &'static str,
    thread: JoinHandle<Result<()>>,
    moved: Arc<AtomicU64>,
}

impl Client {
    fn start(
        lab: &Lab,
        name: &'static str,
        body: impl FnOnce(&AtomicU64) -> Result<()> + Send + 'static,
    ) -> Self {
        let moved = Arc::<AtomicU64>::default();
        let counter = moved.clone();
        let thread = lab.codespace.thread(move || body(&counter));
        Self { name, thread, moved }
    }

    /// Sends the first `len` bytes of the [`Pattern`], half-closes, and compares the hash that comes back.
    pub fn upload(lab: &Lab, len: u64, pace: &Pace) -> Self {
        let pace = pace.clone();
        Self::start(lab, "upload", move |moved| {
            let mut stream = connect(COUNT)?;
            send_pattern(&mut stream, len, &pace, moved)?;
            stream.shutdown(Shutdown::Write)?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            ensure!(answer == format!("{len} {}\n", Pattern::sha256(len)), "the server received {answer:?}");
            Ok(())
        })
    }

    /// Receives the first `len` bytes of the [`Pattern`].
    pub fn download(lab: &Lab, len: u64, pace: &Pace) -> Self {
        let pace = pace.clone();
        Self::start(lab, "download", move |moved| {
            let mut stream = connect(80)?;
            stream.write_all(format!("GET /bytes/{len} HTTP/1.1\r\n\r\n").as_bytes())?;
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte)?;
                head.extend(byte);
            }
            receive_pattern(&mut stream, len, &pace, moved)
        })
    }

    /// Half-closes its side first: then the server sends `len` bytes over `time`, or until [`Servers::hurry`].
    ///
    /// [`Servers::hurry`]: crate::Servers::hurry
    pub fn half_closed(lab: &Lab, len: u64, time: Duration) -> Self {
        Self::start(lab, "half-closed by the codespace", move |moved| {
            let mut stream = connect(DRIP)?;
            stream.write_all(format!("{len} {}\n", time.as_millis()).as_bytes())?;
            stream.shutdown(Shutdown::Write)?;
            let hurry = Pace::default();
            hurry.hurry();
            receive_pattern(&mut stream, len, &hurry, moved)
        })
    }

    /// The server half-closes its side first: then about `len` bytes of the [`Pattern`] go there.
    pub fn half_closed_by_server(lab: &Lab, len: u64, pace: &Pace) -> Self {
        /// Makes each length, by which the server's event is found, another one.
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let len = len + NUMBER.fetch_add(1, Ordering::Relaxed);
        let (pace, servers) = (pace.clone(), lab.servers[0].clone());
        Self::start(lab, "half-closed by the server", move |moved| {
            let mut stream = connect(SINK)?;
            ensure!(stream.read(&mut [0])? == 0, "the server has not half-closed");
            send_pattern(&mut stream, len, &pace, moved)?;
            drop(stream);
            let arrived = |event: &Event| event.port == SINK && event.kind == EventKind::Ended(len);
            servers.wait_for(ARRIVED, arrived).map(drop)
        })
    }

    /// How many bytes it has moved.
    pub fn moved(&self) -> u64 {
        self.moved.load(Ordering::Relaxed)
    }

    /// Waits until its connection is reset.
    ///
    /// # Errors
    /// It goes on, or ends in another way.
    pub fn is_reset(self, deadline: Instant) -> Result<()> {
        let name = self.name;
        let Err(error) = self.finish(deadline) else { bail!("{name}: it finished") };
        let reset = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
        let is_reset = |error: &io::Error| reset.contains(&error.kind());
        ensure!(error.downcast_ref::<io::Error>().is_some_and(is_reset), "it was not reset: {error:#}");
        Ok(())
    }

    /// Waits until it is finished.
    ///
    /// # Errors
    /// It failed, a byte was wrong, or it takes longer than until `deadline`.
    pub fn finish(self, deadline: Instant) -> Result<()> {
        while !self.thread.is_finished() {
            if Instant::now() >= deadline {
                bail!("{}: not finished in time, after {} bytes", self.name, self.moved());
            }
            thread::sleep(Duration::from_millis(10));
        }
        let result = self.thread.join().unwrap_or_else(|_| bail!("it panicked"));
        result.with_context(|| format!("{}, after {} bytes", self.name, self.moved.load(Ordering::Relaxed)))
    }
}

fn connect(port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((CORPORATE, port))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn send_pattern(stream: &mut TcpStream, len: u64, pace: &Pace, moved: &AtomicU64) -> io::Result<()> {
    let mut pattern = Pattern::new(len);
    while let Some(block) = pattern.next_block() {
        for piece in block.chunks(PIECE) {
            stream.write_all(piece)?;
            moved.fetch_add(piece.len() as u64, Ordering::Relaxed);
            pace.pause();
        }
    }
    Ok(())
}

fn receive_pattern(stream: &mut TcpStream, len: u64, pace: &Pace, moved: &AtomicU64) -> Result<()> {
    let mut check = Check::default();
    let mut piece = [0; PIECE];
    loop {
        match stream.read(&mut piece)? {
            0 => break,
            read => check.next(&piece[..read]).context("a byte was wrong")?,
        }
        moved.store(check.count(), Ordering::Relaxed);
        pace.pause();
    }
    ensure!(check.count() == len, "the connection ended early");
    Ok(())
}

/// A UDP mapping: a socket in the codespace, and one in the corporate network that knows it only by the laptop.
#[derive(Debug)]
pub struct Datagrams {
    client: UdpSocket,
    server: UdpSocket,
    /// What the server sees as the client.
    peer: SocketAddr,
    number: u32,
}

impl Datagrams {
    /// Opens the sockets, and exchanges datagrams. `port` is unique in the lab.
    ///
    /// # Errors
    /// Nothing comes back.
    pub fn open(lab: &Lab, port: u16) -> Result<Self> {
        let bound = |host: &Host, address: &'static str, port: u16| -> Result<UdpSocket> {
            let socket = host.thread(move || UdpSocket::bind((address, port))).join();
            let socket = socket.expect("opening a socket does not panic")?;
            socket.set_read_timeout(Some(AGAIN))?;
            Ok(socket)
        };
        let server = bound(&lab.corp, CORPORATE, port)?;
        let client = bound(&lab.codespace, "0.0.0.0", 0)?;
        client.connect((CORPORATE, port))?;
        let peer = server.local_addr()?;
        let mut datagrams = Self { client, server, peer, number: 0 };
        datagrams.peer = datagrams.ask(Duration::from_secs(10))?;
        datagrams.tell(Duration::from_secs(10))?;
        Ok(datagrams)
    }

    /// Sends to the server until something arrives; returns what it sees as the client.
    fn ask(&mut self, limit: Duration) -> Result<SocketAddr> {
        let deadline = Instant::now() + limit;
        let (question, mut buffer) = (self.next(), [0; 64]);
        while Instant::now() < deadline {
            self.client.send(&question)?;
            while let Ok((len, peer)) = self.server.recv_from(&mut buffer) {
                if buffer[..len] == question {
                    return Ok(peer);
                }
            }
        }
        bail!("no datagram reaches the server")
    }

    /// The server sends to the client that it knows, until something arrives: the mapping is the old one.
    ///
    /// # Errors
    /// Nothing arrives in time.
    pub fn tell(&mut self, limit: Duration) -> Result<Duration> {
        let (start, deadline) = (Instant::now(), Instant::now() + limit);
        let (answer, mut buffer) = (self.next(), [0; 64]);
        while Instant::now() < deadline {
            self.server.send_to(&answer, self.peer)?;
            // An ICMP error is reported once; datagrams from before may still arrive.
            while let Ok(len) = self.client.recv(&mut buffer) {
                if buffer[..len] == answer {
                    return Ok(start.elapsed());
                }
            }
        }
        bail!("no datagram from the server reaches the client, which was {}", self.peer)
    }

    /// A datagram from the client reaches the server by the same mapping, and one of the server comes back.
    ///
    /// # Errors
    /// Nothing arrives in time, or another mapping is used.
    pub fn exchange(&mut self, limit: Duration) -> Result<()> {
        let peer = self.ask(limit)?;
        ensure!(peer == self.peer, "the mapping was {}, and is {peer}", self.peer);
        self.tell(limit).map(drop)
    }

    /// A datagram from the client reaches the server by a new mapping, and one of the server comes back.
    ///
    /// # Errors
    /// Nothing arrives in time, or the old mapping is still used.
    pub fn begin_anew(&mut self, limit: Duration) -> Result<()> {
        let peer = self.ask(limit)?;
        ensure!(peer != self.peer, "the mapping is still {peer}");
        self.peer = peer;
        self.tell(limit).map(drop)
    }

    fn next(&mut self) -> [u8; 4] {
        self.number += 1;
        self.number.to_be_bytes()
    }
}

/// An echo session: a ping that goes on.
#[derive(Debug)]
pub struct Ping(Process);

impl Ping {
    /// Starts it, and waits for its first answer.
    ///
    /// # Errors
    /// There is no answer.
    pub fn start(lab: &Lab) -> Result<Self> {
        let ping = Self(lab.codespace.spawn(&format!("ping -n -i 0.2 {CORPORATE}"))?);
        ping.next(Duration::from_secs(10))?;
        Ok(ping)
    }

    /// Waits for the next answer to a request.
    ///
    /// # Errors
    /// There is none in time.
    pub fn next(&self, limit: Duration) -> Result<Duration> {
        let answers = || self.0.stdout().matches("bytes from").count();
        let (start, before) = (Instant::now(), answers());
        while answers() == before {
            ensure!(start.elapsed() < limit, "no answer to a ping:\n{}", self.0.stdout());
            thread::sleep(Duration::from_millis(20));
        }
        Ok(start.elapsed())
    }
}
