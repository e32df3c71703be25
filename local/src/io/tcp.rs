//! TCP: an ordinary socket for each connection that the engine terminates.
//!
//! Bytes are pulled from the engine and pushed to it as described in [`crate::engine`], as many at a time as the
//! kernel accepts. The kernel sizes its buffers by itself.
//!
//! After a reset or time-out of a connection, Linux keeps readable what was received before. It is delivered first,
//! for as long as the engine makes room for it within a bounded time ([`DRAIN_TIMEOUT`]).

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::arena::Arena;
use super::reactor::Readiness;
use super::served::Served;
use super::sockopt;
use crate::engine::{ConnectError, Engine, FlowId};
use crate::policy::InterfaceIndex;

/// Maximum bytes read from a connection per turn.
const TURN: usize = 256 * 1024;
/// Size of a read, if the engine has room for it.
const READ: usize = 64 * 1024;
/// Maximum number of slices of one vectored write.
const SLICES: usize = 64;
/// How long nothing may be read from a failed connection before the failure is reported to the engine.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// The state of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Connecting,
    Connected,
    /// It has failed; what was received before can still be read. The time is that of the last read.
    Failed(Instant),
}

/// One connection's socket.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    state: State,
    readiness: Readiness,
    /// The server's end of file has been read.
    ended: bool,
    /// Our end of file has been sent.
    shut: bool,
}

impl Connection {
    /// Begins to connect.
    pub(super) fn open(
        address: SocketAddr,
        interface: Option<InterfaceIndex>,
        hop_limit: Option<u8>,
    ) -> io::Result<Self> {
        let v6 = address.is_ipv6();
        let socket =
            Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        if let Some(interface) = interface {
            sockopt::bind_to_interface(&socket, address, interface)?;
        }
        if let Some(hop_limit) = hop_limit {
            sockopt::set_hop_limit(&SockRef::from(&socket), v6, hop_limit.max(1))?;
        }
        // We write what the program's kernel sent: Nagle's algorithm, if enabled, was applied in the codespace.
        socket.set_tcp_nodelay(true)?;
        socket.set_keepalive(true)?;
        // Keep urgent bytes in the stream (RFC 6093, 3.4).
        socket.set_out_of_band_inline(true)?;
        match socket.connect(&address.into()) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
            Ok(()) | Err(_) => {}
        }
        Ok(Self {
            stream: socket.into(),
            state: State::Connecting,
            readiness: Readiness::default(),
            ended: false,
            shut: false,
        })
    }

    /// Binds the socket to the interface that has its address, so that retransmissions, window updates and resets don't
    /// leave by another one while its network has vanished. A socket that is bound already stays so. Without the
    /// address the kernel sends nothing.
    pub(super) fn confine(&self) {
        let Some(interface) = self.local_address().and_then(sockopt::interface_of) else { return };
        // Not permitted before Linux 5.7, and if it is bound already.
        if let Err(error) = SockRef::from(&self.stream).bind_device_by_index_v4(Some(interface)) {
            tracing::debug!(%error, "a connection can't be bound to its interface");
        }
    }

    /// Takes an event of the reactor.
    pub(super) fn note(&mut self, readiness: Readiness) {
        self.readiness.add(readiness);
    }

    /// Transfers what can be transferred in both directions.
    pub(super) fn serve(
        &mut self,
        flow: FlowId,
        engine: &mut Engine,
        arena: &mut Arena,
        now: Instant,
    ) -> Served {
        if self.state == State::Connecting {
            match self.finish_connecting() {
                Ok(false) => return Served::Idle,
                Ok(true) => engine.handle_connected(flow, now),
                Err(error) => return Served::Unconnected(connect_error(&error)),
            }
        }
        if std::mem::take(&mut self.readiness.error) && matches!(self.stream.take_error(), Ok(Some(_))) {
            self.fail(now);
        }
        self.write(flow, engine, now);
        self.read(flow, engine, arena, now)
    }

    /// Whether the connection is established; an error if it failed.
    pub(super) fn finish_connecting(&mut self) -> io::Result<bool> {
        if !self.readiness.writable {
            return Ok(false);
        }
        if let Some(error) = self.stream.take_error()? {
            return Err(error);
        }
        match self.stream.peer_addr() {
            // An event from before the connect.
            Err(error) if error.kind() == ErrorKind::NotConnected => {
                self.readiness = Readiness::default();
                Ok(false)
            }
            Err(error) => Err(error),
            Ok(_) => {
                self.state = State::Connected;
                Ok(true)
            }
        }
    }

    fn fail(&mut self, now: Instant) {
        if self.state == State::Connected {
            self.state = State::Failed(now);
        }
        self.readiness.readable = true;
    }

    fn write(&mut self, flow: FlowId, engine: &mut Engine, now: Instant) {
        while self.readiness.writable && self.state == State::Connected {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let count = engine.uplink(flow, &mut slices);
            let offered: usize = slices[..count].iter().map(|slice| slice.len()).sum();
            if offered == 0 {
                break;
            }
            match self.stream.write_vectored(&slices[..count]) {
                Ok(written) => {
                    // After a partial write, the buffer is full; an event reports new space.
                    self.readiness.writable = written == offered;
                    engine.handle_accepted(flow, written, now);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.readiness.writable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.fail(now),
            }
        }
        if !self.shut && self.state == State::Connected && engine.uplink_ended(flow) {
            self.shut = true;
            // Fails only on a failed connection, which is found by reading.
            let _ = self.stream.shutdown(Shutdown::Write);
        }
    }

    fn read(&mut self, flow: FlowId, engine: &mut Engine, arena: &mut Arena, now: Instant) -> Served {
        let mut taken = 0;
        while self.readiness.readable && !self.ended {
            let room = engine.downlink_room(flow);
            if room == 0 {
                return self.without_room(now);
            }
            if taken >= TURN {
                return Served::Again;
            }
            let space = arena.space(room.min(READ));
            let wanted = space.len().min(room);
            match self.stream.read(&mut space[..wanted]) {
                Ok(0) if matches!(self.state, State::Failed(_)) => return Served::Failed,
                Ok(0) => {
                    self.ended = true;
                    engine.handle_end(flow, now);
                }
                Ok(len) => {
                    taken += len;
                    // After a short read the buffer is empty, apart from an end or error that may follow.
                    self.readiness.readable =
                        len == wanted || self.readiness.short_reads || self.has_failed();
                    if self.has_failed() {
                        self.state = State::Failed(now);
                    }
                    engine.handle_data(flow, arena.take(len), now);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.readiness.readable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Served::Failed,
            }
        }
        if self.has_failed() { Served::Failed } else { Served::Idle }
    }

    /// The engine has no room: received data waits in the kernel, for a limited time if the connection has failed.
    fn without_room(&self, now: Instant) -> Served {
        match self.state {
            State::Connecting | State::Connected => Served::Idle,
            State::Failed(since) if now.saturating_duration_since(since) < DRAIN_TIMEOUT => Served::Later,
            State::Failed(_) => Served::Failed,
        }
    }

    /// Whether the connection has failed and received data is left to read.
    pub(super) fn has_failed(&self) -> bool {
        matches!(self.state, State::Failed(_))
    }

    /// The address of the laptop that the connection uses.
    pub(super) fn local_address(&self) -> Option<IpAddr> {
        self.stream.local_addr().ok().map(|address| address.ip())
    }

    /// Closes with a reset.
    pub(super) fn abort(self) {
        // If this fails, the connection is closed in the ordinary way, and the next segment of the peer is reset.
        let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// The meaning of a failed connect for the codespace.
pub(super) fn connect_error(error: &io::Error) -> ConnectError {
    match error.raw_os_error() {
        Some(libc::ECONNREFUSED | libc::ECONNRESET) => ConnectError::Refused,
        Some(
            libc::ENETUNREACH
            | libc::ENETDOWN
            | libc::EAFNOSUPPORT
            | libc::ENODEV
            | libc::ENXIO
            | libc::EINVAL,
        ) => ConnectError::NetworkUnreachable,
        Some(libc::EACCES | libc::EPERM) => ConnectError::Prohibited,
        Some(libc::ETIMEDOUT) => ConnectError::TimedOut,
        // EADDRNOTAVAIL and EAGAIN: no free port.
        Some(
            libc::EMFILE
            | libc::ENFILE
            | libc::ENOBUFS
            | libc::ENOMEM
            | libc::EADDRNOTAVAIL
            | libc::EAGAIN
            | libc::EINTR,
        ) => ConnectError::Local,
        // EHOSTUNREACH, EHOSTDOWN, and the errors for rarer ICMP codes (ENONET, EPROTO, …).
        _ => ConnectError::HostUnreachable,
    }
}
