//! The tunnel's own addresses: a small prefix for each family that overlaps nothing in use. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use gh_net_common::frame::TunnelAddress;
use gh_net_common::reserved;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// The first IPv4 candidate, from the benchmarking range (RFC 2544), which no network should have in use.
const V4_FIRST: Ipv4Net = v4([198, 19, 240, 0], 30);
/// Where further IPv4 candidates come from, in order: the benchmarking range, carrier-grade NAT (RFC 6598), and the
/// private ranges (RFC 1918).
const V4_POOLS: [Ipv4Net; 4] =
    [v4([198, 18, 0, 0], 15), v4([100, 64, 0, 0], 10), v4([172, 16, 0, 0], 12), v4([10, 0, 0, 0], 8)];
/// Each pool is divided into 256 parts.
const V4_PARTS: u8 = 8;
/// A unique local prefix (RFC 4193) that spells "gh-ne" in ASCII. The first candidate, `:74:`, spells "gh-net".
const V6_POOL: Ipv6Net = v6([0xfd67, 0x682d, 0x6e65, 0, 0, 0, 0, 0], 56);
const V6_FIRST: Ipv6Net = v6([0xfd67, 0x682d, 0x6e65, 0x74, 0, 0, 0, 0], V6_LENGTH);
const V6_LENGTH: u8 = 126;
const V4_LENGTH: u8 = 30;

/// Every candidate of a family is in use.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("no free prefix for the tunnel's {0} addresses was found")]
pub(crate) struct NoneFree(&'static str);

/// Chooses the addresses of one family: the first of the `preferred` prefixes, then of our own candidates, that overlaps
/// nothing in `taken`. A preferred prefix that can't be used is passed over.
///
/// # Errors
/// There is no such prefix.
pub(crate) fn choose(v6: bool, preferred: &[IpNet], taken: &[IpNet]) -> Result<TunnelAddress, NoneFree> {
    let taken: Vec<&IpNet> = taken.iter().filter(|net| is_v6(net) == v6 && !covers_all(net)).collect();
    let is_free = |net: &IpNet| {
        !taken.iter().any(|other| other.contains(&net.network()) || net.contains(&other.network()))
    };
    let preferred = preferred.iter().filter(|net| is_v6(net) == v6 && is_usable(net)).map(IpNet::trunc);
    let (mut v4, mut v6s) = (v4_candidates().map(IpNet::V4), v6_candidates().map(IpNet::V6));
    let candidates: &mut dyn Iterator<Item = IpNet> = if v6 { &mut v6s } else { &mut v4 };
    let free = preferred.chain(candidates).find(is_free);
    free.map(ends).ok_or(NoneFree(if v6 { "IPv6" } else { "IPv4" }))
}

/// Whether a prefix has room for two addresses and keeps clear of what is never forwarded.
fn is_usable(net: &IpNet) -> bool {
    net.max_prefix_len() - net.prefix_len() >= 2 && !reserved::overlaps(net)
}

fn is_v6(net: &IpNet) -> bool {
    matches!(net, IpNet::V6(_))
}

/// Default routes, and the halves and quarters that VPN clients make of them: they overlap every candidate.
fn covers_all(net: &IpNet) -> bool {
    net.prefix_len() < 4
}

/// The first, then the start of each part of each pool.
fn v4_candidates() -> impl Iterator<Item = Ipv4Net> {
    let parts = V4_POOLS.into_iter().flat_map(|pool| {
        let step = 1 << (32 - pool.prefix_len() - V4_PARTS);
        let base = pool.addr().to_bits();
        (0..1 << V4_PARTS).map(move |part: u32| Ipv4Addr::from_bits(base + part * step))
    });
    std::iter::once(V4_FIRST).chain(parts.map(|start| Ipv4Net::new_assert(start, V4_LENGTH)))
}

/// The first, then the start of each /64 of the pool.
fn v6_candidates() -> impl Iterator<Item = Ipv6Net> {
    let base = V6_POOL.addr().to_bits();
    let parts =
        (0..1_u128 << (64 - V6_POOL.prefix_len())).map(move |part| Ipv6Addr::from_bits(base + (part << 64)));
    std::iter::once(V6_FIRST).chain(parts.map(|start| Ipv6Net::new_assert(start, V6_LENGTH)))
}

/// The sidecar has the first address after the network's own, the gateway the second.
fn ends(net: IpNet) -> TunnelAddress {
    let host = |number: u8| match net.network() {
        IpAddr::V4(base) => IpAddr::from((u32::from(base) | u32::from(number)).to_be_bytes()),
        IpAddr::V6(base) => IpAddr::from((u128::from(base) | u128::from(number)).to_be_bytes()),
    };
    let sidecar = IpNet::new_assert(host(1), net.prefix_len());
    TunnelAddress { sidecar, gateway: host(2) }
}

/// A prefix without host bits, which is checked at compile time.
const fn v4([a, b, c, d]: [u8; 4], length: u8) -> Ipv4Net {
    assert!(u32::from_be_bytes([a, b, c, d]) << length == 0, "host bits");
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length)
}

/// The same for IPv6.
const fn v6([a, b, c, d, e, f, g, h]: [u16; 8], length: u8) -> Ipv6Net {
    let address = Ipv6Addr::new(a, b, c, d, e, f, g, h);
    assert!(address.to_bits() << length == 0, "host bits");
    Ipv6Net::new_assert(address, length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn the_usual_choice() {
        let v4 = choose(false, &[], &nets(&["172.16.5.4/24", "0.0.0.0/0", "fd00::/8"])).unwrap();
        assert_eq!(
            (v4.sidecar.to_string(), v4.gateway.to_string()),
            ("198.19.240.1/30".into(), "198.19.240.2".into())
        );
        let v6 = choose(true, &[], &nets(&["10.0.0.0/8", "::/0"])).unwrap();
        assert_eq!(v6.sidecar.to_string(), "fd67:682d:6e65:74::1/126");
        assert_eq!(v6.gateway.to_string(), "fd67:682d:6e65:74::2");
    }

    #[test]
    fn prefixes_in_use_are_skipped() {
        let v4 = choose(false, &[], &nets(&["198.19.240.0/24"])).unwrap();
        assert_eq!(v4.sidecar.to_string(), "198.18.0.1/30");
        let v4 = choose(false, &[], &nets(&["198.18.0.0/15", "100.64.0.0/16"])).unwrap();
        assert_eq!(v4.sidecar.to_string(), "100.65.0.1/30");
    }

    #[test]
    fn when_everything_is_in_use_it_says_so() {
        let all = nets(&["198.18.0.0/15", "100.64.0.0/10", "172.16.0.0/12", "10.0.0.0/8"]);
        assert_eq!(choose(false, &[], &all), Err(NoneFree("IPv4")));
    }

    #[test]
    fn a_preferred_prefix_is_used_if_it_is_free() {
        let preferred = nets(&["fd99::/64", "10.9.0.0/16", "10.99.7.0/29"]);
        let v4 = choose(false, &preferred, &nets(&["10.9.1.0/24"])).unwrap();
        assert_eq!(v4.sidecar.to_string(), "10.99.7.1/29");
        assert_eq!(choose(true, &preferred, &[]).unwrap().sidecar.to_string(), "fd99::1/64");
    }

    #[test]
    fn without_a_usable_preferred_prefix_the_choice_is_the_usual_one() {
        let taken = nets(&["10.9.1.0/24", "fd99::/64"]);
        let (in_use, too_small) =
            (["10.9.0.0/16", "fd99::/96"], ["10.9.0.0/31", "10.7.7.7/32", "fd98::/127"]);
        let never = ["169.254.169.252/30", "127.1.0.0/30", "168.63.129.0/24", "fe80::/64", "ff02::/126"];
        for unusable in in_use.iter().chain(&too_small).chain(&never) {
            for v6 in [false, true] {
                assert_eq!(choose(v6, &nets(&[unusable]), &taken), choose(v6, &[], &taken), "{unusable}");
            }
        }
    }

    proptest! {
        #[test]
        fn the_choice_never_overlaps(taken in prop::collection::vec((any::<[u8; 4]>(), 4_u8..33), 0..200)) {
            let taken: Vec<IpNet> =
                taken.into_iter().map(|(ip, len)| IpNet::new_assert(IpAddr::from(ip), len)).collect();
            if let Ok(chosen) = choose(false, &[], &taken) {
                for net in &taken {
                    prop_assert!(!net.contains(&chosen.sidecar.addr()) && !net.contains(&chosen.gateway));
                }
            }
        }
    }
}
