//! Verifies, parses and describes the engine's packets.

use std::net::{IpAddr, SocketAddr};

use etherparse::checksum::Sum16BitWords;
use etherparse::{IpNumber, IpSlice, Ipv4Header, Ipv6Header, TcpSlice, UdpSlice};

/// A packet, verified and parsed.
#[derive(Debug, Clone)]
pub struct Packet {
    /// Its source.
    pub from: IpAddr,
    /// Its destination.
    pub to: IpAddr,
    /// Its transport protocol.
    pub protocol: IpNumber,
    /// Transport header and payload.
    pub transport: Vec<u8>,
}

impl Packet {
    /// Parses a packet strictly and asserts that its lengths and checksums are correct.
    pub fn verified(bytes: &[u8]) -> Self {
        let ip = IpSlice::from_slice(bytes).unwrap_or_else(|error| panic!("{error}: {bytes:02x?}"));
        let packet = Self {
            from: ip.source_addr(),
            to: ip.destination_addr(),
            protocol: ip.payload_ip_number(),
            transport: ip.payload().payload.to_vec(),
        };
        match &ip {
            IpSlice::Ipv4(v4) => {
                let header = v4.header();
                assert_eq!(sum(header.slice()), 0, "header checksum");
                assert_eq!(usize::from(header.total_len()), bytes.len(), "total length");
                assert!(header.dont_fragment() || packet.protocol != IpNumber::TCP, "TCP without DF");
            }
            IpSlice::Ipv6(v6) => {
                assert_eq!(usize::from(v6.header().payload_length()) + 40, bytes.len(), "payload length");
            }
        }
        packet.verify_transport();
        packet
    }

    fn verify_transport(&self) {
        let Self { from, to, protocol, transport } = self;
        match *protocol {
            IpNumber::TCP => drop(TcpSlice::from_slice(transport).expect("a TCP segment")),
            IpNumber::UDP => {
                let udp = UdpSlice::from_slice(transport).expect("a UDP datagram");
                assert_eq!(usize::from(udp.length()), transport.len(), "UDP length");
                assert_ne!(udp.checksum(), 0, "UDP without a checksum");
            }
            IpNumber::ICMP => assert!(from.is_ipv4() && transport.len() >= 8, "ICMP"),
            IpNumber::IPV6_ICMP => assert!(from.is_ipv6() && transport.len() >= 8, "ICMPv6"),
            other => panic!("a packet of protocol {other:?}"),
        }
        assert_eq!(transport_sum(*from, *to, *protocol, transport), 0, "the checksum of {self:02x?}");
    }

    /// The TCP segment; `None` for another protocol.
    pub fn tcp(&self) -> Option<TcpSlice<'_>> {
        let is_tcp = self.protocol == IpNumber::TCP;
        is_tcp.then(|| TcpSlice::from_slice(&self.transport).expect("a TCP segment"))
    }

    /// Source, destination and payload of a UDP datagram.
    pub fn udp(&self) -> (SocketAddr, SocketAddr, &[u8]) {
        assert_eq!(self.protocol, IpNumber::UDP, "{self:?}");
        let udp = UdpSlice::from_slice(&self.transport).expect("a UDP datagram");
        let from = SocketAddr::new(self.from, udp.source_port());
        let to = SocketAddr::new(self.to, udp.destination_port());
        (from, to, &self.transport[8..])
    }

    /// Type, code and the bytes after the first eight of an ICMP or ICMPv6 message.
    pub fn icmp(&self) -> (u8, u8, &[u8]) {
        assert!([IpNumber::ICMP, IpNumber::IPV6_ICMP].contains(&self.protocol), "{self:?}");
        (self.transport[0], self.transport[1], &self.transport[8..])
    }

    /// The packet quoted in an ICMP error: source, destination, protocol, and the first bytes of its transport.
    pub fn quotation(&self) -> (IpAddr, IpAddr, IpNumber, &[u8]) {
        let quoted = self.icmp().2;
        if self.from.is_ipv4() {
            let (header, rest) = Ipv4Header::from_slice(quoted).expect("a quoted IPv4 header");
            assert_eq!(header.header_checksum, header.calc_header_checksum(), "the quoted header's checksum");
            (header.source.into(), header.destination.into(), header.protocol, rest)
        } else {
            let (header, rest) = Ipv6Header::from_slice(quoted).expect("a quoted IPv6 header");
            (header.source.into(), header.destination.into(), header.next_header, rest)
        }
    }
}

/// The checksum of a transport header and payload with the pseudo-header: 0 if the contained one is correct.
pub fn transport_sum(from: IpAddr, to: IpAddr, protocol: IpNumber, transport: &[u8]) -> u16 {
    let mut sum = Sum16BitWords::new();
    // ICMP has no pseudo-header (RFC 792).
    if protocol != IpNumber::ICMP {
        sum = match (from, to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => sum.add_4bytes(from.octets()).add_4bytes(to.octets()),
            (IpAddr::V6(from), IpAddr::V6(to)) => sum.add_16bytes(from.octets()).add_16bytes(to.octets()),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
                panic!("{from} and {to} are of different families")
            }
        };
        sum = sum.add_2bytes([0, protocol.0]).add_4bytes((transport.len() as u32).to_be_bytes());
    }
    u16::from_be(sum.add_slice(transport).ones_complement())
}

/// The Internet checksum (RFC 1071): 0 over bytes that contain a correct one.
pub fn sum(bytes: &[u8]) -> u16 {
    u16::from_be(Sum16BitWords::new().add_slice(bytes).ones_complement())
}

/// A packet in one line, for people.
pub fn describe(packet: &[u8]) -> String {
    let Ok(ip) = IpSlice::from_slice(packet) else { return format!("{packet:?}") };
    let (from, to, number) = (ip.source_addr(), ip.destination_addr(), ip.payload_ip_number());
    let Ok(tcp) = TcpSlice::from_slice(ip.payload().payload) else {
        return format!("{from} > {to} {number:?}");
    };
    let flags = [(tcp.syn(), 'S'), (tcp.fin(), 'F'), (tcp.rst(), 'R'), (tcp.psh(), 'P'), (tcp.ack(), '.')];
    let flags: String = flags.iter().filter(|(set, _)| *set).map(|(_, letter)| letter).collect();
    let (sequence, acknowledgment) = (tcp.sequence_number(), tcp.acknowledgment_number());
    let (window, length, options) = (tcp.window_size(), tcp.payload().len(), tcp.options());
    let (from, to) = (format!("{from}.{}", tcp.source_port()), format!("{to}.{}", tcp.destination_port()));
    format!("{from} > {to} {flags} seq {sequence} ack {acknowledgment} win {window} len {length} {options:?}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{build, ip, socket};

    #[test]
    fn correct_packets_pass_and_others_do_not() {
        let packets = [
            build::udp(socket("10.1.0.2:1"), socket("10.20.0.1:2"), b"hello"),
            build::udp(socket("[fd01::2]:1"), socket("[fd20::1]:2"), b"hello"),
            build::echo(ip("10.1.0.2"), ip("10.20.0.1"), 1, 2, b"hello"),
            build::echo(ip("fd01::2"), ip("fd20::1"), 1, 2, b"hello"),
        ];
        for packet in packets {
            Packet::verified(&packet);
            let mut repaired = packet.clone();
            let last = repaired.len() - 1;
            repaired[last] ^= 1;
            let wrong = repaired.clone();
            std::panic::catch_unwind(|| Packet::verified(&wrong)).expect_err("a wrong checksum");
            build::repair(&mut repaired);
            Packet::verified(&repaired);
            std::panic::catch_unwind(|| Packet::verified(&[&packet[..], b"x"].concat())).expect_err("a tail");
        }
    }
}
