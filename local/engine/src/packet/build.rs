//! Builds whole packets, with their checksums. The payload is never copied.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use etherparse::IpNumber;

use super::checksum;
use crate::api::{Headers, Transmit};

/// The hop limit of packets that the engine sends (RFC 1340 and its successors).
const HOP_LIMIT: u8 = 64;
/// IPv4: don't fragment.
const DF: u16 = 0x4000;

/// The fields of a TCP segment that vary.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Segment {
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgment number, where the ACK flag is set.
    pub acknowledgment: Option<u32>,
    /// SYN, FIN, RST, PSH: see the constants.
    pub flags: u8,
    /// The window field, already scaled.
    pub window: u16,
    /// The MSS option, for a SYN.
    pub mss: Option<u16>,
    /// The window scale option, for a SYN.
    pub window_scale: Option<u8>,
}

/// TCP's FIN flag.
pub(crate) const FIN: u8 = 0x01;
/// TCP's SYN flag.
pub(crate) const SYN: u8 = 0x02;
/// TCP's RST flag.
pub(crate) const RST: u8 = 0x04;
/// TCP's PSH flag.
pub(crate) const PSH: u8 = 0x08;
const ACK: u8 = 0x10;

/// A TCP segment (RFC 9293, 3.1).
pub(crate) fn tcp(from: SocketAddr, to: SocketAddr, segment: &Segment, payload: Bytes) -> Transmit {
    let mut header = [0; 28];
    let len = if segment.mss.is_some() || segment.window_scale.is_some() { 28 } else { 20 };
    header[0..2].copy_from_slice(&from.port().to_be_bytes());
    header[2..4].copy_from_slice(&to.port().to_be_bytes());
    header[4..8].copy_from_slice(&segment.sequence.to_be_bytes());
    header[8..12].copy_from_slice(&segment.acknowledgment.unwrap_or(0).to_be_bytes());
    header[12] = (len as u8 / 4) << 4;
    header[13] = segment.flags | if segment.acknowledgment.is_some() { ACK } else { 0 };
    header[14..16].copy_from_slice(&segment.window.to_be_bytes());
    if len == 28 {
        // Kind 2, length 4: MSS. Kind 3, length 3: window scale. Kind 1: no operation, kind 0: end.
        let [high, low] = segment.mss.unwrap_or(536).to_be_bytes();
        header[20..24].copy_from_slice(&[2, 4, high, low]);
        if let Some(shift) = segment.window_scale {
            header[24..28].copy_from_slice(&[1, 3, 3, shift]);
        }
    }
    let header = &mut header[..len];
    let sum = checksum::pseudo_header(from.ip(), to.ip(), IpNumber::TCP.0, len + payload.len());
    let sum = checksum::finish(sum + checksum::sum(header) + checksum::sum(&payload));
    header[16..18].copy_from_slice(&sum.to_be_bytes());
    packet(from.ip(), to.ip(), IpNumber::TCP, DF, header, payload)
}

/// A UDP datagram (RFC 768). `None` if it fits no IP packet.
pub(crate) fn udp(from: SocketAddr, to: SocketAddr, id: u16, payload: Bytes) -> Option<Transmit> {
    let len = u16::try_from(8 + payload.len()).ok()?;
    fits(from.ip(), usize::from(len))?;
    let mut header = udp_header(from, to, len);
    let sum = checksum::pseudo_header(from.ip(), to.ip(), IpNumber::UDP.0, len.into());
    let sum = checksum::finish(sum + checksum::sum(&header) + checksum::sum(&payload));
    // A sum of zero would say "no checksum".
    let sum = if sum == 0 { 0xffff } else { sum };
    header[6..8].copy_from_slice(&sum.to_be_bytes());
    Some(packet(from.ip(), to.ip(), IpNumber::UDP, id, &header, payload))
}

/// A UDP header with no checksum.
pub(crate) fn udp_header(from: SocketAddr, to: SocketAddr, len: u16) -> [u8; 8] {
    let [a, b] = from.port().to_be_bytes();
    let [c, d] = to.port().to_be_bytes();
    let [e, f] = len.to_be_bytes();
    [a, b, c, d, e, f, 0, 0]
}

/// An ICMP or ICMPv6 message, by the family of the addresses: a header of 8 bytes whose checksum field is
/// filled in here, and a payload. `None` if it fits no IP packet, or if the families differ.
pub(crate) fn icmp(
    from: IpAddr,
    to: IpAddr,
    id: u16,
    mut header: [u8; 8],
    payload: Bytes,
) -> Option<Transmit> {
    let len = header.len() + payload.len();
    fits(from, len)?;
    let (protocol, pseudo) = match (from, to) {
        (IpAddr::V4(_), IpAddr::V4(_)) => (IpNumber::ICMP, 0),
        (IpAddr::V6(_), IpAddr::V6(_)) => {
            (IpNumber::IPV6_ICMP, checksum::pseudo_header(from, to, IpNumber::IPV6_ICMP.0, len))
        }
        _ => return None,
    };
    let sum = checksum::finish(pseudo + checksum::sum(&header) + checksum::sum(&payload));
    header[2..4].copy_from_slice(&sum.to_be_bytes());
    Some(packet(from, to, protocol, id, &header, payload))
}

fn fits(from: IpAddr, len: usize) -> Option<()> {
    let most = if from.is_ipv4() { 65_535 - 20 } else { 65_535 };
    (len <= most).then_some(())
}

/// `id_or_df` goes into IPv4's identification field, or is [`DF`].
fn packet(
    from: IpAddr,
    to: IpAddr,
    protocol: IpNumber,
    id_or_df: u16,
    transport: &[u8],
    payload: Bytes,
) -> Transmit {
    let mut headers = Headers::default();
    let len = transport.len() + payload.len();
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let df = protocol == IpNumber::TCP;
            let mut ip = ipv4_header(from.octets(), to.octets(), protocol, HOP_LIMIT, len);
            ip[if df { 6 } else { 4 }..][..2].copy_from_slice(&id_or_df.to_be_bytes());
            let sum = checksum::of(&ip);
            ip[10..12].copy_from_slice(&sum.to_be_bytes());
            headers.push(&ip);
        }
        (from, to) => headers.push(&ipv6_header(from, to, protocol, HOP_LIMIT, len)),
    }
    headers.push(transport);
    Transmit { headers, payload }
}

/// An IPv4 header without options, its checksum still zero.
pub(crate) fn ipv4_header(
    from: [u8; 4],
    to: [u8; 4],
    protocol: IpNumber,
    hop_limit: u8,
    payload: usize,
) -> [u8; 20] {
    let mut header = [0; 20];
    header[0] = 0x45;
    header[2..4].copy_from_slice(&((20 + payload) as u16).to_be_bytes());
    header[8] = hop_limit;
    header[9] = protocol.0;
    header[12..16].copy_from_slice(&from);
    header[16..20].copy_from_slice(&to);
    header
}

/// An IPv6 header without extensions. An IPv4 address among IPv6 ones is written in its mapped form.
pub(crate) fn ipv6_header(
    from: IpAddr,
    to: IpAddr,
    protocol: IpNumber,
    hop_limit: u8,
    payload: usize,
) -> [u8; 40] {
    let octets = |address: IpAddr| match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    };
    let mut header = [0; 40];
    header[0] = 0x60;
    header[4..6].copy_from_slice(&(payload as u16).to_be_bytes());
    header[6] = protocol.0;
    header[7] = hop_limit;
    header[8..24].copy_from_slice(&octets(from));
    header[24..40].copy_from_slice(&octets(to));
    header
}
