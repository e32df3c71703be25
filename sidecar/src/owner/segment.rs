//! What the owner reads of packets. Pure.

use std::net::IpAddr;

use etherparse::{NetSlice, SlicedPacket, TcpSlice, TransportSlice};

/// Source and destination of a TCP segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Flow {
    from: (IpAddr, u16),
    to: (IpAddr, u16),
}

impl Flow {
    /// The other direction.
    pub(super) fn reversed(self) -> Self {
        Self { from: self.to, to: self.from }
    }
}

/// The segment in `packet`, if it is one. A fragment has no transport header and is none.
pub(super) fn parse(packet: &[u8]) -> Option<(Flow, TcpSlice<'_>)> {
    let sliced = SlicedPacket::from_ip(packet).ok()?;
    let (source, destination): (IpAddr, IpAddr) = match &sliced.net? {
        NetSlice::Ipv4(v4) => (v4.header().source_addr().into(), v4.header().destination_addr().into()),
        NetSlice::Ipv6(v6) => (v6.header().source_addr().into(), v6.header().destination_addr().into()),
        NetSlice::Arp(_) => return None,
    };
    let Some(TransportSlice::Tcp(tcp)) = sliced.transport else { return None };
    Some((Flow { from: (source, tcp.source_port()), to: (destination, tcp.destination_port()) }, tcp))
}

/// Whether `packet` is addressed to a multicast group.
pub(super) fn is_multicast(packet: &[u8]) -> bool {
    let v4 = |packet: &[u8]| packet.get(16).is_some_and(|byte| (224..240).contains(byte));
    let v6 = |packet: &[u8]| packet.get(24) == Some(&0xff);
    match packet.first().map(|byte| byte >> 4) {
        Some(4) => v4(packet),
        Some(6) => v6(packet),
        Some(_) | None => false,
    }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;

    #[test]
    fn multicast_groups_are_recognised() {
        let packet = |builder: etherparse::PacketBuilderStep<etherparse::IpHeaders>| {
            let mut packet = Vec::new();
            builder.udp(5353, 5353).write(&mut packet, b"?").unwrap();
            packet
        };
        let v4 = |last| packet(PacketBuilder::ipv4([10, 0, 0, 1], last, 64));
        let v6 = |first| {
            let mut group = [0; 16];
            group[0] = first;
            packet(PacketBuilder::ipv6([0xfd; 16], group, 64))
        };
        assert!(is_multicast(&v4([224, 0, 0, 251])) && is_multicast(&v4([239, 1, 2, 3])));
        assert!(is_multicast(&v6(0xff)));
        assert!(!is_multicast(&v4([10, 20, 0, 10])) && !is_multicast(&v6(0xfd)));
        assert!(!is_multicast(&[]) && !is_multicast(&[0x45]) && !is_multicast(&[0x60; 10]));
    }
}
