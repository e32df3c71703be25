//! The wire: frames on a reliable, ordered stream of bytes.
//!
//! This module is pure: bytes in, frames out. [`crate::framed`] does the reading and writing.
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
//! A payload longer than [`MAX_PAYLOAD`] ends the session before a byte of it is stored. A kind this
//! version does not know is skipped by its length, so a later minor version may add kinds freely.
//!
//! A frame carries one packet, not a batch: the batching is in the writing (everything that is ready goes
//! out in one vectored write), where it costs nothing to take packets apart again.
//!
//! # Payloads
//!
//! | kind | frame | from | payload |
//! |---|---|---|---|
//! | 1 | [`Hello`] | both | lowest version u16, highest version u16, capabilities u32, software version *text* |
//! | 2 | [`Open`] | laptop | session 16 bytes, token 32 bytes (both zero: a new session), MTU u16, families u8, grace u16 (seconds), *prefixes* wanted for the tunnel, *prefixes* to stay clear of |
//! | 3 | [`Opened`] | sidecar | session 16 bytes, token 32 bytes, resumed u8 (0 or 1), MTU u16, *tunnel addresses*, device *text*, *prefixes* of the codespace's own networks, *addresses* of its resolvers |
//! | 4 | [`Packet`](Frame::Packet) | both | one whole IPv4 or IPv6 packet |
//! | 5 | [`Delivered`](Frame::Delivered) | both | u64: bytes of packet frames, headers included, taken off this link since its preamble |
//! | 6 | [`Ping`](Frame::Ping) | both | u64, opaque |
//! | 7 | [`Pong`](Frame::Pong) | both | u64, the ping's |
//! | 8 | [`Routes`] | laptop | full u8 (1: forget all earlier routes first), *prefixes* to add, *prefixes* to remove |
//! | 9 | [`Dns`] | laptop | mode u8, *names* to search, *names* of domains that only the laptop answers |
//! | 10 | [`Notice`] | sidecar | level u8, *text* |
//! | 11 | [`Goodbye`] | both | reason u8, *text* |
//!
//! *text* is a u16 length, at most [`MAX_TEXT`], and that many bytes of UTF-8. *prefixes*, *addresses*, *names*
//! are a u16 count and that many items; a name is a text that [`is_domain`]; an address is a family u8 (4 or 6)
//! and 4 or 16 bytes; a prefix is an address and a prefix length u8. *tunnel addresses* are a u16 count of (prefix
//! of the sidecar's own address, address of the gateway).
//!
//! Families are 1 for IPv4, 2 for IPv6, 3 for both. A mode is 0 off, 1 split, 2 local; a level is 0 information,
//! 1 warning, 2 or more error; the reasons are numbered in [`Reason`], and an unknown one is `Failed`. Flags
//! other than 0 and 1, and modes over 2, break the protocol.
//!
//! A payload that ends before its last field breaks the protocol. Bytes after the last field are ignored; a later
//! version may add fields there.
//!
//! # A session
//!
//! Both sides begin with a hello, without waiting for the other's. Then the laptop sends [`Open`] and the sidecar
//! answers with [`Opened`]; from there on the rest may come in any order. In [`Routes`], what is to be removed goes
//! before what is to be added.
//!
//! Either side may end the session with a [`Goodbye`] at any time after its hello. The sidecar answers the laptop's
//! with its own, once all is undone. A link that ends without one is cut: the sidecar keeps the session for the
//! grace of its last [`Open`], and another link resumes it with the session's name and token, which stay the same.
//! Families, MTU and prefixes of that [`Open`] are passed over; [`Opened`] says what there is. Routes and DNS
//! settings stay as they are until the laptop sends others. Packets under way at the cut are lost, and
//! [`Frame::Delivered`] counts from 0 again.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use ipnet::IpNet;

/// What each direction begins with. NUL and 0xFF do not occur in UTF-8 text, so no login banner holds it.
pub const PREAMBLE: [u8; 8] = *b"\0gh-net\xff";

/// Bytes in front of every payload.
pub const HEADER_LEN: usize = 4;

/// The longest payload, in bytes. An IP packet is at most 65,575 bytes (IPv6 without jumbograms).
pub const MAX_PAYLOAD: usize = 128 * 1024;

/// The longest text, in bytes.
pub const MAX_TEXT: usize = 8 * 1024;

/// The items of one list that are sent at most; a larger set of routes is split over several frames.
pub const MAX_PREFIXES: usize = 2048;

/// The bytes of one list that are sent at most: [`MAX_PREFIXES`] of the longest fit, and three lists a payload.
const MAX_LIST: usize = 40 * 1024;

const HELLO: u8 = 1;
const OPEN: u8 = 2;
const OPENED: u8 = 3;
const PACKET: u8 = 4;
const DELIVERED: u8 = 5;
const PING: u8 = 6;
const PONG: u8 = 7;
const ROUTES: u8 = 8;
const DNS: u8 = 9;
const NOTICE: u8 = 10;
const GOODBYE: u8 = 11;

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Who speaks, and which versions of this protocol it speaks.
    Hello(Hello),
    /// The laptop asks for a session.
    Open(Open),
    /// The sidecar grants it.
    Opened(Opened),
    /// One whole IP packet, not yet looked at.
    Packet(Bytes),
    /// How many bytes of packet frames the sender of this frame has taken off the link.
    Delivered(u64),
    /// To be answered at once with a [`Frame::Pong`] of the same value.
    Ping(u64),
    /// The answer to a ping.
    Pong(u64),
    /// Which networks belong to the laptop.
    Routes(Routes),
    /// How names are to be resolved.
    Dns(Dns),
    /// Words of the sidecar for the user.
    Notice(Notice),
    /// The session ends, and why.
    Goodbye(Goodbye),
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

/// A secret that lets its holder take a session over. Its `Debug` shows nothing of it.
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
    /// The largest packet the laptop takes, in bytes.
    pub mtu: u16,
    /// The address families the laptop can serve.
    pub families: Families,
    /// How long the sidecar keeps everything in place after a link ends without a goodbye, in seconds.
    pub grace: u16,
    /// Prefixes to take the tunnel's addresses from; empty leaves the choice to the sidecar.
    pub wanted: Vec<IpNet>,
    /// Prefixes the tunnel's addresses must stay clear of: the laptop's own routes.
    pub avoid: Vec<IpNet>,
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
    /// The tunnel's addresses, one or none a family.
    pub addresses: Vec<TunnelAddress>,
    /// The name of the device.
    pub device: String,
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

/// A change to the set of forwarded networks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routes {
    /// Forget all earlier routes first.
    pub full: bool,
    /// Networks that belong to the laptop from now on.
    pub add: Vec<IpNet>,
    /// Networks that no longer do.
    pub remove: Vec<IpNet>,
}

/// Who answers which names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dns {
    /// Who is asked first.
    pub mode: DnsMode,
    /// The laptop's search domains, without a trailing dot.
    pub search: Vec<String>,
    /// Domains only the laptop answers for, reverse zones among them, without a trailing dot.
    pub domains: Vec<String>,
}

/// Who is asked first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DnsMode {
    /// No resolver hook at all.
    Off,
    /// The laptop's domains go to the laptop; all else to the codespace, then to the laptop.
    Split,
    /// The laptop first, then the codespace.
    Local,
}

/// Something the sidecar wants the user to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// How grave.
    pub level: Level,
    /// The words, shown as they are (control characters aside).
    pub text: String,
}

/// How grave a notice is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Good to know.
    Info,
    /// Something does not work as wished.
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
    /// The user wished it.
    Done = 0,
    /// No protocol version in common.
    Version = 1,
    /// The sidecar is not privileged enough.
    Privilege = 2,
    /// There is no usable TUN device.
    Tun = 3,
    /// Another session is in progress.
    Busy = 4,
    /// The session to resume is not there, or the token is not its token.
    NoSession = 5,
    /// The other side broke the protocol.
    Protocol = 6,
    /// A signal ended the sidecar.
    Terminated = 7,
    /// Anything else; the text says it.
    Failed = 8,
}

impl Reason {
    fn from_wire(byte: u8) -> Self {
        match byte {
            0 => Self::Done,
            1 => Self::Version,
            2 => Self::Privilege,
            3 => Self::Tun,
            4 => Self::Busy,
            5 => Self::NoSession,
            6 => Self::Protocol,
            7 => Self::Terminated,
            _ => Self::Failed,
        }
    }
}

/// Why bytes are not a frame. The stream can't be followed past any of these.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length field is over the bound.
    #[error("a frame of kind {kind} announces {length} bytes, the most is {MAX_PAYLOAD}")]
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

/// The header of a packet frame, for writers that send header and packet as two slices.
///
/// # Panics
/// Never for packets up to [`MAX_PAYLOAD`]; a longer one is a bug of the caller, caught in debug builds.
pub fn packet_header(len: usize) -> [u8; HEADER_LEN] {
    debug_assert!(len <= MAX_PAYLOAD);
    header(PACKET, len)
}

fn header(kind: u8, len: usize) -> [u8; HEADER_LEN] {
    let [_, a, b, c] = (len as u32).to_be_bytes();
    [kind, a, b, c]
}

impl Frame {
    /// Appends the frame to `out`. Lists and texts over their bounds are cut, and names that are none left out,
    /// rather than sent in a form that the other side would refuse.
    pub fn encode(&self, out: &mut BytesMut) {
        let start = out.len();
        out.put_bytes(0, HEADER_LEN);
        let kind = self.encode_payload(out);
        let len = out.len() - start - HEADER_LEN;
        out[start..start + HEADER_LEN].copy_from_slice(&header(kind, len));
    }

    fn encode_payload(&self, out: &mut BytesMut) -> u8 {
        match self {
            Self::Hello(hello) => {
                out.put_u16(hello.lowest);
                out.put_u16(hello.highest);
                out.put_u32(hello.capabilities);
                put_text(out, &hello.software);
                HELLO
            }
            Self::Open(open) => {
                let (session, token) = open.resume.unwrap_or(([0; 16], Token([0; 32])));
                out.put_slice(&session);
                out.put_slice(&token.0);
                out.put_u16(open.mtu);
                out.put_u8(u8::from(open.families.v4) | u8::from(open.families.v6) << 1);
                out.put_u16(open.grace);
                put_list(out, &open.wanted, put_prefix);
                put_list(out, &open.avoid, put_prefix);
                OPEN
            }
            Self::Opened(opened) => {
                out.put_slice(&opened.session);
                out.put_slice(&opened.token.0);
                out.put_u8(opened.resumed.into());
                out.put_u16(opened.mtu);
                put_list(out, &opened.addresses, |out, address| {
                    put_prefix(out, &address.sidecar);
                    put_address(out, &address.gateway);
                });
                put_text(out, &opened.device);
                put_list(out, &opened.networks, put_prefix);
                put_list(out, &opened.resolvers, put_address);
                OPENED
            }
            Self::Packet(packet) => {
                out.put_slice(packet);
                PACKET
            }
            Self::Delivered(bytes) => {
                out.put_u64(*bytes);
                DELIVERED
            }
            Self::Ping(value) => {
                out.put_u64(*value);
                PING
            }
            Self::Pong(value) => {
                out.put_u64(*value);
                PONG
            }
            Self::Routes(routes) => {
                out.put_u8(routes.full.into());
                put_list(out, &routes.add, put_prefix);
                put_list(out, &routes.remove, put_prefix);
                ROUTES
            }
            Self::Dns(dns) => {
                out.put_u8(match dns.mode {
                    DnsMode::Off => 0,
                    DnsMode::Split => 1,
                    DnsMode::Local => 2,
                });
                put_names(out, &dns.search);
                put_names(out, &dns.domains);
                DNS
            }
            Self::Notice(notice) => {
                out.put_u8(match notice.level {
                    Level::Info => 0,
                    Level::Warning => 1,
                    Level::Error => 2,
                });
                put_text(out, &notice.text);
                NOTICE
            }
            Self::Goodbye(goodbye) => {
                out.put_u8(goodbye.reason as u8);
                put_text(out, &goodbye.text);
                GOODBYE
            }
        }
    }

    /// Takes the next frame off the front of `buffer`. `Ok(None)` means that more bytes are needed; the
    /// buffer then holds less than [`HEADER_LEN`] + [`MAX_PAYLOAD`] bytes of this frame. Frames of unknown
    /// kinds are taken off and skipped.
    ///
    /// # Errors
    /// The stream breaks the protocol and can't be followed any further.
    pub fn decode(buffer: &mut BytesMut) -> Result<Option<Self>, FrameError> {
        while let Some((kind, length)) = peek_header(buffer)? {
            if buffer.len() < HEADER_LEN + length {
                return Ok(None);
            }
            buffer.advance(HEADER_LEN);
            let payload = buffer.split_to(length).freeze();
            if let Some(frame) = decode_payload(kind, payload)? {
                return Ok(Some(frame));
            }
        }
        Ok(None)
    }
}

/// How many bytes the frame at the front of `buffer` has in all, as soon as its header is there.
///
/// # Errors
/// The announced length is over the bound.
pub fn announced_len(buffer: &[u8]) -> Result<Option<usize>, FrameError> {
    Ok(peek_header(buffer)?.map(|(_, length)| HEADER_LEN + length))
}

fn peek_header(buffer: &[u8]) -> Result<Option<(u8, usize)>, FrameError> {
    let Some(&[kind, a, b, c]) = buffer.first_chunk::<HEADER_LEN>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes([0, a, b, c]) as usize;
    if length > MAX_PAYLOAD {
        return Err(FrameError::TooLong { kind, length });
    }
    Ok(Some((kind, length)))
}

fn decode_payload(kind: u8, payload: Bytes) -> Result<Option<Frame>, FrameError> {
    if kind == PACKET {
        return Ok(Some(Frame::Packet(payload)));
    }
    let mut fields = Fields(payload);
    fields.frame(kind).map_err(|what| FrameError::Malformed { kind, what })
}

/// The fields of one payload, taken from the front.
struct Fields(Bytes);

type Field<T> = Result<T, &'static str>;

const SHORT: &str = "it ends early";

impl Fields {
    fn frame(&mut self, kind: u8) -> Field<Option<Frame>> {
        Ok(Some(match kind {
            HELLO => Frame::Hello(Hello {
                lowest: self.u16()?,
                highest: self.u16()?,
                capabilities: self.u32()?,
                software: self.text()?,
            }),
            OPEN => Frame::Open(self.open()?),
            OPENED => Frame::Opened(self.opened()?),
            DELIVERED => Frame::Delivered(self.u64()?),
            PING => Frame::Ping(self.u64()?),
            PONG => Frame::Pong(self.u64()?),
            ROUTES => Frame::Routes(Routes {
                full: self.flag()?,
                add: self.list(Self::prefix)?,
                remove: self.list(Self::prefix)?,
            }),
            DNS => Frame::Dns(Dns {
                mode: match self.u8()? {
                    0 => DnsMode::Off,
                    1 => DnsMode::Split,
                    2 => DnsMode::Local,
                    _ => return Err("unknown DNS mode"),
                },
                search: self.list(Self::name)?,
                domains: self.list(Self::name)?,
            }),
            NOTICE => Frame::Notice(Notice {
                level: match self.u8()? {
                    0 => Level::Info,
                    1 => Level::Warning,
                    _ => Level::Error,
                },
                text: self.text()?,
            }),
            GOODBYE => Frame::Goodbye(Goodbye { reason: Reason::from_wire(self.u8()?), text: self.text()? }),
            _ => return Ok(None),
        }))
    }

    fn open(&mut self) -> Field<Open> {
        let session = self.array::<16>()?;
        let token = Token(self.array::<32>()?);
        let resume = (session != [0; 16]).then_some((session, token));
        let mtu = self.u16()?;
        let families = self.u8()?;
        Ok(Open {
            resume,
            mtu,
            families: Families { v4: families & 1 != 0, v6: families & 2 != 0 },
            grace: self.u16()?,
            wanted: self.list(Self::prefix)?,
            avoid: self.list(Self::prefix)?,
        })
    }

    fn opened(&mut self) -> Field<Opened> {
        Ok(Opened {
            session: self.array::<16>()?,
            token: Token(self.array::<32>()?),
            resumed: self.flag()?,
            mtu: self.u16()?,
            addresses: self.list(|f| Ok(TunnelAddress { sidecar: f.prefix()?, gateway: f.address()? }))?,
            device: self.text()?,
            networks: self.list(Self::prefix)?,
            resolvers: self.list(Self::address)?,
        })
    }

    fn array<const N: usize>(&mut self) -> Field<[u8; N]> {
        let array = *self.0.first_chunk::<N>().ok_or(SHORT)?;
        self.0.advance(N);
        Ok(array)
    }

    fn u8(&mut self) -> Field<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Field<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Field<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Field<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn flag(&mut self) -> Field<bool> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err("a flag is neither 0 nor 1"),
        }
    }

    fn text(&mut self) -> Field<String> {
        let length = usize::from(self.u16()?);
        if length > MAX_TEXT {
            return Err("a text is too long");
        }
        if length > self.0.len() {
            return Err(SHORT);
        }
        let text = self.0.split_to(length);
        String::from_utf8(text.to_vec()).map_err(|_| "a text is not UTF-8")
    }

    /// A domain name. It ends up in resolv.conf, so nothing but the characters of host names passes.
    fn name(&mut self) -> Field<String> {
        let name = self.text()?;
        if !is_domain(&name) {
            return Err("a name is not a domain name");
        }
        Ok(name)
    }

    fn address(&mut self) -> Field<IpAddr> {
        match self.u8()? {
            4 => Ok(Ipv4Addr::from(self.array::<4>()?).into()),
            6 => Ok(Ipv6Addr::from(self.array::<16>()?).into()),
            _ => Err("an address is neither IPv4 nor IPv6"),
        }
    }

    fn prefix(&mut self) -> Field<IpNet> {
        let address = self.address()?;
        let length = self.u8()?;
        IpNet::new(address, length).map_err(|_| "a prefix length is too long")
    }

    /// Items are at least one byte long and are read one by one, so a count can't allocate more than the
    /// payload holds.
    fn list<T>(&mut self, item: impl Fn(&mut Self) -> Field<T>) -> Field<Vec<T>> {
        let count = usize::from(self.u16()?);
        let mut items = Vec::with_capacity(count.min(self.0.len()).min(64));
        for _ in 0..count {
            items.push(item(self)?);
        }
        Ok(items)
    }
}

/// Whether `name` is a domain name that is safe to write into resolv.conf: labels of letters, digits,
/// hyphens and underscores (RFC 1123, RFC 8552), 253 bytes at most, no trailing dot.
pub fn is_domain(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    name.len() <= 253 && name.split('.').all(label)
}

fn put_text(out: &mut BytesMut, text: &str) {
    let mut end = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    out.put_u16(end as u16);
    out.put_slice(&text.as_bytes()[..end]);
}

fn put_names(out: &mut BytesMut, names: &[String]) {
    let names: Vec<&String> = names.iter().filter(|name| is_domain(name)).collect();
    put_list(out, &names, |out, name| put_text(out, name));
}

fn put_address(out: &mut BytesMut, address: &IpAddr) {
    match address {
        IpAddr::V4(v4) => {
            out.put_u8(4);
            out.put_slice(&v4.octets());
        }
        IpAddr::V6(v6) => {
            out.put_u8(6);
            out.put_slice(&v6.octets());
        }
    }
}

fn put_prefix(out: &mut BytesMut, prefix: &IpNet) {
    put_address(out, &prefix.addr());
    out.put_u8(prefix.prefix_len());
}

fn put_list<T>(out: &mut BytesMut, items: &[T], put: impl Fn(&mut BytesMut, &T)) {
    let start = out.len();
    out.put_u16(0);
    let mut count = 0_u16;
    for item in items.iter().take(MAX_PREFIXES) {
        let end = out.len();
        put(out, item);
        if out.len() - start > MAX_LIST {
            out.truncate(end);
            break;
        }
        count += 1;
    }
    out[start..start + 2].copy_from_slice(&count.to_be_bytes());
}

#[cfg(test)]
mod tests;
