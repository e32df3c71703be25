//! Which flow a packet belongs to, as far as the order on the link is concerned.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::own_sockets::{FiveTuple, Transport};

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
/// The header of a fragment in IPv6.
const FRAGMENT: u8 = 44;
const ICMP_V6: u8 = 58;
const RST: u8 = 0x04;

/// What tells the flows of two addresses and one protocol apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Detail {
    /// Source and destination.
    Ports(u16, u16),
    /// The identifier of echo requests and replies.
    Echo(u16),
    /// Only the first fragment has ports, so a datagram's fragments are a flow of their own.
    Fragment(u32),
    None,
}

/// A flow, in the direction of its packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Flow {
    protocol: u8,
    source: IpAddr,
    destination: IpAddr,
    detail: Detail,
}

/// Kinds of flows that nobody has answered yet share the link as one flow each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Tcp,
    Udp,
    Other,
}

impl Kind {
    pub(super) const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Other];
}

impl Flow {
    /// The flow of a packet. What is no IP packet belongs to none.
    pub(super) fn of(packet: &[u8]) -> Option<Self> {
        let (flow, _) = parse(packet)?;
        Some(flow)
    }

    /// The flow that `packet` of the laptop answers. A reset or an ICMP error is no answer: each packet to a host that
    /// does not want it causes one.
    pub(super) fn answered_by(packet: &[u8]) -> Option<Self> {
        let (Self { protocol, source, destination, detail }, transport) = parse(packet)?;
        let detail = match detail {
            Detail::Ports(..) if protocol == TCP && transport.get(13)? & RST != 0 => return None,
            Detail::Ports(from, to) => Detail::Ports(to, from),
            Detail::Echo(identifier) => Detail::Echo(identifier),
            Detail::Fragment(_) | Detail::None => return None,
        };
        Some(Self { protocol, source: destination, destination: source, detail })
    }

    pub(super) fn kind(&self) -> Kind {
        match (self.protocol, self.detail) {
            (TCP, Detail::Ports(..)) => Kind::Tcp,
            (UDP, Detail::Ports(..)) => Kind::Udp,
            (_, Detail::Ports(..) | Detail::Echo(_) | Detail::Fragment(_) | Detail::None) => Kind::Other,
        }
    }

    /// What it has in common with the socket that sends it, if its transport has ports.
    pub(super) fn five_tuple(&self) -> Option<FiveTuple> {
        let Detail::Ports(from, to) = self.detail else { return None };
        let transport = if self.protocol == TCP { Transport::Tcp } else { Transport::Udp };
        let (source, destination) = ((self.source, from), (self.destination, to));
        Some(FiveTuple { transport, source, destination })
    }

    /// Its destination.
    pub(super) fn host(&self) -> IpAddr {
        self.destination
    }

    /// The network of its destination, as small as one site has: /24 in IPv4, /64 in IPv6.
    pub(super) fn network(&self) -> u64 {
        match self.destination {
            IpAddr::V4(v4) => (v4.to_bits() >> 8).into(),
            IpAddr::V6(v6) => (v6.to_bits() >> 64) as u64,
        }
    }
}

/// The flow of a packet, and what follows its IP header.
fn parse(packet: &[u8]) -> Option<(Flow, &[u8])> {
    let (source, destination, protocol, fragment, transport) = match packet.first()? >> 4 {
        4 => parse_v4(packet)?,
        6 => parse_v6(packet)?,
        _ => return None,
    };
    let detail = match fragment {
        Some(identification) => Detail::Fragment(identification),
        None => detail(protocol, transport),
    };
    Some((Flow { protocol, source, destination, detail }, transport))
}

/// Source, destination, protocol, identification if it is a fragment, and the rest.
type Parts<'a> = (IpAddr, IpAddr, u8, Option<u32>, &'a [u8]);

fn parse_v4(packet: &[u8]) -> Option<Parts<'_>> {
    let header = packet.first_chunk::<20>()?;
    let address =
        |at: usize| Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]).into();
    let is_fragment = two(header, 6)? & 0x3fff != 0;
    let fragment = is_fragment.then_some(two(header, 4)?.into());
    let transport = packet.get(usize::from(header[0] & 0xf) * 4..)?;
    Some((address(12), address(16), header[9], fragment, transport))
}

fn parse_v6(packet: &[u8]) -> Option<Parts<'_>> {
    let (header, rest) = packet.split_first_chunk::<40>()?;
    let address = |at: usize| {
        let octets = header[at..at + 16].first_chunk::<16>();
        octets.map(|octets| IpAddr::from(Ipv6Addr::from(*octets)))
    };
    let (source, destination) = (address(8)?, address(24)?);
    if header[6] != FRAGMENT {
        return Some((source, destination, header[6], None, rest));
    }
    let identification = u32::from(two(rest, 4)?) << 16 | u32::from(two(rest, 6)?);
    Some((source, destination, *rest.first()?, Some(identification), rest.get(8..)?))
}

fn detail(protocol: u8, transport: &[u8]) -> Detail {
    let known = match protocol {
        TCP | UDP => two(transport, 0).zip(two(transport, 2)).map(|(from, to)| Detail::Ports(from, to)),
        ICMP | ICMP_V6 => {
            let is_echo = match transport.first() {
                Some(kind) if protocol == ICMP => matches!(kind, 0 | 8),
                Some(kind) => matches!(kind, 128 | 129),
                None => false,
            };
            if is_echo { two(transport, 4).map(Detail::Echo) } else { None }
        }
        _ => None,
    };
    known.unwrap_or(Detail::None)
}

fn two(bytes: &[u8], at: usize) -> Option<u16> {
    let two = bytes.get(at..at + 2)?;
    Some(u16::from(two[0]) << 8 | u16::from(two[1]))
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;
    use proptest::prelude::*;

    use super::*;

    const CODESPACE: [u8; 4] = [198, 19, 240, 1];
    const SERVER: [u8; 4] = [10, 20, 30, 40];

    fn packet(builder: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut packet = Vec::new();
        builder(&mut packet);
        packet
    }

    fn udp(from: u16, to: u16) -> Vec<u8> {
        let builder = PacketBuilder::ipv4(CODESPACE, SERVER, 64).udp(from, to);
        packet(|out| builder.write(out, b"data").unwrap())
    }

    fn v6(next: u8, rest: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, rest.len() as u8, next, 64];
        packet.extend([[0xfd; 16], [0xfe; 16]].concat());
        packet.extend(rest);
        packet
    }

    #[test]
    fn an_answer_belongs_to_the_flow_of_the_question() {
        let answer = PacketBuilder::ipv4(SERVER, CODESPACE, 64).udp(53, 4000);
        let answer = packet(|out| answer.write(out, b"answer").unwrap());
        assert_eq!(Flow::answered_by(&answer), Flow::of(&udp(4000, 53)));
        assert_ne!(Flow::answered_by(&answer), Flow::of(&udp(4001, 53)));
        let ping = PacketBuilder::ipv4(CODESPACE, SERVER, 64).icmpv4_echo_request(7, 1);
        let pong = PacketBuilder::ipv4(SERVER, CODESPACE, 64).icmpv4_echo_reply(7, 9);
        let [ping, pong] = [ping, pong].map(|it| packet(|out| it.write(out, b"").unwrap()));
        assert_eq!(Flow::answered_by(&pong), Flow::of(&ping));
    }

    #[test]
    fn a_reset_or_an_error_is_no_answer() {
        let reset = PacketBuilder::ipv4(SERVER, CODESPACE, 64).tcp(80, 4000, 1, 0).rst().ack(2);
        let reset = packet(|out| reset.write(out, b"").unwrap());
        assert_eq!(Flow::answered_by(&reset), None);
        let error = PacketBuilder::ipv4(SERVER, CODESPACE, 64).icmpv4_raw(3, 3, [0; 4]);
        let error = packet(|out| error.write(out, &udp(4000, 53)).unwrap());
        assert_eq!(Flow::answered_by(&error), None);
    }

    #[test]
    fn fragments_of_one_datagram_are_one_flow() {
        let mut fragments = [udp(1, 2), udp(3, 4), udp(5, 6)];
        for (fragment, (id, offset)) in fragments.iter_mut().zip([(7, 0x2000), (7, 0x0001), (8, 0x2000)]) {
            fragment[4..6].copy_from_slice(&u16::to_be_bytes(id));
            fragment[6..8].copy_from_slice(&u16::to_be_bytes(offset));
        }
        let [one, two, other] = fragments.map(|fragment| Flow::of(&fragment));
        assert_eq!(one, two);
        assert_ne!(one, other);
        let v6 = |offset, id| v6(FRAGMENT, &[UDP, 0, 0, offset, 0, 0, 0, id, 1, 2, 3, 4]);
        assert_eq!(Flow::of(&v6(1, 7)), Flow::of(&v6(8, 7)));
        assert_ne!(Flow::of(&v6(1, 7)), Flow::of(&v6(1, 8)));
    }

    #[test]
    fn protocols_and_networks_are_told_apart() {
        let of = |packet: &[u8]| Flow::of(packet).unwrap();
        assert_eq!(of(&udp(1, 2)).kind(), Kind::Udp);
        assert_eq!(of(&v6(TCP, &[0, 1, 0, 2])).kind(), Kind::Tcp);
        assert_eq!(of(&v6(132, &[0, 1, 0, 2])).kind(), Kind::Other);
        let mut near = udp(1, 2);
        near[19] = 41;
        assert_eq!(of(&near).network(), of(&udp(1, 2)).network());
        near[18] = 31;
        assert_ne!(of(&near).network(), of(&udp(1, 2)).network());
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed(packet in prop::collection::vec(any::<u8>(), 0..80), version in 3u8..8) {
            let mut packet = packet;
            if let Some(first) = packet.first_mut() {
                *first = version << 4 | (*first & 0xf);
            }
            let _ = (Flow::of(&packet), Flow::answered_by(&packet));
        }
    }
}
