//! A codespace made of smoltcp, at the other end of a link that is a pipe in memory.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gh_net_common::frame::Frame;
use gh_net_common::framed::{FrameReader, FrameWriter, NoiseLimit};
use gh_net_common::lanes::{LinkReader, LinkWriter};
use gh_net_testkit::net::Tun;
use smoltcp::iface::{Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp;
use smoltcp::time::Instant as SmolInstant;
use tokio::io::{DuplexStream, ReadHalf, WriteHalf, split};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

use super::super::{Control, IdleTimeout, Io, LinkEnd, LinkIo, OwnAddresses};
use crate::resolver::Resolver;

/// The codespace's address in the tunnel.
pub(super) const CODESPACE: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 2);
/// The engine's.
pub(super) const GATEWAY: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 1);
pub(super) const MTU: u16 = 65_520;
/// The pipe's capacity in each direction.
const PIPE: usize = 64 * 1024;
/// Time limit for every wait.
const PATIENCE: Duration = Duration::from_secs(60);

/// The laptop's end of a link.
pub(super) type Laptop = LinkIo<ReadHalf<DuplexStream>, WriteHalf<DuplexStream>>;

/// The codespace's network and its end of the link.
pub(super) struct Codespace {
    interface: Interface,
    sockets: SocketSet<'static>,
    wire: Tun,
    reader: LinkReader<ReadHalf<DuplexStream>>,
    writer: LinkWriter<WriteHalf<DuplexStream>>,
    started: Instant,
    taken: u64,
    next_port: u16,
    /// Packets that are not TCP, as they came.
    pub(super) others: VecDeque<Bytes>,
    /// Frames that are not packets, pings or counts.
    pub(super) frames: VecDeque<Frame>,
}

/// The laptop: an io that runs in its own task.
pub(super) struct Running {
    pub(super) control: mpsc::Sender<Control>,
    task: JoinHandle<(Io, LinkEnd, Laptop)>,
}

impl Running {
    /// The io and how its link ended.
    pub(super) async fn end(self) -> (Io, LinkEnd) {
        let (io, end, _) = self.end_with_link().await;
        (io, end)
    }

    /// The same, and the link with what is queued in it.
    pub(super) async fn end_with_link(self) -> (Io, LinkEnd, Laptop) {
        timeout(PATIENCE, self.task).await.expect("the io stops").expect("the io does not panic")
    }
}

/// An io that forwards everything, loopback included.
pub(super) fn io() -> Io {
    io_with(IdleTimeout(Duration::ZERO))
}

/// The same, with a time-out after which an idle link becomes quiet.
pub(super) fn io_with(idle: IdleTimeout) -> Io {
    Io::new(super::engine(), idle, OwnAddresses::ignored(), Arc::new(Resolver::default())).unwrap()
}

/// The same, with this resolver and no time-out.
pub(super) fn io_asking(resolver: Resolver) -> Io {
    let idle = IdleTimeout(Duration::ZERO);
    Io::new(super::engine(), idle, OwnAddresses::ignored(), Arc::new(resolver)).unwrap()
}

/// Has `io` run on `link`.
pub(super) fn run(mut io: Io, mut link: Laptop) -> Running {
    let (control, mut messages) = mpsc::channel(crate::io::CONTROLS);
    let task = tokio::spawn(async move {
        link.reader.first().preamble(NoiseLimit::default()).await.unwrap();
        let end = io.run(&mut link, &mut messages).await.unwrap();
        (io, end, link)
    });
    Running { control, task }
}

/// A link's two ends.
fn link() -> (Laptop, Laptop) {
    let (here, there) = tokio::io::duplex(PIPE);
    let ends = [here, there].map(|end| {
        let (reader, writer) = split(end);
        LinkIo::new(FrameReader::new(reader), FrameWriter::new(writer))
    });
    let [here, there] = ends;
    (here, there)
}

impl Codespace {
    /// A codespace, and the laptop's end of its link.
    pub(super) fn new() -> (Self, Laptop) {
        let mut wire = Tun::new(MTU.into(), 64);
        let interface = wire.interface(&[(CODESPACE.into(), 24)], &[GATEWAY.into()], 7);
        let (laptop, LinkIo { reader, writer, .. }) = link();
        let codespace = Self {
            interface,
            sockets: SocketSet::new(vec![]),
            wire,
            reader,
            writer,
            started: Instant::now(),
            taken: 0,
            next_port: 40_000,
            others: VecDeque::new(),
            frames: VecDeque::new(),
        };
        (codespace, laptop)
    }

    /// Loses the link, with what is on it, and makes a new one.
    pub(super) fn relink(&mut self) -> Laptop {
        let (laptop, LinkIo { reader, writer, .. }) = link();
        (self.reader, self.writer, self.taken) = (reader, writer, 0);
        self.wire.received.clear();
        laptop
    }

    /// Reads the laptop's preamble.
    pub(super) async fn greet(&mut self) {
        self.writer.flush().await.unwrap();
        self.reader.first().preamble(NoiseLimit::default()).await.unwrap();
    }

    /// Begins a connection.
    pub(super) fn connect(&mut self, server: SocketAddr) -> SocketHandle {
        self.connect_with(server, 256 * 1024)
    }

    /// The same, with buffers of this size.
    pub(super) fn connect_with(&mut self, server: SocketAddr, buffer: usize) -> SocketHandle {
        let buffer = || tcp::SocketBuffer::new(vec![0; buffer]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        self.next_port += 1;
        socket.connect(self.interface.context(), server, self.next_port).unwrap();
        self.sockets.add(socket)
    }

    /// A connection's socket.
    pub(super) fn tcp(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    /// Sends a packet unchanged.
    pub(super) fn send(&mut self, packet: Vec<u8>) {
        self.writer.push_packet(packet.into());
    }

    /// Sends a frame.
    pub(super) fn send_frame(&mut self, frame: &Frame) {
        self.writer.push(frame);
    }

    /// Sends what is queued, and takes nothing.
    pub(super) async fn flush(&mut self) {
        self.writer.flush().await.unwrap();
    }

    /// Carries packets until `done` returns a value.
    pub(super) async fn until<T>(&mut self, mut done: impl FnMut(&mut Self) -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        loop {
            self.poll();
            if let Some(result) = done(self) {
                self.poll();
                self.writer.flush().await.unwrap();
                return result;
            }
            self.poll();
            assert!(Instant::now() < end, "it takes too long");
            self.carry().await;
        }
    }

    /// Runs the network for this time.
    pub(super) async fn pass(&mut self, time: Duration) {
        let end = Instant::now() + time;
        self.until(|_| (Instant::now() >= end).then_some(())).await;
    }

    fn poll(&mut self) {
        let now = self.now();
        self.interface.poll(now, &mut self.wire, &mut self.sockets);
        for packet in self.wire.sent.drain(..) {
            self.writer.push_packet(packet);
        }
    }

    fn now(&self) -> SmolInstant {
        SmolInstant::from_micros(self.started.elapsed().as_micros() as i64)
    }

    /// Writes queued frames and reads arriving ones, until dropped.
    async fn carry(&mut self) {
        let delay = self.interface.poll_delay(self.now(), &self.sockets);
        let delay = delay.map_or(Duration::from_millis(20), Duration::from).min(Duration::from_millis(20));
        let until = Instant::now() + delay;
        let frame = tokio::select! {
            frame = timeout_at(until, self.reader.next()) => frame,
            Err(error) = self.writer.flush(), if self.writer.queued() > 0 => panic!("{error}"),
        };
        if let Ok(frame) = frame {
            let frame = frame.unwrap().expect("the laptop keeps the link");
            self.take(frame);
        }
    }

    fn take(&mut self, frame: Frame) {
        match frame {
            Frame::Packet(packet) => {
                self.taken += 4 + packet.len() as u64;
                self.writer.push(&Frame::Delivered { total: self.taken, micros: 0 });
                if packet[9] == 6 {
                    self.wire.received.push_back(packet)
                } else {
                    self.others.push_back(packet)
                }
            }
            Frame::Ping(value) => self.writer.push(&Frame::Pong(value)),
            Frame::Delivered { .. } => {}
            frame @ (Frame::Hello(_)
            | Frame::Open(_)
            | Frame::Opened(_)
            | Frame::Pong(_)
            | Frame::Routes(_)
            | Frame::Dns(_)
            | Frame::Notice(_)
            | Frame::Goodbye(_)
            | Frame::Ending
            | Frame::AskStatus
            | Frame::SidecarStatus(_)
            | Frame::Codespace(_)
            | Frame::Quiet(_)
            | Frame::Numbered(..)
            | Frame::WantLane
            | Frame::Standby(_)) => self.frames.push_back(frame),
        }
    }

    /// The next packet that is not TCP.
    pub(super) async fn other(&mut self) -> Bytes {
        self.until(|codespace| codespace.others.pop_front()).await
    }
}
