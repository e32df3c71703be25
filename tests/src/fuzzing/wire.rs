//! Packets in and out of the engine: checksums set right on the way in, everything verified on the way out.

use std::net::IpAddr;

use etherparse::checksum::Sum16BitWords;
use etherparse::{IpNumber, IpSlice, TcpSlice};
use gh_net::engine::Transmit;

/// A packet that the engine sent, taken apart.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) destination: IpAddr,
    pub(super) protocol: IpNumber,
    pub(super) transport: Vec<u8>,
}

impl Sent {
    /// Its TCP segment.
    pub(super) fn tcp(&self) -> Option<TcpSlice<'_>> {
        let tcp = self.protocol == IpNumber::TCP;
        tcp.then(|| TcpSlice::from_slice(&self.transport).expect("a TCP segment of the engine's"))
    }
}

/// Takes apart what the engine sends: it must be one whole packet with right lengths and checksums.
pub(super) fn verified(transmit: &Transmit) -> Sent {
    let bytes = [transmit.headers.as_slice(), &transmit.payload[..]].concat();
    let ip = IpSlice::from_slice(&bytes).unwrap_or_else(|error| panic!("{error}: {bytes:02x?}"));
    if let IpSlice::Ipv4(v4) = &ip {
        assert_eq!(usize::from(v4.header().total_len()), bytes.len(), "the total length");
        assert_eq!(v4.header().header_checksum(), v4.header().to_header().calc_header_checksum());
    }
    let sent = Sent {
        destination: ip.destination_addr(),
        protocol: ip.payload_ip_number(),
        transport: ip.payload().payload.to_vec(),
    };
    let sum = transport_sum(ip.source_addr(), ip.destination_addr(), sent.protocol, &sent.transport);
    // A UDP datagram over IPv4 may go without a checksum.
    let unsummed = sent.protocol == IpNumber::UDP && bytes[0] >> 4 == 4 && sent.transport[6..8] == [0, 0];
    assert!(sum == 0 || unsummed, "the checksum of {sent:02x?} is off by {sum:#06x}");
    sent
}

/// Sets the checksums of a packet right, as far as it is one: a fuzzer can't guess them.
pub(super) fn repair(packet: &mut [u8]) {
    let Some(version) = packet.first().map(|byte| byte >> 4) else { return };
    if version == 4 && packet.len() >= 20 {
        let end = (usize::from(packet[0] & 0xf) * 4).clamp(20, packet.len());
        packet[10..12].fill(0);
        let sum = !fold(Sum16BitWords::new().add_slice(&packet[..end]));
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    let Ok(ip) = IpSlice::from_slice(packet) else { return };
    let (source, destination) = (ip.source_addr(), ip.destination_addr());
    let (protocol, length) = (ip.payload_ip_number(), ip.payload().payload.len());
    let start = ip.payload().payload.as_ptr() as usize - packet.as_ptr() as usize;
    repair_transport(source, destination, protocol, &mut packet[start..start + length]);
}

fn repair_transport(source: IpAddr, destination: IpAddr, protocol: IpNumber, transport: &mut [u8]) {
    let at = match protocol {
        IpNumber::TCP => 16,
        IpNumber::UDP => 6,
        IpNumber::ICMP | IpNumber::IPV6_ICMP => 2,
        _ => return,
    };
    let Some(field) = transport.get_mut(at..at + 2) else { return };
    field.fill(0);
    let sum = transport_sum(source, destination, protocol, transport);
    transport[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

/// The checksum over pseudo-header and transport: 0 if the one inside is right.
fn transport_sum(source: IpAddr, destination: IpAddr, protocol: IpNumber, transport: &[u8]) -> u16 {
    let mut sum = Sum16BitWords::new();
    if protocol != IpNumber::ICMP {
        sum = match (source, destination) {
            (IpAddr::V4(from), IpAddr::V4(to)) => sum.add_4bytes(from.octets()).add_4bytes(to.octets()),
            (IpAddr::V6(from), IpAddr::V6(to)) => sum.add_16bytes(from.octets()).add_16bytes(to.octets()),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
                panic!("a packet from {source} to {destination}")
            }
        };
        sum = sum.add_2bytes([0, protocol.0]).add_4bytes((transport.len() as u32).to_be_bytes());
    }
    !fold(sum.add_slice(transport))
}

/// etherparse gives the complement of the sum in the machine's byte order.
fn fold(sum: Sum16BitWords) -> u16 {
    !sum.ones_complement().to_be()
}
