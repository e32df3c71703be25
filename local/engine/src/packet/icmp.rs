//! ICMP and ICMPv6 errors (RFC 792, RFC 1812 4.3, RFC 4443) about packets of the codespace.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use etherparse::IpNumber;

use super::{Packet, build, checksum};
use crate::api::{Transmit, UnreachableKind};

/// The longest ICMP error in bytes, so that it passes any link (RFC 1812 4.3.2.3).
const V4_LIMIT: usize = 576;
/// The same for IPv6: its minimum MTU (RFC 4443 2.4 c).
const V6_LIMIT: usize = 1280;

/// The content of an ICMP error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Message {
    /// An error that sockets also report.
    Unreachable(UnreachableKind),
    /// The transport protocol is not supported.
    Protocol,
}

impl Message {
    /// Type, code and the second word of the header.
    fn wire(self, v6: bool) -> [u8; 8] {
        let (kind, code) = match (self, v6) {
            (Self::Unreachable(UnreachableKind::Network), false) => (3, 0),
            (Self::Unreachable(UnreachableKind::Network), true) => (1, 0),
            (Self::Unreachable(UnreachableKind::Host), false) => (3, 1),
            (Self::Unreachable(UnreachableKind::Host), true) => (1, 3),
            (Self::Unreachable(UnreachableKind::Port), false) => (3, 3),
            (Self::Unreachable(UnreachableKind::Port), true) => (1, 4),
            (Self::Unreachable(UnreachableKind::Prohibited), false) => (3, 13),
            (Self::Unreachable(UnreachableKind::Prohibited), true) => (1, 1),
            (Self::Unreachable(UnreachableKind::TimeExceeded), false) => (11, 0),
            (Self::Unreachable(UnreachableKind::TimeExceeded), true) => (3, 0),
            (Self::Unreachable(UnreachableKind::TooBig { mtu }), false) => {
                let [a, b] = u16::try_from(mtu).unwrap_or(u16::MAX).to_be_bytes();
                return [3, 4, 0, 0, 0, 0, a, b];
            }
            (Self::Unreachable(UnreachableKind::TooBig { mtu }), true) => {
                let [a, b, c, d] = mtu.to_be_bytes();
                return [2, 0, 0, 0, a, b, c, d];
            }
            (Self::Protocol, false) => (3, 2),
            // Parameter problem, unrecognized next header; the pointer is to the field in the IPv6
            // header, which is right for packets without extension headers (RFC 4443 3.4).
            (Self::Protocol, true) => return [4, 1, 0, 0, 0, 0, 0, 6],
        };
        [kind, code, 0, 0, 0, 0, 0, 0]
    }
}

/// The error `message` from `offender` about `packet`, or `None` where an error must not be sent
/// (RFC 1122 3.2.2, RFC 4443 2.4 e).
pub(crate) fn about(packet: &Packet, offender: IpAddr, message: Message) -> Option<Transmit> {
    let later_fragment = packet.fragment.is_some_and(|fragment| fragment.offset.value() != 0);
    if later_fragment || !is_unicast(packet.source) || !is_unicast(packet.destination) || is_error(packet) {
        return None;
    }
    error(offender, packet.source, message, packet.whole.clone())
}

/// The error `message` from `offender` about a UDP datagram that is no longer stored. Only the quoted fields that the
/// receiver examines are rebuilt.
pub(crate) fn about_udp(
    source: SocketAddr,
    destination: SocketAddr,
    offender: IpAddr,
    message: Message,
) -> Option<Transmit> {
    let transport = build::udp_header(source, destination, 8);
    about_transport(source.ip(), destination.ip(), IpNumber::UDP, &transport, offender, message)
}

/// The same about an echo request.
pub(crate) fn about_echo(
    source: IpAddr,
    destination: IpAddr,
    identifier: u16,
    sequence: u16,
    offender: IpAddr,
    message: Message,
) -> Option<Transmit> {
    let header = echo_header(true, source.is_ipv6(), identifier, sequence);
    let protocol = if source.is_ipv6() { IpNumber::IPV6_ICMP } else { IpNumber::ICMP };
    about_transport(source, destination, protocol, &header, offender, message)
}

/// The same about the first 8 bytes or more of a transport header.
pub(crate) fn about_transport(
    source: IpAddr,
    destination: IpAddr,
    protocol: IpNumber,
    transport: &[u8],
    offender: IpAddr,
    message: Message,
) -> Option<Transmit> {
    let mut quoted = Vec::with_capacity(40 + transport.len());
    match (source, destination) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut header = build::ipv4_header(from.octets(), to.octets(), protocol, 1, transport.len());
            let sum = checksum::of(&header);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            quoted.extend_from_slice(&header);
        }
        (from, to) => {
            quoted.extend_from_slice(&build::ipv6_header(from, to, protocol, 1, transport.len()));
        }
    }
    quoted.extend_from_slice(transport);
    error(offender, source, message, quoted.into())
}

/// The header of an echo request or reply, without its checksum.
pub(crate) fn echo_header(request: bool, v6: bool, identifier: u16, sequence: u16) -> [u8; 8] {
    let kind = match (request, v6) {
        (true, false) => 8,
        (false, false) => 0,
        (true, true) => 128,
        (false, true) => 129,
    };
    let [a, b] = identifier.to_be_bytes();
    let [c, d] = sequence.to_be_bytes();
    [kind, 0, 0, 0, a, b, c, d]
}

fn error(offender: IpAddr, to: IpAddr, message: Message, mut quoted: Bytes) -> Option<Transmit> {
    let v6 = to.is_ipv6();
    quoted.truncate(if v6 { V6_LIMIT - 48 } else { V4_LIMIT - 28 });
    build::icmp(offender, to, 0, message.wire(v6), quoted)
}

/// Whether the packet is itself an ICMP error, judged by the first byte of its message.
fn is_error(packet: &Packet) -> bool {
    let kind = packet.payload.first().copied().unwrap_or(0);
    match packet.protocol {
        IpNumber::ICMP => !matches!(kind, 0 | 8 | 13 | 14),
        IpNumber::IPV6_ICMP => kind < 128,
        _ => false,
    }
}

/// Whether an error may be sent to, or about a packet for, this address.
pub(crate) fn is_unicast(address: IpAddr) -> bool {
    let special = address.is_unspecified() || address.is_multicast();
    match address {
        IpAddr::V4(v4) => !special && !v4.is_broadcast(),
        IpAddr::V6(_) => !special,
    }
}
