//! The wire protocol: frames on a reliable, ordered stream of bytes.
//!
//! This module is pure: bytes in, frames out. `framed` does the reading and writing.
//!
//! # The stream
//!
//! Each direction is [`PREAMBLE`] followed by frames. All integers are big-endian.
//!
//! ```text
//!  0        1                          4
//!  +--------+--------------------------+----------------------+
//!  | kind   | length of payload (u24)  | payload ...          |
//!  +--------+--------------------------+----------------------+
//! ```
//!
//! A length over [`MAX_PAYLOAD`] ends the session before any of the payload is stored. A kind that this version does
//! not know is skipped by its length, so later minor versions can add kinds.
//!
//! One frame carries one packet. Batching happens in the vectored write, where it costs nothing to undo.
//!
//! # Payloads
//!
//! | kind | frame | from | payload |
//! |---|---|---|---|
//! | 1 | [`Hello`] | both | lowest version u16, highest version u16, capabilities u32, software version *text* |
//! | 2 | [`Open`] | laptop | session 16 bytes, token 32 bytes (both zero: a new session), link u32, lane u8, MTU u16, families u8, grace u32 (seconds), whose packets enter the tunnel: containers u8 and *prefixes*, user *text*, host *text*, *prefixes* preferred for the tunnel, *prefixes* to avoid |
//! | 3 | [`Opened`] | sidecar | session 16 bytes, token 32 bytes, resumed u8 (0 or 1), MTU u16, *tunnel addresses*, device *text*, *prefixes* of the codespace's own networks, *addresses* of its resolvers |
//! | 4 | [`Packet`](Frame::Packet) | both | one whole IPv4 or IPv6 packet |
//! | 5 | [`Delivered`](Frame::Delivered) | both | bytes of packet frames, headers included, received on this link u64, time of the latest of them u64 (microseconds of the receiver's clock, which counts from any time; 0: it does not say) |
//! | 6 | [`Ping`](Frame::Ping) | both | u64, opaque |
//! | 7 | [`Pong`](Frame::Pong) | both | u64, the ping's |
//! | 8 | [`Routes`] | laptop | part u8, *prefixes* to add, *prefixes* to remove |
//! | 9 | [`Dns`] | laptop | mode u8, *names* to search, *names* of domains that only the laptop answers, rebind u8 |
//! | 10 | [`Notice`] | sidecar | level u8, code *text*, *text* |
//! | 11 | [`Goodbye`] | both | reason u8, *text* |
//! | 12 | [`Ending`](Frame::Ending) | sidecar | empty |
//! | 13 | [`AskStatus`](Frame::AskStatus) | laptop | empty |
//! | 14 | [`SidecarStatus`] | sidecar | uptime u64 (seconds), DNS mode u8, resolver hook u8 (0 or 1), routes u32, packets up u64, bytes up u64, packets down u64, bytes down u64, malformed u64, refused u64, rebind refused u64, packets up dropped u64 |
//! | 15 | [`Codespace`] | sidecar | *prefixes* of the codespace's own networks, *addresses* of its resolvers |
//! | 16 | [`Quiet`](Frame::Quiet) | both | u32: seconds until the laptop is heard again; 0 in the sidecar's answer |
//! | 17 | [`Standby`](Frame::Standby) | laptop | one whole IPv4 or IPv6 packet |
//! | 18 | [`Numbered`](Frame::Numbered) | both | number u64, one whole frame |
//! | 19 | [`WantLane`](Frame::WantLane) | sidecar | empty |
//!
//! *text* is a u16 length, at most [`MAX_TEXT`], and that many bytes of UTF-8. *prefixes*, *addresses*, *names*
//! are a u16 count and that many items; a name is a text for which [`is_domain`] holds; an address is a family u8
//! (4 or 6) and 4 or 16 bytes; a prefix is an address and a prefix length u8. *tunnel addresses* are a u16 count of
//! (prefix of the sidecar's own address, address of the gateway).
//!
//! Families: 1 is IPv4, 2 is IPv6, 3 is both. DNS mode: 0 off, 1 split, 2 local, 3 split-strict. Rebind: 0
//! [`Rebind::Allow`], 1 [`Rebind::Refuse`]. Level: 0 information, 1 warning, 2 or
//! more error. Part: 0 [`Routes::Change`], 1 [`Routes::Part`], 2 [`Routes::Last`]; in a part the second list is empty.
//! The reasons are numbered in [`Reason`]; an unknown one reads as `Failed`. Other values of flags, modes and parts
//! break the protocol.
//!
//! A payload that ends before its last field breaks the protocol, except before a field that was added later: rebind,
//! rebind refused and the time of a report, which then are 0. Bytes after the last field are ignored, so later
//! versions can add fields there.
//!
//! # A session
//!
//! Both sides begin with a hello, without waiting for the other's. Then the laptop sends [`Open`] and the sidecar
//! answers with [`Opened`]; after that, frames may come in any order.
//!
//! Routes are replaced atomically. The sidecar collects the parts of a full set and applies nothing before the last
//! one; the set then replaces all earlier routes without a moment at which a packet for a network that is in both
//! sets could take the codespace's default route. A new part 1 after a [`Routes::Change`] begins a new set.
//!
//! Either side may end the session with a [`Goodbye`] at any time after its hello. The laptop resets its flows first:
//! the resets travel ahead of its goodbye. The sidecar answers the laptop's goodbye with its own once everything is
//! undone. A sidecar that ends by itself sends [`Ending`](Frame::Ending) first, and the laptop answers that with its
//! resets and its goodbye.
//!
//! A link on which nothing of worth passes becomes quiet: the laptop sends [`Standby`](Frame::Standby) packets, one for each
//! connection, and [`Quiet`](Frame::Quiet), the sidecar answers, and after that not even pings pass. Any frame but these
//! ends it. Until then the sidecar answers keepalives of TCP (RFC 9293, 3.8.4) with the standby packets.
//!
//! A link that ends without a goodbye is lost: the sidecar keeps the session for the grace of its last [`Open`], and
//! another link resumes it with the session's id and token, which stay the same. The sidecar refuses a link whose number
//! is not higher than that of the newest one, with [`Reason::Stale`]. Families, MTU and prefixes of that
//! [`Open`] are ignored; [`Opened`] has the actual values. Routes and DNS settings stay until the laptop sends others.
//! Packets under way are lost, and [`Frame::Delivered`] counts from 0 again.
//!
//! The codespace's own networks and resolvers may change while a session lasts. The sidecar then sends a [`Codespace`],
//! whose lists replace those of [`Opened`]; changes that follow each other closely are sent as one.
//!
//! # Lanes
//!
//! If both hellos have the capability [`hello::LANES`](crate::hello::LANES), a link may have further connections, its
//! lanes. The laptop opens each like a link, with the session's id and token, the link's number, and its lane: 1 for the
//! first one, then 2 and so on, below [`lanes::MAX_LANES`](crate::lanes::MAX_LANES). The sidecar answers with [`Opened`],
//! or refuses the lane: with [`Reason::Stale`] if the session has another link by now, or none. [`WantLane`](Frame::WantLane) asks the laptop for one.
//!
//! From then on each side sends its frames as [`Numbered`](Frame::Numbered). Numbers begin at 0, without a gap, and increase on
//! each lane; 0 is sent over lane 0, all others over the other lanes. The receiver handles the frames in the order of their
//! numbers. Frames 5, 6, 7, 16 and 19 have no number, and take lane 0, where they are handled at once. [`Frame::Delivered`]
//! counts a packet once it is handled, without its number and the header of [`Numbered`](Frame::Numbered). A lane that
//! ends is the end of the link.

mod codec;
mod numbered;
mod types;

#[cfg(feature = "framed")]
pub(crate) use codec::NUMBERED;
pub use codec::{announced_len, is_domain, packet_header};
pub use numbered::numbered_packet_header;
pub use types::{
    Codespace, Dns, DnsMode, Families, Frame, FrameError, Goodbye, HEADER_LEN, Hello, Level, MAX_PAYLOAD,
    MAX_PREFIXES, MAX_SOURCES, MAX_STANDBY, MAX_TEXT, Notice, Open, Opened, PREAMBLE, Reason, Rebind, Routes,
    SidecarCounters, SidecarStatus, Sources, Token, TunnelAddress,
};

#[cfg(test)]
mod tests;
