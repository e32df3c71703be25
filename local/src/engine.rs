//! The engine: whole IP packets on one side, the user's sockets on the other.
//!
//! It is pure. It holds no socket, no clock, no task: `now` is a parameter, packets and socket events come
//! in by `handle_*`, packets and socket commands go out by `poll_*`. [`crate::io`] alone drives it:
//!
//! - [`Engine::handle_packet`] for each packet that came over the link (uplink).
//! - [`Engine::poll_command`] until it is empty, carrying each command out.
//! - [`Engine::poll_transmit`] while the link takes more, writing each packet to it (downlink).
//! - [`Engine::poll_timeout`] says when [`Engine::handle_timeout`] wants to be called.
//!
//! The payload of TCP is pulled, not pushed, so that back pressure needs no queue. On
//! [`Command::Service`], and whenever the flow's socket becomes readable or writable, io *serves* the flow:
//!
//! 1. While the socket is writable and [`Engine::uplink`] gives bytes: write them, and say how many the
//!    socket took with [`Engine::handle_accepted`]. When there are none and [`Engine::uplink_ended`] says
//!    so, shut the socket's writing down, once.
//! 2. While the socket is readable and [`Engine::downlink_room`] is not 0: read at most that many bytes and
//!    hand them over with [`Engine::handle_data`]; an end of file is [`Engine::handle_end`], an error
//!    [`Engine::handle_failed`].
//!
//! A [`FlowId`] may be stale (the flow ended while an event was under way): every call with one does nothing.

use std::io::IoSlice;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use bytes::Bytes;

use crate::policy::{InterfaceIndex, Policy};

/// A flow of the engine's table. Never reused for another flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowId(pub(crate) u64);

/// What the other half of a TCP connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// A host: connect a socket, bound to the interface if one is named.
    Host {
        /// Where to connect.
        address: SocketAddr,
        /// The interface to bind to.
        interface: Option<InterfaceIndex>,
    },
    /// The laptop's resolver, speaking DNS over TCP (RFC 7766).
    Resolver,
}

/// What io is to do. Sockets are keyed by flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Open a TCP socket and connect it; answer with [`Engine::handle_connected`] or
    /// [`Engine::handle_connect_failed`].
    Connect {
        /// The flow, TCP.
        flow: FlowId,
        /// Where to.
        target: Target,
        /// The hop limit (TTL) of the connection's packets, where the flow's own is unusually low.
        hop_limit: Option<u8>,
    },
    /// Serve this TCP flow: there are bytes to write, room to read, or an end to pass on.
    Service(FlowId),
    /// Close the TCP socket with a reset (SO_LINGER 0), also while it connects.
    Abort(FlowId),
    /// Close the socket, whatever kind it is, and forget the flow.
    Close(FlowId),
    /// Open an unconnected UDP socket for a new mapping. Errors of its datagrams are wanted
    /// (IP_RECVERR) and answered with [`Engine::handle_unreachable`].
    OpenUdp {
        /// The flow, UDP.
        flow: FlowId,
        /// Whether it is IPv6.
        v6: bool,
        /// The interface to bind to.
        interface: Option<InterfaceIndex>,
    },
    /// Send a datagram from a mapping's socket.
    SendUdp {
        /// The flow, UDP.
        flow: FlowId,
        /// Where to.
        destination: SocketAddr,
        /// Its hop limit (TTL).
        hop_limit: u8,
        /// The datagram's payload.
        payload: Bytes,
    },
    /// Open an echo (ping) socket.
    OpenEcho {
        /// The flow, echo.
        flow: FlowId,
        /// Whether it is IPv6.
        v6: bool,
        /// The interface to bind to.
        interface: Option<InterfaceIndex>,
    },
    /// Send an echo request.
    SendEcho {
        /// The flow, echo.
        flow: FlowId,
        /// Where to.
        destination: IpAddr,
        /// The request's sequence number.
        sequence: u16,
        /// Its hop limit (TTL).
        hop_limit: u8,
        /// The request's payload.
        payload: Bytes,
    },
    /// Ask the laptop's resolver; answer with [`Engine::handle_dns_answer`], or not at all.
    Resolve {
        /// Names the query until it is answered.
        query: QueryId,
        /// The DNS message as it came over UDP.
        message: Bytes,
    },
}

/// A DNS query over UDP that waits for its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct QueryId(pub(crate) u64);

/// Why a TCP connection could not be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectError {
    /// ECONNREFUSED, ECONNRESET: a reset.
    Refused,
    /// ENETUNREACH: ICMP network unreachable.
    NetworkUnreachable,
    /// EHOSTUNREACH and what else says that the host is not there: ICMP host unreachable.
    HostUnreachable,
    /// EACCES, EPERM: ICMP administratively prohibited.
    Prohibited,
    /// ETIMEDOUT: nothing is answered.
    TimedOut,
    /// The laptop is short of something (EMFILE, ENOBUFS, …): nothing is answered; the client tries again.
    Local,
}

/// An ICMP error about something a UDP or echo socket sent, or the local kernel's equivalent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unreachable {
    /// Who sent the error; `None` if it was the laptop itself.
    pub offender: Option<IpAddr>,
    /// Where the datagram was going (for echo the port is 0).
    pub destination: SocketAddr,
    /// For echo: the sequence number of the request, as far as it is known.
    pub sequence: Option<u16>,
    /// What was said.
    pub kind: UnreachableKind,
}

/// What an ICMP error says, in terms that fit both families.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnreachableKind {
    /// No such network (ICMP 3/0, ICMPv6 1/0).
    Network,
    /// No such host (ICMP 3/1, ICMPv6 1/3).
    Host,
    /// Nobody listens (ICMP 3/3, ICMPv6 1/4).
    Port,
    /// Forbidden (ICMP 3/13, ICMPv6 1/1).
    Prohibited,
    /// The hop limit ran out on the way (ICMP 11/0, ICMPv6 3/0).
    TimeExceeded,
    /// Too big for the path (ICMP 3/4, ICMPv6 2).
    TooBig {
        /// The path's MTU in bytes.
        mtu: u32,
    },
}

/// A packet for the link: its headers, and its payload by reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// IP and transport headers.
    pub headers: Headers,
    /// What follows them; may be empty.
    pub payload: Bytes,
}

/// IP and transport headers of one packet, inline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Headers {
    bytes: [u8; Self::MAX],
    len: usize,
}

impl Headers {
    /// IPv6 and TCP with all its options.
    pub const MAX: usize = 40 + 60;

    /// The headers' bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// See the [module's documentation](self).
#[derive(Debug)]
pub struct Engine {}

/// What an engine is set up with.
#[derive(Debug, Clone)]
pub struct Config {
    /// The engine's own addresses in the tunnel: they answer echo requests and DNS.
    pub gateways: Vec<IpAddr>,
    /// The tunnel's MTU in bytes.
    pub mtu: u16,
    /// What may be forwarded.
    pub policy: Policy,
}

#[allow(unused_variables)]
impl Engine {
    /// An engine without flows.
    pub fn new(config: Config, now: Instant) -> Self {
        todo!()
    }
    /// The laptop's networks, or the user's rules, changed.
    pub fn set_policy(&mut self, policy: Policy, now: Instant) {
        todo!()
    }
    /// A packet came over the link.
    pub fn handle_packet(&mut self, packet: Bytes, now: Instant) {
        todo!()
    }
    /// The sidecar reports how many bytes of packet frames it has taken off this link.
    pub fn handle_delivered(&mut self, total: u64, now: Instant) {
        todo!()
    }
    /// A ping over the link came back.
    pub fn handle_round_trip(&mut self, trip: std::time::Duration, now: Instant) {
        todo!()
    }
    /// A (new) link is there: counts start at 0, what was under way on the old one is sent again.
    pub fn handle_link_up(&mut self, now: Instant) {
        todo!()
    }
    /// The link is gone; nothing is transmitted until the next one.
    pub fn handle_link_down(&mut self, now: Instant) {
        todo!()
    }
    /// The next packet for the link, if the link's window has room.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Transmit> {
        todo!()
    }
    /// The next thing to do.
    pub fn poll_command(&mut self) -> Option<Command> {
        todo!()
    }
    /// When [`Self::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        todo!()
    }
    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        todo!()
    }
    /// The flow's socket is connected.
    pub fn handle_connected(&mut self, flow: FlowId, now: Instant) {
        todo!()
    }
    /// The flow's socket could not be connected, and io has closed it.
    pub fn handle_connect_failed(&mut self, flow: FlowId, error: ConnectError, now: Instant) {
        todo!()
    }
    /// Fills `slices` with the bytes the flow's socket is to be given next; returns how many slices.
    pub fn uplink<'a>(&'a self, flow: FlowId, slices: &mut [IoSlice<'a>]) -> usize {
        todo!()
    }
    /// Whether the codespace has sent its FIN and every byte before it has been accepted by the socket.
    pub fn uplink_ended(&self, flow: FlowId) -> bool {
        todo!()
    }
    /// The socket accepted the next `count` bytes of [`Self::uplink`].
    pub fn handle_accepted(&mut self, flow: FlowId, count: usize, now: Instant) {
        todo!()
    }
    /// How many bytes the engine would take from the flow's socket now.
    pub fn downlink_room(&self, flow: FlowId) -> usize {
        todo!()
    }
    /// Bytes read from the flow's socket, at most [`Self::downlink_room`] of them.
    pub fn handle_data(&mut self, flow: FlowId, data: Bytes, now: Instant) {
        todo!()
    }
    /// The flow's socket has reached the end of file.
    pub fn handle_end(&mut self, flow: FlowId, now: Instant) {
        todo!()
    }
    /// The flow's socket failed (was reset, timed out), and io has closed it.
    pub fn handle_failed(&mut self, flow: FlowId, now: Instant) {
        todo!()
    }
    /// A datagram arrived at a mapping's UDP socket.
    pub fn handle_datagram(&mut self, flow: FlowId, source: SocketAddr, payload: Bytes, now: Instant) {
        todo!()
    }
    /// An echo reply arrived at an echo socket.
    pub fn handle_echo_reply(
        &mut self,
        flow: FlowId,
        source: IpAddr,
        sequence: u16,
        payload: Bytes,
        now: Instant,
    ) {
        todo!()
    }
    /// Something a UDP or echo flow sent did not arrive.
    pub fn handle_unreachable(&mut self, flow: FlowId, error: Unreachable, now: Instant) {
        todo!()
    }
    /// The resolver's answer to a [`Command::Resolve`], made to fit the query's UDP size.
    pub fn handle_dns_answer(&mut self, query: QueryId, message: Bytes, now: Instant) {
        todo!()
    }
}
