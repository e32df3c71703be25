//! Frames to bytes and bytes to frames, as the tables of [`super`] say.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use ipnet::IpNet;

use super::types::{
    Codespace, Dns, DnsMode, Families, Frame, FrameError, Goodbye, HEADER_LEN, Hello, Level, MAX_PAYLOAD,
    MAX_PREFIXES, MAX_SOURCES, MAX_TEXT, Notice, Open, Opened, Reason, Rebind, Routes, SidecarCounters,
    SidecarStatus, Sources, Token, TunnelAddress,
};

/// Maximum length of a list that is sent, in bytes. [`MAX_PREFIXES`] of the longest prefixes fit, and three lists fit a
/// payload.
const MAX_LIST: usize = 40 * 1024;

const HELLO: u8 = 1;
const OPEN: u8 = 2;
const OPENED: u8 = 3;
pub(super) const PACKET: u8 = 4;
const DELIVERED: u8 = 5;
pub(super) const PING: u8 = 6;
const PONG: u8 = 7;
const ROUTES: u8 = 8;
pub(super) const DNS: u8 = 9;
const NOTICE: u8 = 10;
const GOODBYE: u8 = 11;
const ENDING: u8 = 12;
const ASK_STATUS: u8 = 13;
const SIDECAR_STATUS: u8 = 14;
const CODESPACE: u8 = 15;
const QUIET: u8 = 16;
const STANDBY: u8 = 17;
pub(crate) const NUMBERED: u8 = 18;
pub(super) const WANT_LANE: u8 = 19;

/// The header of a packet frame, for writers that send header and packet as two slices.
///
/// # Panics
/// In debug builds, for a packet longer than [`MAX_PAYLOAD`].
pub fn packet_header(len: usize) -> [u8; HEADER_LEN] {
    debug_assert!(len <= MAX_PAYLOAD);
    header(PACKET, len)
}

pub(super) fn header(kind: u8, len: usize) -> [u8; HEADER_LEN] {
    let [_, a, b, c] = (len as u32).to_be_bytes();
    [kind, a, b, c]
}

impl Frame {
    /// Appends the frame to `out`. Lists and texts over their bounds are truncated and invalid names are left out,
    /// because the other side would refuse the frame.
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
                put_open(out, open);
                OPEN
            }
            Self::Opened(opened) => {
                put_opened(out, opened);
                OPENED
            }
            Self::Packet(packet) => {
                out.put_slice(packet);
                PACKET
            }
            Self::Delivered { total, micros } => {
                out.put_u64(*total);
                out.put_u64(*micros);
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
                let (part, add, remove): (u8, &[IpNet], &[IpNet]) = match routes {
                    Routes::Change { add, remove } => (0, add, remove),
                    Routes::Part(add) => (1, add, &[]),
                    Routes::Last(add) => (2, add, &[]),
                };
                out.put_u8(part);
                put_list(out, add, put_prefix);
                put_list(out, remove, put_prefix);
                ROUTES
            }
            Self::Dns(dns) => {
                out.put_u8(mode_to_wire(dns.mode));
                put_names(out, &dns.search);
                put_names(out, &dns.domains);
                out.put_u8(match dns.rebind {
                    Rebind::Allow => 0,
                    Rebind::Refuse => 1,
                });
                DNS
            }
            Self::Notice(notice) => {
                out.put_u8(match notice.level {
                    Level::Info => 0,
                    Level::Warning => 1,
                    Level::Error => 2,
                });
                put_text(out, &notice.code);
                put_text(out, &notice.text);
                NOTICE
            }
            Self::Goodbye(goodbye) => {
                out.put_u8(goodbye.reason as u8);
                put_text(out, &goodbye.text);
                GOODBYE
            }
            Self::Ending => ENDING,
            Self::AskStatus => ASK_STATUS,
            Self::SidecarStatus(status) => {
                put_status(out, status);
                SIDECAR_STATUS
            }
            Self::Codespace(Codespace { networks, resolvers }) => {
                put_list(out, networks, put_prefix);
                put_list(out, resolvers, put_address);
                CODESPACE
            }
            Self::Quiet(seconds) => {
                out.put_u32(*seconds);
                QUIET
            }
            Self::Standby(packet) => {
                out.put_slice(packet);
                STANDBY
            }
            Self::Numbered(number, frame) => {
                out.put_u64(*number);
                out.put_slice(frame);
                NUMBERED
            }
            Self::WantLane => WANT_LANE,
        }
    }

    /// Removes the next frame from the front of `buffer`. `Ok(None)` means that more bytes are needed; the
    /// buffer then holds less than [`HEADER_LEN`] + [`MAX_PAYLOAD`] bytes of this frame. Frames of unknown
    /// kinds are removed and skipped.
    ///
    /// # Errors
    /// The stream breaks the protocol; nothing after this point can be decoded.
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

/// The length in bytes of the frame at the front of `buffer`, header included, once its header is complete.
///
/// # Errors
/// The announced length is over the bound.
pub fn announced_len(buffer: &[u8]) -> Result<Option<usize>, FrameError> {
    Ok(peek_header(buffer)?.map(|(_, length)| HEADER_LEN + length))
}

pub(super) fn peek_header(buffer: &[u8]) -> Result<Option<(u8, usize)>, FrameError> {
    let Some(&[kind, a, b, c]) = buffer.first_chunk::<HEADER_LEN>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes([0, a, b, c]) as usize;
    if length > MAX_PAYLOAD {
        return Err(FrameError::TooLong { kind, length });
    }
    Ok(Some((kind, length)))
}

pub(super) fn decode_payload(kind: u8, payload: Bytes) -> Result<Option<Frame>, FrameError> {
    if kind == PACKET {
        return Ok(Some(Frame::Packet(payload)));
    }
    let mut fields = Fields(payload);
    fields.frame(kind).map_err(|what| FrameError::Malformed { kind, what })
}

/// A payload, decoded field by field from the front.
struct Fields(Bytes);

type Field<T> = Result<T, &'static str>;

pub(super) const SHORT: &str = "it ends early";

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
            DELIVERED => Frame::Delivered { total: self.u64()?, micros: self.later_count()? },
            PING => Frame::Ping(self.u64()?),
            PONG => Frame::Pong(self.u64()?),
            ROUTES => Frame::Routes(self.routes()?),
            DNS => Frame::Dns(Dns {
                mode: self.mode()?,
                search: self.list(Self::name)?,
                domains: self.list(Self::name)?,
                rebind: self.rebind()?,
            }),
            NOTICE => Frame::Notice(Notice {
                level: match self.u8()? {
                    0 => Level::Info,
                    1 => Level::Warning,
                    _ => Level::Error,
                },
                code: self.text()?,
                text: self.text()?,
            }),
            GOODBYE => Frame::Goodbye(Goodbye { reason: Reason::from_wire(self.u8()?), text: self.text()? }),
            ENDING => Frame::Ending,
            ASK_STATUS => Frame::AskStatus,
            SIDECAR_STATUS => Frame::SidecarStatus(self.status()?),
            CODESPACE => Frame::Codespace(Codespace {
                networks: self.list(Self::prefix)?,
                resolvers: self.list(Self::address)?,
            }),
            QUIET => Frame::Quiet(self.u32()?),
            STANDBY => Frame::Standby(self.0.split_off(0)),
            NUMBERED => Frame::Numbered(self.u64()?, self.0.split_off(0)),
            WANT_LANE => Frame::WantLane,
            _ => return Ok(None),
        }))
    }

    fn routes(&mut self) -> Field<Routes> {
        let part = self.u8()?;
        let (add, remove) = (self.list(Self::prefix)?, self.list(Self::prefix)?);
        match part {
            0 => Ok(Routes::Change { add, remove }),
            1 | 2 if !remove.is_empty() => Err("a part of a full set removes routes"),
            1 => Ok(Routes::Part(add)),
            2 => Ok(Routes::Last(add)),
            _ => Err("unknown part of a set of routes"),
        }
    }

    fn mode(&mut self) -> Field<DnsMode> {
        match self.u8()? {
            0 => Ok(DnsMode::Off),
            1 => Ok(DnsMode::Split),
            2 => Ok(DnsMode::Local),
            3 => Ok(DnsMode::SplitStrict),
            _ => Err("unknown DNS mode"),
        }
    }

    fn rebind(&mut self) -> Field<Rebind> {
        if self.0.is_empty() {
            return Ok(Rebind::default());
        }
        match self.u8()? {
            0 => Ok(Rebind::Allow),
            1 => Ok(Rebind::Refuse),
            _ => Err("unknown rebind setting"),
        }
    }

    /// A count that earlier versions do not send.
    fn later_count(&mut self) -> Field<u64> {
        if self.0.is_empty() { Ok(0) } else { self.u64() }
    }

    fn status(&mut self) -> Field<SidecarStatus> {
        Ok(SidecarStatus {
            uptime: self.u64()?,
            dns: self.mode()?,
            resolver_hook: self.flag()?,
            routes: self.u32()?,
            counters: SidecarCounters {
                uplink_packets: self.u64()?,
                uplink_bytes: self.u64()?,
                downlink_packets: self.u64()?,
                downlink_bytes: self.u64()?,
                downlink_malformed: self.u64()?,
                downlink_refused: self.u64()?,
                rebind_refused: self.later_count()?,
                uplink_dropped: self.later_count()?,
            },
        })
    }

    fn open(&mut self) -> Field<Open> {
        let session = self.array::<16>()?;
        let token = Token(self.array::<32>()?);
        let resume = (session != [0; 16]).then_some((session, token));
        let (link, lane) = (self.u32()?, self.u8()?);
        let mtu = self.u16()?;
        let families = self.u8()?;
        Ok(Open {
            resume,
            link,
            lane,
            mtu,
            families: Families { v4: families & 1 != 0, v6: families & 2 != 0 },
            grace: self.u32()?,
            from: self.sources()?,
            user: self.text()?,
            host: self.text()?,
            preferred: self.list(Self::prefix)?,
            avoid: self.list(Self::prefix)?,
        })
    }

    fn sources(&mut self) -> Field<Sources> {
        let containers = self.u8()? & 1 != 0;
        let mut networks = self.list(Self::prefix)?;
        networks.truncate(MAX_SOURCES);
        Ok(Sources { containers, networks })
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

    /// A domain name. It is written into resolv.conf, so only the characters of host names pass.
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

    /// Items are at least one byte long and are read one by one, so a false count allocates no more than the
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

fn put_open(out: &mut BytesMut, open: &Open) {
    let (session, token) = open.resume.unwrap_or(([0; 16], Token([0; 32])));
    out.put_slice(&session);
    out.put_slice(&token.0);
    out.put_u32(open.link);
    out.put_u8(open.lane);
    out.put_u16(open.mtu);
    out.put_u8(u8::from(open.families.v4) | u8::from(open.families.v6) << 1);
    out.put_u32(open.grace);
    out.put_u8(u8::from(open.from.containers));
    put_list(out, &open.from.networks, put_prefix);
    put_text(out, &open.user);
    put_text(out, &open.host);
    put_list(out, &open.preferred, put_prefix);
    put_list(out, &open.avoid, put_prefix);
}

fn put_opened(out: &mut BytesMut, opened: &Opened) {
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
}

fn put_status(out: &mut BytesMut, status: &SidecarStatus) {
    let SidecarStatus { uptime, dns, resolver_hook, routes, counters } = status;
    out.put_u64(*uptime);
    out.put_u8(mode_to_wire(*dns));
    out.put_u8((*resolver_hook).into());
    out.put_u32(*routes);
    for count in [
        counters.uplink_packets,
        counters.uplink_bytes,
        counters.downlink_packets,
        counters.downlink_bytes,
        counters.downlink_malformed,
        counters.downlink_refused,
        counters.rebind_refused,
        counters.uplink_dropped,
    ] {
        out.put_u64(count);
    }
}

fn mode_to_wire(mode: DnsMode) -> u8 {
    match mode {
        DnsMode::Off => 0,
        DnsMode::Split => 1,
        DnsMode::Local => 2,
        DnsMode::SplitStrict => 3,
    }
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
