//! The frames and their parts.

use std::net::IpAddr;

use bytes::Bytes;
use ipnet::IpNet;

/// The first bytes of each direction. NUL and 0xFF do not occur in UTF-8 text, so no login banner contains it.
pub const PREAMBLE: [u8; 8] = *b"\0gh-net\xff";

/// Length of a frame's header, in bytes.
pub const HEADER_LEN: usize = 4;

/// The longest payload, in bytes. An IP packet is at most 65,575 bytes (IPv6 without jumbograms).
pub const MAX_PAYLOAD: usize = 128 * 1024;

/// The longest text, in bytes.
pub const MAX_TEXT: usize = 8 * 1024;

/// Maximum number of items of a list that is sent. A larger set of routes takes several frames.
pub const MAX_PREFIXES: usize = 2048;

/// Maximum number of networks in [`Sources`]. Each takes a routing rule that every packet is compared with.
pub const MAX_SOURCES: usize = 64;

/// Maximum number of standby packets: as many as the laptop has TCP connections at most.
pub const MAX_STANDBY: usize = 8192;

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// The speaker's program and protocol versions.
    Hello(Hello),
    /// The laptop asks for a session.
    Open(Open),
    /// The sidecar grants it.
    Opened(Opened),
    /// One whole IP packet, not yet looked at.
    Packet(Bytes),
    /// What the sender of this frame has received on this link.
    Delivered {
        /// Bytes of packet frames in all.
        total: u64,
        /// When the latest of them came, by its own clock: microseconds since any time, or 0 if it does not say.
        micros: u64,
    },
    /// To be answered at once with a [`Frame::Pong`] of the same value.
    Ping(u64),
    /// The answer to a ping.
    Pong(u64),
    /// Which networks belong to the laptop.
    Routes(Routes),
    /// How to resolve names.
    Dns(Dns),
    /// A message of the sidecar for the user.
    Notice(Notice),
    /// The session ends, and why.
    Goodbye(Goodbye),
    /// The sidecar is about to end: reset the flows and answer with a [`Goodbye`].
    Ending,
    /// The laptop asks for a [`SidecarStatus`].
    AskStatus,
    /// The sidecar's view of the session.
    SidecarStatus(SidecarStatus),
    /// The codespace's own networks or resolvers have changed.
    Codespace(Codespace),
    /// The laptop asks to be quiet: from now on no frame passes until one side has something to send, and the laptop
    /// will be heard within this many seconds. The sidecar answers with 0.
    Quiet(u32),
    /// An acknowledgment that the sidecar gives to a keepalive of this connection while the link is quiet.
    Standby(Bytes),
    /// A frame of a link with several lanes, with its number.
    Numbered(u64, Bytes),
    /// Another lane would help.
    WantLane,
}

/// The first frame of each direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The lowest protocol version the speaker still speaks.
    pub lowest: u16,
    /// The highest protocol version the speaker speaks.
    pub highest: u16,
    /// Bits of optional behaviour; an unknown bit is ignored.
    pub capabilities: u32,
    /// The version of the program, for messages only.
    pub software: String,
}

/// The secret that resumes a session. `Debug` does not show it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Token(pub [u8; 32]);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(..)")
    }
}

/// The laptop asks for a new session, or for the one it had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// Which session to resume; `None` asks for a new one.
    pub resume: Option<([u8; 16], Token)>,
    /// The number of the link within the laptop's session. Each attempt has a higher one than those before, so that
    /// an attempt that was abandoned and arrives late is not taken for the newest.
    pub link: u32,
    /// Which lane of the link this connection is: 0 for the link itself, then 1, 2 and so on.
    pub lane: u8,
    /// The largest packet the laptop takes, in bytes.
    pub mtu: u16,
    /// The address families the laptop can serve.
    pub families: Families,
    /// How long the sidecar keeps the session after a link ends without a goodbye, in seconds.
    pub grace: u32,
    /// Who asks: the laptop's user name. For messages only.
    pub user: String,
    /// The laptop's host name. For messages only.
    pub host: String,
    /// Whose packets enter the tunnel.
    pub from: Sources,
    /// Prefixes preferred for the tunnel's addresses: those of an earlier session.
    pub preferred: Vec<IpNet>,
    /// Prefixes that the tunnel's addresses must not overlap: the laptop's own routes.
    pub avoid: Vec<IpNet>,
}

/// Whose packets enter the tunnel, besides those of the codespace itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sources {
    /// Those of containers on the codespace's own bridges.
    pub containers: bool,
    /// Those that the codespace forwards from these networks, at most [`MAX_SOURCES`].
    pub networks: Vec<IpNet>,
}

/// A set of address families.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Families {
    /// IPv4.
    pub v4: bool,
    /// IPv6.
    pub v6: bool,
}

/// The sidecar's answer to [`Open`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// The session's name, for logs and for resuming.
    pub session: [u8; 16],
    /// The secret that resumes it.
    pub token: Token,
    /// Whether this is the session that was asked for, with its device and flows.
    pub resumed: bool,
    /// The device's MTU in bytes.
    pub mtu: u16,
    /// The tunnel's addresses, one or none a family: the same on all links of a session.
    pub addresses: Vec<TunnelAddress>,
    /// The name of the device.
    pub device: String,
    /// Networks the codespace reaches by itself; its routes to them win over the tunnel.
    pub networks: Vec<IpNet>,
    /// The codespace's own resolvers.
    pub resolvers: Vec<IpAddr>,
}

/// What the codespace has of its own, in place of what [`Opened`] listed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Codespace {
    /// Networks the codespace reaches by itself; its routes to them win over the tunnel.
    pub networks: Vec<IpNet>,
    /// The codespace's own resolvers.
    pub resolvers: Vec<IpAddr>,
}

/// The two ends of the tunnel in one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TunnelAddress {
    /// The sidecar's own address, with the tunnel's prefix length.
    pub sidecar: IpNet,
    /// The engine's address: answers echo requests and DNS.
    pub gateway: IpAddr,
}

/// The set of forwarded networks, or a change to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Routes {
    /// Adds and removes networks.
    Change {
        /// Networks to forward from now on.
        add: Vec<IpNet>,
        /// Networks to forward no longer.
        remove: Vec<IpNet>,
    },
    /// A part of a full set; more parts follow. Nothing changes yet.
    Part(Vec<IpNet>),
    /// The last part of a full set, which now replaces all earlier routes at once.
    Last(Vec<IpNet>),
}

impl Routes {
    /// The frames that send a full set.
    pub fn full(routes: &[IpNet]) -> impl Iterator<Item = Frame> {
        let parts = routes.len().div_ceil(MAX_PREFIXES).max(1);
        (1..=parts).map(move |number| {
            let part = routes.chunks(MAX_PREFIXES).nth(number - 1).unwrap_or_default().to_vec();
            Frame::Routes(if number == parts { Self::Last(part) } else { Self::Part(part) })
        })
    }
}

/// Who answers which names. Sent again, changed or not, whenever the laptop's resolver may answer otherwise than before: the
/// sidecar then forgets what it said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dns {
    /// Who is asked first.
    pub mode: DnsMode,
    /// The laptop's search domains, without a trailing dot.
    pub search: Vec<String>,
    /// Domains only the laptop answers for, reverse zones among them, without a trailing dot.
    pub domains: Vec<String>,
    /// What becomes of public names that lead into the laptop's networks.
    pub rebind: Rebind,
}

/// What becomes of an answer of the codespace's own resolvers with an address in the laptop's networks. Whoever owns a public
/// name could have a program of the codespace connect there (DNS rebinding).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Rebind {
    /// It is passed on.
    #[default]
    Allow,
    /// It is refused.
    Refuse,
}

/// Who is asked first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DnsMode {
    /// No resolver hook at all.
    Off,
    /// The laptop's domains go to the laptop; everything else to the codespace, then to the laptop.
    Split,
    /// The laptop's domains go to the laptop; everything else to the codespace, and no further.
    SplitStrict,
    /// The laptop first, then the codespace.
    Local,
}

/// A message of the sidecar for the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Its severity.
    pub level: Level,
    /// A stable name of the kind of message, for programs: lower case, words joined by hyphens.
    pub code: String,
    /// The message, shown unchanged except for control characters.
    pub text: String,
}

/// The severity of a notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Information.
    Info,
    /// Something works only in part.
    Warning,
    /// Something does not work.
    Error,
}

/// The session ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Goodbye {
    /// Why, for programs.
    pub reason: Reason,
    /// Why, for people.
    pub text: String,
}

/// Why a session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Reason {
    /// As the user asked.
    Done = 0,
    /// No protocol version in common.
    Version = 1,
    /// The sidecar is not privileged enough.
    Privilege = 2,
    /// There is no usable TUN device.
    Tun = 3,
    /// Another laptop's session is alive.
    Busy = 4,
    /// The session to resume does not exist, or the token is wrong.
    NoSession = 5,
    /// The other side broke the protocol.
    Protocol = 6,
    /// A signal ended the sidecar.
    Terminated = 7,
    /// Anything else; see the text.
    Failed = 8,
    /// Another laptop has taken the session over; the text says who.
    TakenOver = 9,
    /// The session already has a link with this number or a higher one.
    Stale = 10,
}

impl Reason {
    pub(super) fn from_wire(byte: u8) -> Self {
        match byte {
            0 => Self::Done,
            1 => Self::Version,
            2 => Self::Privilege,
            3 => Self::Tun,
            4 => Self::Busy,
            5 => Self::NoSession,
            6 => Self::Protocol,
            7 => Self::Terminated,
            9 => Self::TakenOver,
            10 => Self::Stale,
            _ => Self::Failed,
        }
    }
}

/// The sidecar's view of the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SidecarStatus {
    /// How long the session has existed, in seconds.
    pub uptime: u64,
    /// How names are resolved.
    pub dns: DnsMode,
    /// Whether resolv.conf names our responder.
    pub resolver_hook: bool,
    /// Number of forwarded networks that are installed.
    pub routes: u32,
    /// What has passed since the session began.
    pub counters: SidecarCounters,
}

/// Packets and bytes that passed the sidecar since its session began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SidecarCounters {
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

/// Why bytes are not a frame. Nothing after such bytes can be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length field is over the bound.
    #[error("a frame of kind {kind} announces {length} bytes; the maximum is {MAX_PAYLOAD}")]
    TooLong {
        /// The frame's kind.
        kind: u8,
        /// The announced length.
        length: usize,
    },
    /// A known kind with a payload that breaks its layout.
    #[error("a frame of kind {kind} is malformed: {what}")]
    Malformed {
        /// The frame's kind.
        kind: u8,
        /// What is wrong with it.
        what: &'static str,
    },
}
