//! The reverse zones of networks: which names under in-addr.arpa and ip6.arpa belong to the laptop. Pure.
//!
//! Zones end at octets (IPv4) or nibbles (IPv6), prefixes at any bit. A prefix that ends in between becomes the zones
//! one level down that it consists of, at most 128: `172.16.0.0/12` becomes `16.172.in-addr.arpa` to
//! `31.172.in-addr.arpa`. Only if a set of prefixes has more zones than a frame can carry, a prefix becomes the one
//! zone that encloses it, so that the laptop also answers for other names in that zone.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Maximum number of zones of a set, unless it has more prefixes. A frame carries 2048 names.
const MAX_ZONES: usize = 1024;

/// The reverse zones of `prefixes`, without trailing dots. Zones within other zones are left out.
pub fn reverse_zones(prefixes: &[IpNet]) -> Vec<String> {
    let whole = IpNet::aggregate(&prefixes.to_vec());
    // Prefixes with few zones first, so that as few prefixes as possible are simplified.
    let mut by_zones: Vec<(usize, IpNet)> = whole.into_iter().map(|net| (zone_count(net), net)).collect();
    by_zones.sort();
    let mut zones = BTreeSet::new();
    let mut left = by_zones.len();
    for (count, net) in by_zones {
        left -= 1;
        if zones.len() + count + left <= MAX_ZONES {
            zones.extend(split(net, boundary_below(net)));
        } else {
            zones.extend(split(net, boundary_above(net)));
        }
    }
    let zones: Vec<IpNet> = zones.into_iter().collect();
    IpNet::aggregate(&zones).into_iter().flat_map(|net| split(net, boundary_below(net))).map(name).collect()
}

fn step(net: IpNet) -> u8 {
    match net {
        IpNet::V4(_) => 8,
        IpNet::V6(_) => 4,
    }
}

/// The next zone boundary at or below the prefix.
fn boundary_below(net: IpNet) -> u8 {
    net.prefix_len().next_multiple_of(step(net))
}

/// The next zone boundary at or above the prefix.
fn boundary_above(net: IpNet) -> u8 {
    net.prefix_len() / step(net) * step(net)
}

fn zone_count(net: IpNet) -> usize {
    1 << (boundary_below(net) - net.prefix_len())
}

/// The networks of that prefix length that make `net` up, or the one that encloses it.
fn split(net: IpNet, length: u8) -> Vec<IpNet> {
    if length >= net.prefix_len() {
        return net.subnets(length).map(Iterator::collect).unwrap_or_default();
    }
    let enclosing = match net.addr() {
        IpAddr::V4(v4) => Ipv4Net::new(v4, length).map(IpNet::V4),
        IpAddr::V6(v6) => Ipv6Net::new(v6, length).map(IpNet::V6),
    };
    enclosing.map(|net| vec![net.trunc()]).unwrap_or_default()
}

/// The name of the zone of a prefix that ends at a boundary.
fn name(net: IpNet) -> String {
    let labels = usize::from(net.prefix_len() / step(net));
    let (mut parts, root) = match net.addr() {
        IpAddr::V4(v4) => (octets(v4), "in-addr.arpa"),
        IpAddr::V6(v6) => (nibbles(v6), "ip6.arpa"),
    };
    parts.truncate(labels);
    parts.iter().rev().map(String::as_str).chain([root]).collect::<Vec<_>>().join(".")
}

fn octets(address: Ipv4Addr) -> Vec<String> {
    address.octets().iter().map(u8::to_string).collect()
}

fn nibbles(address: Ipv6Addr) -> Vec<String> {
    let nibbles = address.octets().into_iter().flat_map(|octet| [octet >> 4, octet & 0xf]);
    nibbles.map(|nibble| format!("{nibble:x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zones(prefixes: &[&str]) -> Vec<String> {
        let prefixes: Vec<IpNet> = prefixes.iter().map(|prefix| prefix.parse().unwrap()).collect();
        reverse_zones(&prefixes)
    }

    #[test]
    fn prefixes_at_octets_are_one_zone() {
        assert_eq!(zones(&["10.20.0.0/16"]), ["20.10.in-addr.arpa"]);
        assert_eq!(zones(&["10.0.0.0/8"]), ["10.in-addr.arpa"]);
        assert_eq!(zones(&["192.168.7.0/24"]), ["7.168.192.in-addr.arpa"]);
        assert_eq!(zones(&["192.168.7.9/32"]), ["9.7.168.192.in-addr.arpa"]);
        assert_eq!(zones(&["0.0.0.0/0"]), ["in-addr.arpa"]);
        assert!(zones(&[]).is_empty());
    }

    #[test]
    fn prefixes_between_octets_are_the_zones_they_consist_of() {
        let twelve = zones(&["172.16.0.0/12"]);
        assert_eq!(twelve.len(), 16);
        assert_eq!((twelve[0].as_str(), twelve[15].as_str()), ("16.172.in-addr.arpa", "31.172.in-addr.arpa"));
        assert_eq!(zones(&["10.1.2.128/25"]).len(), 128);
        assert_eq!(zones(&["10.1.2.8/31"]), ["8.2.1.10.in-addr.arpa", "9.2.1.10.in-addr.arpa"]);
    }

    #[test]
    fn ipv6_zones_end_at_nibbles() {
        assert_eq!(zones(&["fd00:1234::/32"]), ["4.3.2.1.0.0.d.f.ip6.arpa"]);
        assert_eq!(zones(&["fc00::/7"]), ["c.f.ip6.arpa", "d.f.ip6.arpa"]);
        assert_eq!(zones(&["::/0"]), ["ip6.arpa"]);
        let host = zones(&["fd00::1/128"]).remove(0);
        assert!(host.starts_with("1.0.0.0.") && host.ends_with(".0.0.d.f.ip6.arpa") && host.len() == 72);
    }

    #[test]
    fn what_another_zone_holds_is_not_said_twice() {
        assert_eq!(zones(&["10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32"]), ["10.in-addr.arpa"]);
        assert_eq!(zones(&["10.0.0.0/9", "10.128.0.0/9"]), ["10.in-addr.arpa"]);
    }

    #[test]
    fn too_many_zones_become_enclosing_ones() {
        let many: Vec<IpNet> =
            (0..100).map(|n| IpNet::new(IpAddr::from([10, 1, n, 0]), 25).unwrap()).collect();
        let zones = reverse_zones(&many);
        assert!(zones.len() <= MAX_ZONES, "{}", zones.len());
        assert!(zones.contains(&"0.0.1.10.in-addr.arpa".to_owned()), "the first zones are exact");
        assert!(
            zones.contains(&"99.1.10.in-addr.arpa".to_owned()),
            "the last are replaced by their enclosing zone"
        );
    }
}
