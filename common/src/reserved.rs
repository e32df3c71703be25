//! Networks that are never forwarded, regardless of routes and rules: one list for both ends.
//!
//! The laptop's policy refuses flows to them, and the sidecar keeps their packets out of the tunnel. Loopback and the
//! metadata services of clouds trust a client by its address alone, so the codespace must not reach the laptop's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// How a packet to a reserved network is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// ICMP administratively prohibited.
    Prohibited,
    /// None: multicast, broadcast and link-local destinations must not cause one (RFC 1122, 3.2.2).
    Silent,
}

use Answer::{Prohibited, Silent};

/// Reserved blocks. Routes that are forwarded are split around them.
pub const BLOCKS: [(IpNet, Answer); 7] = [
    (v4([0, 0, 0, 0], 8), Prohibited), // "this host"; Linux takes 0.0.0.0 for loopback
    (v4([127, 0, 0, 0], 8), Prohibited), // loopback
    (v4([169, 254, 0, 0], 16), Silent), // link-local (RFC 3927)
    (v4([224, 0, 0, 0], 4), Silent),   // multicast
    // Reserved (RFC 4291): ::, ::1, IPv4-compatible and IPv4-mapped addresses.
    (v6([0, 0, 0, 0, 0, 0, 0, 0], 16), Prohibited),
    (v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10), Silent), // link-local
    (v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8), Silent),  // multicast
];

/// Reserved single addresses. Routes are not split around them.
pub const ADDRESSES: [(IpNet, Answer); 9] = [
    (v4([255, 255, 255, 255], 32), Silent),     // limited broadcast
    (v4([169, 254, 169, 254], 32), Prohibited), // metadata: AWS, Azure, Google and many more
    (v4([169, 254, 170, 2], 32), Prohibited),   // credentials of AWS ECS tasks
    (v4([168, 63, 129, 16], 32), Prohibited),   // Azure's wire server
    (v4([100, 100, 100, 200], 32), Prohibited), // metadata: Alibaba
    (v4([192, 0, 0, 192], 32), Prohibited),     // metadata: Oracle
    (v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254], 128), Prohibited), // metadata: AWS
    (v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23], 128), Prohibited), // credentials of AWS EKS pods
    (v6([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254], 128), Prohibited), // metadata: Google
];

/// All reserved networks, single addresses first: of equal prefixes the first one decides.
pub fn all() -> impl Iterator<Item = (IpNet, Answer)> {
    ADDRESSES.into_iter().chain(BLOCKS)
}

/// Whether all of `network` is reserved.
pub fn contains(network: &IpNet) -> bool {
    all().any(|(reserved, _)| reserved.contains(network))
}

/// Whether any of `network` is reserved.
pub fn overlaps(network: &IpNet) -> bool {
    all().any(|(reserved, _)| reserved.contains(network) || network.contains(&reserved))
}

/// Translation prefixes with an IPv4 address in an IPv6 one: NAT64 (RFC 6052) and 6to4 (RFC 3056).
const NAT64: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96);
const SIX_TO_FOUR: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16);

/// The IPv4 address that a translator would send packets for `address` to.
pub fn embedded_v4(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(v6) = address else { return None };
    let bits = v6.to_bits();
    if NAT64.contains(&v6) {
        Some(Ipv4Addr::from_bits(bits as u32))
    } else if SIX_TO_FOUR.contains(&v6) {
        Some(Ipv4Addr::from_bits((bits >> 80) as u32))
    } else {
        None
    }
}

const fn v4(octets: [u8; 4], length: u8) -> IpNet {
    let [a, b, c, d] = octets;
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length))
}

const fn v6(segments: [u16; 8], length: u8) -> IpNet {
    let [a, b, c, d, e, f, g, h] = segments;
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn prefixes_have_no_host_bits() {
        for (reserved, _) in all() {
            assert_eq!(reserved, reserved.trunc());
        }
    }

    #[test]
    fn containing_is_all_and_overlapping_is_any() {
        assert!(contains(&net("127.1.0.0/16")) && overlaps(&net("127.1.0.0/16")));
        assert!(!contains(&net("168.63.129.0/24")) && overlaps(&net("168.63.129.0/24")));
        assert!(contains(&net("fd00:ec2::23/128")));
        assert!(!overlaps(&net("10.0.0.0/8")) && !overlaps(&net("fd20:20::/48")));
    }

    #[test]
    fn translated_addresses_are_found() {
        let v4 = |text: &str| embedded_v4(text.parse().unwrap());
        assert_eq!(v4("64:ff9b::127.0.0.1"), Some(Ipv4Addr::LOCALHOST));
        assert_eq!(v4("2002:7f00:1::5"), Some(Ipv4Addr::LOCALHOST));
        assert_eq!(v4("fd00::1"), None);
        assert_eq!(v4("10.0.0.1"), None);
    }
}
