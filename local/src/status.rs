//! The status of a session: one snapshot type, made on request by the session.
//!
//! The log, the user interface, `gh-net status` and the tests render this snapshot; none of them computes a figure
//! of its own. Until it is requested, nothing is collected for it except counters and a short list of DNS lookups.
//! Serialised, it is a stable interface: fields are added, and [`SCHEMA`] grows if one changes its meaning.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::SystemTime;

use ipnet::IpNet;
use serde::{Deserialize, Serialize, Serializer};

use crate::{engine, policy};

pub mod lines;
pub mod text;

/// The version of the serialised form.
pub const SCHEMA: u32 = 1;

/// The time now, as a status has it: Unix time in seconds.
pub fn unix_time() -> u64 {
    // A clock that is set before 1970 shows 0.
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// A snapshot of a session.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Status {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The version of gh-net.
    pub version: &'static str,
    /// The process that runs the session.
    pub pid: u32,
    /// The session.
    pub session: Session,
    /// Its link.
    pub link: Link,
    /// The forwarded networks, IPv4 first, in ascending order.
    pub routes: Vec<Route>,
    /// The user's rules in force, in order, each with where it was written.
    pub rules: Vec<String>,
    /// What the user should know: hints, warnings and errors, ours before the sidecar's.
    pub notes: Vec<Note>,
    /// The flows the engine knows.
    pub flows: Vec<Flow>,
    /// The latest refused flows, oldest first, at most 64. `counters.refused` counts all of them.
    pub denied: Vec<Denied>,
    /// The latest DNS lookups, oldest first.
    pub names: Vec<Lookup>,
    /// Counters and gauges.
    pub counters: Counters,
    /// The sidecar's own status, if it has sent one.
    pub sidecar: Option<Sidecar>,
}

/// The session.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Session {
    /// Its state.
    pub state: SessionState,
    /// Since when it is in this state: Unix time in seconds.
    pub since: u64,
    /// What is bridged.
    pub target: String,
    /// How names are resolved.
    pub dns: DnsMode,
}

/// The state of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SessionState {
    /// The sidecar has not opened it yet.
    Opening,
    /// The sidecar has opened it. After its end there is no status.
    Open,
}

/// How names are resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DnsMode {
    /// The codespace's resolvers only.
    Off,
    /// The laptop answers for its domains; the codespace, then the laptop, for all others.
    Split,
    /// The laptop answers for its domains, the codespace for all others.
    SplitStrict,
    /// The laptop first.
    Local,
}

impl From<gh_net_common::frame::DnsMode> for DnsMode {
    fn from(mode: gh_net_common::frame::DnsMode) -> Self {
        match mode {
            gh_net_common::frame::DnsMode::Off => Self::Off,
            gh_net_common::frame::DnsMode::Split => Self::Split,
            gh_net_common::frame::DnsMode::SplitStrict => Self::SplitStrict,
            gh_net_common::frame::DnsMode::Local => Self::Local,
        }
    }
}

/// The link.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Link {
    /// Its state.
    pub state: LinkState,
    /// Since when it is in this state: Unix time in seconds.
    pub since: u64,
    /// Why the last link ended, if it did.
    pub end: Option<String>,
    /// While a lost link is not replaced: since when it is lost, as Unix time in seconds.
    pub lost_since: Option<u64>,
    /// While waiting for the next attempt to connect: when that is due, as Unix time in seconds.
    pub next_attempt: Option<u64>,
    /// The last measured round trip, in milliseconds.
    pub round_trip_ms: Option<f64>,
    /// While there is a link: its lanes, which are the channels of the ssh connection that carry it.
    pub lanes: Option<u64>,
    /// The tunnel, once the session is open.
    pub tunnel: Option<Tunnel>,
}

/// The state of the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkState {
    /// It is being established.
    Connecting,
    /// It carries packets.
    Up,
    /// It is up, but nothing passes until there is something to send, so that the codespace may fall asleep.
    Quiet,
    /// There is none.
    Down,
}

/// The tunnel in the codespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Tunnel {
    /// The name of the device.
    pub device: String,
    /// Its MTU in bytes.
    pub mtu: u16,
    /// The sidecar's addresses.
    pub addresses: Vec<IpNet>,
    /// The laptop's addresses, which answer DNS.
    pub gateways: Vec<IpAddr>,
}

/// A forwarded network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Route {
    /// The network.
    pub prefix: IpNet,
    /// Why it is forwarded.
    pub reason: RouteReason,
}

/// Why a network is forwarded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum RouteReason {
    /// The laptop is connected to it.
    Connected {
        /// The interface.
        interface: String,
    },
    /// The laptop has a route to it.
    Route {
        /// The interface, if it is a single one.
        interface: Option<String>,
    },
    /// The user named it.
    Option {
        /// The value of `--route`.
        value: String,
    },
}

impl fmt::Display for RouteReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected { interface } => write!(f, "connected on {interface}"),
            Self::Route { interface: Some(interface) } => write!(f, "route on {interface}"),
            Self::Route { interface: None } => f.write_str("route on several interfaces"),
            Self::Option { value } => write!(f, "--route {value}"),
        }
    }
}

impl From<policy::ForwardedRoute> for Route {
    fn from(route: policy::ForwardedRoute) -> Self {
        Self { prefix: route.network, reason: route.reason.into() }
    }
}

impl From<policy::Reason> for RouteReason {
    fn from(reason: policy::Reason) -> Self {
        match reason {
            policy::Reason::Connected(interface) => Self::Connected { interface },
            policy::Reason::Route(interface) => Self::Route { interface },
            policy::Reason::Named(route) => Self::Option { value: route.to_string() },
        }
    }
}

/// A change of the forwarded networks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteChange {
    /// The network is forwarded from now on.
    Added(Route),
    /// The network is no longer forwarded.
    Removed(Route),
}

/// A change of what the codespace has of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CodespaceChange {
    /// Networks that it reaches by itself from now on.
    pub added: Vec<IpNet>,
    /// Networks that it no longer reaches by itself.
    pub removed: Vec<IpNet>,
    /// Its resolvers, if they changed.
    pub resolvers: Option<Vec<IpAddr>>,
}

/// Something the user should know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Note {
    /// Its kind, stable: lower case, words joined by hyphens.
    pub code: String,
    /// Its severity.
    pub level: Level,
    /// Whether the sidecar reports it.
    pub sidecar: bool,
    /// The message.
    pub text: String,
}

/// The severity of a note.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Good to know.
    Info,
    /// Something works only in part.
    Warning,
    /// Something does not work.
    Error,
}

/// A flow.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Flow {
    /// Its protocol.
    pub protocol: FlowProtocol,
    /// The endpoint in the codespace.
    pub client: SocketAddr,
    /// The endpoint the laptop talks to; a UDP mapping may have several, an echo session has port 0.
    pub server: Option<SocketAddr>,
    /// The name of the server, if it is known.
    pub name: Option<String>,
    /// The state, in the engine's terms.
    pub state: String,
    /// Bytes of payload from the codespace.
    pub uplink_bytes: u64,
    /// Bytes of payload to the codespace.
    pub downlink_bytes: u64,
    /// How long it has existed, in seconds.
    pub age: u64,
}

/// Refused flows of one kind: with the same protocol, destination and rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Denied {
    /// The protocol.
    pub protocol: FlowProtocol,
    /// The endpoint in the codespace, of several the last one. For echo the port is the identifier.
    pub client: SocketAddr,
    /// The destination; for echo the port is 0.
    pub server: SocketAddr,
    /// The name of the destination, if it is known.
    pub name: Option<String>,
    /// The rule that decided, for people.
    pub rule: String,
    /// The answer to the codespace.
    pub refusal: Refusal,
    /// The option that would admit it, if there is one.
    pub remedy: Option<String>,
    /// When the first one was refused: Unix time in seconds.
    pub first: u64,
    /// When the last one was refused: Unix time in seconds.
    pub last: u64,
    /// How many packets were refused.
    pub count: u64,
}

/// How a flow is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    /// As if there were no network: ICMP network unreachable.
    NoRoute,
    /// As forbidden: ICMP administratively prohibited.
    Prohibited,
    /// As if nothing listened there: a TCP reset, or ICMP port unreachable.
    Closed,
    /// Without an answer.
    Silent,
}

impl From<engine::Refusal> for Refusal {
    fn from(refusal: engine::Refusal) -> Self {
        match refusal {
            engine::Refusal::NoRoute => Self::NoRoute,
            engine::Refusal::Prohibited => Self::Prohibited,
            engine::Refusal::Closed => Self::Closed,
            engine::Refusal::Silent => Self::Silent,
        }
    }
}

/// The protocol of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FlowProtocol {
    /// A TCP connection.
    Tcp,
    /// A UDP mapping.
    Udp,
    /// An ICMP echo session.
    Echo,
}

impl From<engine::Protocol> for FlowProtocol {
    fn from(protocol: engine::Protocol) -> Self {
        match protocol {
            engine::Protocol::Tcp => Self::Tcp,
            engine::Protocol::Udp => Self::Udp,
            engine::Protocol::Echo => Self::Echo,
        }
    }
}

impl From<FlowProtocol> for engine::Protocol {
    fn from(protocol: FlowProtocol) -> Self {
        match protocol {
            FlowProtocol::Tcp => Self::Tcp,
            FlowProtocol::Udp => Self::Udp,
            FlowProtocol::Echo => Self::Echo,
        }
    }
}

/// A DNS lookup.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Lookup {
    /// The name.
    pub name: String,
    /// The record type.
    pub kind: String,
    /// Who answered; `None` if there was no answer.
    pub source: Option<String>,
    /// The result.
    pub outcome: Outcome,
    /// How long it took, in milliseconds.
    pub took_ms: f64,
    /// How long ago it was answered, in seconds.
    pub age: u64,
}

/// The result of a DNS lookup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// There are records.
    Found,
    /// The name exists, without records of this type.
    NoData,
    /// The name does not exist.
    NoName,
    /// There is no answer, or the answer is an error.
    Failed,
}

/// Counts since the start of the session, and gauges.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Packets from the codespace.
    pub uplink_packets: u64,
    /// Bytes of packets from the codespace.
    pub uplink_bytes: u64,
    /// Packets to the codespace.
    pub downlink_packets: u64,
    /// Bytes of packets to the codespace.
    pub downlink_bytes: u64,
    /// TCP connections that were opened.
    pub connections: u64,
    /// Flows now, including finished ones that are remembered.
    pub flows: u64,
    /// Sockets open now.
    pub sockets: u64,
    /// Packets of flows that the policy refused.
    pub refused: u64,
    /// Packets dropped because they were malformed.
    pub malformed: u64,
    /// Packets dropped because a bound was reached.
    pub dropped: u64,
    /// Flows that nobody had answered and that made room for others.
    pub evicted: u64,
    /// Packets of transport protocols that are not forwarded.
    pub unsupported: u64,
    /// Sockets that could not be opened.
    pub sockets_refused: u64,
    /// Datagrams and echo requests that the laptop's kernel did not accept.
    pub datagrams_dropped: u64,
    /// DNS queries, and connections to the resolver, that were dropped because there were too many.
    pub queries_dropped: u64,
    /// What bounds refused or had wait.
    #[serde(serialize_with = "by_kind")]
    pub bounds: engine::Bounds,
}

fn by_kind<S: Serializer>(bounds: &engine::Bounds, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(bounds.by_kind())
}

/// The sidecar's status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Sidecar {
    /// How old this information is, in seconds.
    pub age: u64,
    /// How long the session has existed there, in seconds.
    pub uptime: u64,
    /// How names are resolved.
    pub dns: DnsMode,
    /// Whether resolv.conf names the sidecar's responder.
    pub resolver_hook: bool,
    /// Number of forwarded networks that are installed.
    pub routes: u32,
    /// Packets to the laptop.
    pub uplink_packets: u64,
    /// Bytes of packets to the laptop.
    pub uplink_bytes: u64,
    /// Packets from the laptop.
    pub downlink_packets: u64,
    /// Bytes of packets from the laptop.
    pub downlink_bytes: u64,
    /// Frames from the laptop whose payload is not an IP packet.
    pub downlink_malformed: u64,
    /// Packets from the laptop that the kernel refused.
    pub downlink_refused: u64,
    /// Answers that were refused because they lead public names into the laptop's networks.
    pub rebind_refused: u64,
    /// Packets to the laptop that were dropped because more waited for the link than there is room for.
    pub uplink_dropped: u64,
}

#[cfg(test)]
mod tests;
