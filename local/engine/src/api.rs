//! The engine's inputs and outputs.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Instant;

use bytes::Bytes;

use super::policy::{InterfaceIndex, Policy, Protocol};
use super::tcp::state::State;

/// Identifies a flow. Never reused for another flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowId(pub u64);

/// What the laptop's end of a TCP connection is connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// A host: connect a socket, bound to the interface if one is named.
    Host {
        /// Where to connect.
        address: SocketAddr,
        /// The interface to bind to.
        interface: Option<InterfaceIndex>,
    },
    /// A port of the laptop itself.
    Laptop(Loopback),
    /// The laptop's resolver, speaking DNS over TCP (RFC 7766).
    Resolver,
}

/// A port of the laptop's own loopback. A type of its own, so that nothing else leads there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loopback {
    /// The port.
    pub port: u16,
    /// Whether `::1` is meant, and not `127.0.0.1`: that of the address that the codespace used.
    pub v6: bool,
}

impl Loopback {
    /// The address.
    pub fn address(self) -> SocketAddr {
        let ip = if self.v6 { Ipv6Addr::LOCALHOST.into() } else { IpAddr::V4(Ipv4Addr::LOCALHOST) };
        SocketAddr::new(ip, self.port)
    }
}

/// What the driver (io) must do. Sockets are keyed by flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Open a TCP socket and connect it; answer with [`super::Engine::handle_connected`] or
    /// [`super::Engine::handle_connect_failed`].
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
    /// Close the socket, of any kind, and forget the flow.
    Close(FlowId),
    /// The flow's network has vanished for now: keep the kernel from sending what its socket still has by another
    /// interface.
    Hold(FlowId),
    /// Open an unconnected UDP socket for a new mapping. Errors of its datagrams are wanted
    /// (IP_RECVERR) and answered with [`super::Engine::handle_unreachable`].
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
    /// Send a datagram from a mapping's socket to a port of the laptop itself.
    SendToLaptop {
        /// The flow, UDP.
        flow: FlowId,
        /// Where to.
        destination: Loopback,
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
    /// Ask the laptop's resolver; answer with [`super::Engine::handle_dns_answer`], or not at all.
    Resolve {
        /// Identifies the query until it is answered.
        query: QueryId,
        /// The DNS message as it came over UDP.
        message: Bytes,
    },
    /// Forget a query: it gave way to another one, and nobody is told its answer.
    Forget(QueryId),
}

/// A DNS query over UDP that waits for its answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueryId(pub(crate) u64);

/// Why a TCP connection could not be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectError {
    /// ECONNREFUSED, ECONNRESET: a reset.
    Refused,
    /// ENETUNREACH: ICMP network unreachable.
    NetworkUnreachable,
    /// EHOSTUNREACH and other errors that mean that the host is not there: ICMP host unreachable.
    HostUnreachable,
    /// EACCES, EPERM: ICMP administratively prohibited.
    Prohibited,
    /// ETIMEDOUT: no answer is sent, so the client's attempt times out as well.
    TimedOut,
    /// The laptop is short of a resource (EMFILE, ENOBUFS, …): no answer is sent, and the client tries again.
    Local,
}

/// An ICMP error about a packet that a UDP or echo socket sent, or the local kernel's equivalent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unreachable {
    /// Who sent the error; `None` if it was the laptop itself.
    pub offender: Option<IpAddr>,
    /// The destination of the datagram (for echo the port is 0).
    pub destination: SocketAddr,
    /// For echo: the sequence number of the request, if known.
    pub sequence: Option<u16>,
    /// The error.
    pub kind: UnreachableKind,
}

/// The kinds of ICMP errors, in terms that fit both families.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnreachableKind {
    /// No such network (ICMP 3/0, ICMPv6 1/0).
    Network,
    /// No such host (ICMP 3/1, ICMPv6 1/3).
    Host,
    /// Port unreachable: no socket listens (ICMP 3/3, ICMPv6 1/4).
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
    /// What follows the headers; may be empty.
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

    /// Appends a header. More than [`Self::MAX`] bytes in all is a bug; the rest is cut off.
    pub(crate) fn push(&mut self, header: &[u8]) {
        let len = header.len().min(Self::MAX - self.len);
        debug_assert_eq!(len, header.len());
        self.bytes[self.len..self.len + len].copy_from_slice(&header[..len]);
        self.len += len;
    }
}

impl Default for Headers {
    fn default() -> Self {
        Self { bytes: [0; Self::MAX], len: 0 }
    }
}

impl Transmit {
    /// Headers and payload, in bytes.
    pub fn len(&self) -> usize {
        self.headers.as_slice().len() + self.payload.len()
    }

    /// Never true: a packet has headers.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The engine's configuration.
#[derive(Debug)]
pub struct Config {
    /// The engine's own addresses in the tunnel: they answer echo requests and DNS.
    pub gateways: Vec<IpAddr>,
    /// Whether they answer DNS. Otherwise port 53 of them is closed, like their other ports.
    pub dns: bool,
    /// The tunnel's MTU in bytes.
    pub mtu: u16,
    /// Decides what is forwarded.
    pub policy: Box<dyn Policy>,
    /// A secret random number, from which TCP's initial sequence numbers are made (RFC 6528).
    pub secret: u64,
    /// What the engine's flows may use.
    pub resources: Resources,
}

/// What the driver has for the engine's flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resources {
    /// How many descriptors the driver can open.
    pub sockets: usize,
    /// Bytes that may be kept for the codespace.
    pub memory: usize,
}

impl Default for Resources {
    /// As many descriptors as are asked for, 256 MiB.
    fn default() -> Self {
        Self { sockets: usize::MAX, memory: 256 * 1024 * 1024 }
    }
}

/// Counters for the status and the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets from the codespace.
    pub uplink_packets: u64,
    /// Packets to the codespace.
    pub downlink_packets: u64,
    /// Packets dropped because they were malformed.
    pub malformed: u64,
    /// Packets dropped because a bound was reached.
    pub dropped: u64,
    /// How many of them would have begun a flow, while the table had no room for it.
    pub full: u64,
    /// Flows without an answer that made room for others.
    pub evicted: u64,
    /// Flows refused by the policy.
    pub refused: u64,
    /// Flows ended because a new policy does not admit them.
    pub revoked: u64,
    /// Packets of transport protocols that are not forwarded.
    pub unsupported: u64,
    /// TCP connections begun.
    pub connections: u64,
    /// What bounds refused or had wait.
    pub bounds: Bounds,
}

/// What was refused, forgotten or had to wait because a bound was reached, by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bounds {
    /// TCP connections that were not begun.
    pub connections: u64,
    /// UDP mappings that were not begun.
    pub mappings: u64,
    /// Echo sessions that were not begun.
    pub sessions: u64,
    /// Datagrams and echo replies for the codespace that were dropped.
    pub datagrams: u64,
    /// Destinations of mappings and sessions that were forgotten.
    pub destinations: u64,
    /// Questions over UDP that were dropped.
    pub questions: u64,
    /// Incomplete datagrams that were dropped.
    pub fragments: u64,
    /// Packets of the engine itself that were dropped: answers, errors, resets, challenges.
    pub answers: u64,
    /// How often the bytes for the hosts were used up, so that the codespace's windows became the smallest.
    pub uplink_waits: u64,
    /// How often the bytes for the codespace were used up, so that hosts' sockets were read little by little.
    pub downlink_waits: u64,
}

impl Bounds {
    /// Each count, with the name of its kind for the status.
    pub fn by_kind(&self) -> [(&'static str, u64); 10] {
        let Self {
            connections,
            mappings,
            sessions,
            datagrams,
            destinations,
            questions,
            fragments,
            answers,
            uplink_waits,
            downlink_waits,
        } = *self;
        [
            ("connections", connections),
            ("mappings", mappings),
            ("sessions", sessions),
            ("datagrams", datagrams),
            ("destinations", destinations),
            ("questions", questions),
            ("fragments", fragments),
            ("answers", answers),
            ("uplink_waits", uplink_waits),
            ("downlink_waits", downlink_waits),
        ]
    }
}

/// A flow, for the status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowView {
    /// Its transport protocol.
    pub protocol: Protocol,
    /// The program in the codespace. For echo the port is the identifier.
    pub client: SocketAddr,
    /// The destination as the program names it; of a UDP mapping or echo session the one that was added last. For
    /// echo the port is 0.
    pub destination: Option<SocketAddr>,
    /// The name that the codespace had last asked for to get this destination's address, when the flow was admitted.
    pub name: Option<String>,
    /// Its state.
    pub state: FlowState,
    /// Whether its network (of a mapping or session: one of its destinations') has vanished and the flow waits for it
    /// to return.
    pub held: bool,
    /// Bytes of payload that went to the host.
    pub uplink_bytes: u64,
    /// Bytes of payload that came from the host.
    pub downlink_bytes: u64,
    /// When its first packet came.
    pub opened: Instant,
    /// When payload last passed.
    pub last_active: Instant,
}

/// The state of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlowState {
    /// A TCP connection.
    Tcp(State),
    /// A UDP mapping or echo session on which nothing has come back yet.
    Unreplied,
    /// A UDP mapping or echo session with traffic both ways.
    Replied,
}

impl fmt::Display for FlowState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp(State::Connecting) => "connecting",
            Self::Tcp(State::SynReceived) => "syn-received",
            Self::Tcp(State::Established) => "established",
            Self::Tcp(State::FinWait1) => "fin-wait-1",
            Self::Tcp(State::FinWait2) => "fin-wait-2",
            Self::Tcp(State::CloseWait) => "close-wait",
            Self::Tcp(State::Closing) => "closing",
            Self::Tcp(State::LastAck) => "last-ack",
            Self::Tcp(State::TimeWait) => "time-wait",
            Self::Tcp(State::Closed) => "closed",
            Self::Unreplied => "unreplied",
            Self::Replied => "replied",
        })
    }
}
