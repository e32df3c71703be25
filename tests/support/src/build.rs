//! Builds packets as the codespace sends them.

use std::net::{IpAddr, SocketAddr};

use etherparse::{IpNumber, Ipv4Header, Ipv6Header, TcpHeader, UdpHeader};

use crate::packet::transport_sum;

/// An IP packet around a transport header and payload.
pub fn packet(from: IpAddr, to: IpAddr, protocol: IpNumber, hop_limit: u8, transport: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let len = transport.len() as u16;
            let header = Ipv4Header::new(len, hop_limit, protocol, from.octets(), to.octets()).unwrap();
            header.write(&mut bytes).unwrap();
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => Ipv6Header {
            payload_length: transport.len() as u16,
            next_header: protocol,
            hop_limit,
            source: from.octets(),
            destination: to.octets(),
            ..Ipv6Header::default()
        }
        .write(&mut bytes)
        .unwrap(),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
            panic!("{from} and {to} are of different families")
        }
    }
    bytes.extend_from_slice(transport);
    bytes
}

/// A TCP segment; `header` is complete except for its ports and checksum.
pub fn tcp(from: SocketAddr, to: SocketAddr, header: TcpHeader, payload: &[u8]) -> Vec<u8> {
    let header = TcpHeader { source_port: from.port(), destination_port: to.port(), checksum: 0, ..header };
    let mut segment = Vec::new();
    header.write(&mut segment).unwrap();
    segment.extend_from_slice(payload);
    sum(from.ip(), to.ip(), IpNumber::TCP, &mut segment, 16);
    packet(from.ip(), to.ip(), IpNumber::TCP, 64, &segment)
}

/// A UDP datagram.
pub fn udp(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    packet(from.ip(), to.ip(), IpNumber::UDP, 64, &udp_segment(from, to, payload))
}

/// A UDP datagram without its IP header.
pub fn udp_segment(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let (source_port, destination_port) = (from.port(), to.port());
    let length = (8 + payload.len()) as u16;
    let header = UdpHeader { source_port, destination_port, length, checksum: 0 };
    let mut segment = [&header.to_bytes()[..], payload].concat();
    sum(from.ip(), to.ip(), IpNumber::UDP, &mut segment, 6);
    if segment[6..8] == [0, 0] {
        // Zero would mean that there is no checksum (RFC 768).
        segment[6..8].copy_from_slice(&[0xff, 0xff]);
    }
    segment
}

/// An echo request.
pub fn echo(from: IpAddr, to: IpAddr, identifier: u16, sequence: u16, payload: &[u8]) -> Vec<u8> {
    let kind = if from.is_ipv4() { 8 } else { 128 };
    let [a, b] = identifier.to_be_bytes();
    let [c, d] = sequence.to_be_bytes();
    icmp(from, to, kind, 0, [a, b, c, d], payload)
}

/// Any ICMP or ICMPv6 message; `rest` is the second word of its header.
pub fn icmp(from: IpAddr, to: IpAddr, kind: u8, code: u8, rest: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut message = [&[kind, code, 0, 0], &rest[..], payload].concat();
    let protocol = if from.is_ipv4() { IpNumber::ICMP } else { IpNumber::IPV6_ICMP };
    sum(from, to, protocol, &mut message, 2);
    packet(from, to, protocol, 64, &message)
}

/// Writes the checksum of a segment at offset `at`.
fn sum(from: IpAddr, to: IpAddr, protocol: IpNumber, segment: &mut [u8], at: usize) {
    segment[at..at + 2].fill(0);
    let sum = transport_sum(from, to, protocol, segment);
    segment[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

/// Corrects the checksums of a packet as far as it can be parsed, because a fuzzer can't guess them.
pub fn repair(packet: &mut [u8]) {
    let Some(version) = packet.first().map(|byte| byte >> 4) else { return };
    if version == 4 && packet.len() >= 20 {
        let end = (usize::from(packet[0] & 0xf) * 4).clamp(20, packet.len());
        packet[10..12].fill(0);
        let sum = crate::packet::sum(&packet[..end]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    let Ok(ip) = etherparse::IpSlice::from_slice(packet) else { return };
    let (from, to) = (ip.source_addr(), ip.destination_addr());
    let (protocol, length) = (ip.payload_ip_number(), ip.payload().payload.len());
    let start = ip.payload().payload.as_ptr() as usize - packet.as_ptr() as usize;
    let at = match protocol {
        IpNumber::TCP => 16,
        IpNumber::UDP => 6,
        IpNumber::ICMP | IpNumber::IPV6_ICMP => 2,
        _ => return,
    };
    let transport = &mut packet[start..start + length];
    if transport.len() >= at + 2 {
        sum(from, to, protocol, transport, at);
    }
}
