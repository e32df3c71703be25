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
pub const ADDRESSES: [(IpNet, Answer); 10] = [
    (v4([255, 255, 255, 255], 32), Silent),     // limited broadcast
    (v4([169, 254, 169, 254], 32), Prohibited), // metadata: AWS, Azure, Google and many more
    (v4([169, 254, 170, 2], 32), Prohibited),   // credentials of AWS ECS tasks
    (v4([168, 63, 129, 16], 32), Prohibited),   // Azure's wire server
    (v4([100, 100, 100, 200], 32), Prohibited), // metadata: Alibaba
    (v4([192, 0, 0, 192], 32), Prohibited),     // metadata: Oracle
    (v4([100, 100, 100, 100], 32), Prohibited), // Tailscale's own service on the laptop: names, and its web client
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

/// Networks whose IPv6 addresses contain an IPv4 one: NAT64 (RFC 6052), NAT64 of one's own (RFC 8215), 6to4 (RFC 3056) and
/// Teredo (RFC 4380).
const NAT64: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96);
const LOCAL_NAT64: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, 0, 0), 48);
const SIX_TO_FOUR: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16);
const TEREDO: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 32);
/// The third quarter of an ISATAP address, which has any prefix (RFC 5214, 6.1), without the bit that tells whether the IPv4
/// address is unique.
const ISATAP: u32 = 0x0000_5efe;

/// The IPv4 addresses that a translator or a tunnel could send packets for `address` to. Where the position depends on a
/// prefix that only the translator knows, there are several.
pub fn embedded_v4(address: IpAddr) -> impl Iterator<Item = Ipv4Addr> {
    let found = match address {
        IpAddr::V6(v6) => embedded(v6),
        IpAddr::V4(_) => [None; 4],
    };
    found.into_iter().flatten()
}

fn embedded(v6: Ipv6Addr) -> [Option<Ipv4Addr>; 4] {
    let bits = v6.to_bits();
    // The 32 bits that end `shift` bits before the end.
    let at = |shift: u32| Some(Ipv4Addr::from_bits((bits >> shift) as u32));
    if NAT64.contains(&v6) {
        [at(0), None, None, None]
    } else if LOCAL_NAT64.contains(&v6) {
        // Prefixes of 96, 64, 56 and 48 bits (RFC 6052, 2.2). Bits 64 to 71, which are not used, are within the latter two.
        let around = |before: u32| {
            let after = 32 - before;
            let high = (bits >> 64) as u32 & ((1 << before) - 1);
            let low = (bits >> (56 - after)) as u32 & ((1 << after) - 1);
            Some(Ipv4Addr::from_bits(high << after | low))
        };
        // An address of one form is mostly zeros in the others. No host has such an address (RFC 1122, 3.2.1.3).
        [at(0), at(24), around(8), around(16)].map(|v4| v4.filter(|v4| v4.octets()[0] != 0))
    } else if SIX_TO_FOUR.contains(&v6) {
        [at(80), None, None, None]
    } else if TEREDO.contains(&v6) {
        // The server; and the client, inverted.
        [at(64), Some(Ipv4Addr::from_bits(!(bits as u32))), None, None]
    } else if (bits >> 32) as u32 & !0x0200_0000 == ISATAP {
        [at(0), None, None, None]
    } else {
        [None; 4]
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
        let v4 = |text: &str| embedded_v4(text.parse().unwrap()).map(|v4| v4.to_string()).collect::<Vec<_>>();
        assert_eq!(v4("64:ff9b::127.0.0.1"), ["127.0.0.1"]);
        assert_eq!(v4("2002:7f00:1::5"), ["127.0.0.1"]);
        assert_eq!(
            v4("2001:0:c000:201::80ff:fffe"),
            ["192.0.2.1", "127.0.0.1"],
            "server and client of Teredo"
        );
        assert_eq!(v4("fe80::5efe:127.0.0.1"), ["127.0.0.1"]);
        assert_eq!(v4("2001:db8::200:5efe:127.0.0.1"), ["127.0.0.1"]);
        for none in ["fd00::1", "2001:db8::1", "10.0.0.1", "2001:1::7f00:1"] {
            assert!(v4(none).is_empty(), "{none}");
        }
    }

    /// RFC 6052, 2.4 has these forms of 192.0.2.33, here under the prefix of RFC 8215.
    #[test]
    fn a_translators_own_prefix_may_have_any_length() {
        for text in [
            "64:ff9b:1:c000:2:2100::",
            "64:ff9b:1:aac0:0:221::",
            "64:ff9b:1:abcd:c0:2:2100:0",
            "64:ff9b:1::192.0.2.33",
            "64:ff9b:1:fffe::192.0.2.33",
        ] {
            let found: Vec<_> = embedded_v4(text.parse().unwrap()).collect();
            assert!(found.contains(&Ipv4Addr::new(192, 0, 2, 33)), "{text}: {found:?}");
        }
        let whole: Vec<_> = embedded_v4("64:ff9b:1::10.20.0.10".parse().unwrap()).collect();
        assert_eq!(whole, [Ipv4Addr::new(10, 20, 0, 10)], "and no form with zeros, which would be refused");
    }
}
