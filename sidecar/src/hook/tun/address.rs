//! The tunnel's own addresses: a small prefix a family that clashes with nothing. Pure.

use std::net::IpAddr;

use gh_net_common::frame::TunnelAddress;
use gh_net_common::reserved;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Where the tunnel's IPv4 prefix comes from, in order: the benchmarking range (RFC 2544), which no network
/// has in use, then carrier-grade NAT (RFC 6598) and the private ranges (RFC 1918).
const V4_FIRST: &str = "198.19.240.0/30";
const V4_POOLS: [&str; 4] = ["198.18.0.0/15", "100.64.0.0/10", "172.16.0.0/12", "10.0.0.0/8"];
const V4_LENGTH: u8 = 30;
/// Part of a unique local prefix (RFC 4193): "gh-ne" in ASCII; with the first choice, ::74, "gh-net".
const V6_POOL: &str = "fd67:682d:6e65::/56";
const V6_LENGTH: u8 = 126;

/// Why a family gets no address.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// What the user asked for clashes.
    #[error("the prefix {wanted} that was asked for the tunnel overlaps {taken}, which is in use")]
    Taken {
        /// The first prefix asked for.
        wanted: IpNet,
        /// What it overlaps.
        taken: IpNet,
    },
    /// What the user asked for must never take the tunnel: link-local, say, with the metadata service.
    #[error("the prefix {0} that was asked for the tunnel overlaps what never takes the tunnel")]
    Never(IpNet),
    /// What the user asked for is too small.
    #[error("the prefix {0} that was asked for the tunnel is too small for two addresses")]
    TooSmall(IpNet),
    /// Everything is in use.
    #[error("no free prefix for the tunnel's {0} addresses was found; say one")]
    None(&'static str),
}

/// Chooses the addresses of one family: from `wanted`, if it names any of that family, else from our own
/// candidates; the first that overlaps nothing in `taken`.
///
/// # Errors
/// There is none; see [`Error`].
pub(crate) fn choose(v6: bool, wanted: &[IpNet], taken: &[IpNet]) -> Result<TunnelAddress, Error> {
    let taken: Vec<IpNet> =
        taken.iter().filter(|net| is_v6(net) == v6 && !covers_all(net)).copied().collect();
    let clash = |net: &IpNet| {
        taken.iter().find(|other| other.contains(&net.network()) || net.contains(&other.network()))
    };
    let wanted: Vec<IpNet> = wanted.iter().filter(|net| is_v6(net) == v6).map(IpNet::trunc).collect();
    if let Some(first) = wanted.first() {
        if let Some(small) = wanted.iter().find(|net| net.max_prefix_len() - net.prefix_len() < 2) {
            return Err(Error::TooSmall(*small));
        }
        if let Some(never) = wanted.iter().find(|net| reserved::overlaps(net)) {
            return Err(Error::Never(*never));
        }
        if let Some(free) = wanted.iter().find(|net| clash(net).is_none()) {
            return Ok(ends(*free));
        }
        return Err(Error::Taken { wanted: *first, taken: clash(first).copied().unwrap_or(*first) });
    }
    let free = if v6 {
        v6_candidates().find(|net| clash(net).is_none())
    } else {
        v4_candidates().find(|net| clash(net).is_none())
    };
    free.map(ends).ok_or(Error::None(if v6 { "IPv6" } else { "IPv4" }))
}

fn is_v6(net: &IpNet) -> bool {
    matches!(net, IpNet::V6(_))
}

/// Default routes, and the halves and quarters VPN clients make of them, hold everything and so tell nothing.
fn covers_all(net: &IpNet) -> bool {
    net.prefix_len() < 4
}

/// One prefix out of each of 256 parts of each pool.
fn v4_candidates() -> impl Iterator<Item = IpNet> {
    let parse = |text: &str| text.parse::<Ipv4Net>().ok();
    let parts = |pool: Ipv4Net| pool.subnets(pool.prefix_len() + 8).into_iter().flatten();
    let part = |net: Ipv4Net| Ipv4Net::new(net.network(), V4_LENGTH).ok();
    let pools = V4_POOLS.into_iter().filter_map(parse).flat_map(parts).filter_map(part);
    parse(V4_FIRST).into_iter().chain(pools).map(IpNet::V4)
}

fn v6_candidates() -> impl Iterator<Item = IpNet> {
    let first = "fd67:682d:6e65:74::/126".parse::<Ipv6Net>().ok();
    let pool = V6_POOL.parse::<Ipv6Net>().ok();
    let parts = pool.into_iter().flat_map(|pool| pool.subnets(64).into_iter().flatten());
    let part = |net: Ipv6Net| Ipv6Net::new(net.network(), V6_LENGTH).ok();
    first.into_iter().chain(parts.filter_map(part)).map(IpNet::V6)
}

/// The sidecar has the first address behind the network's own, the gateway the second.
fn ends(net: IpNet) -> TunnelAddress {
    let host = |number: u8| match net.network() {
        IpAddr::V4(base) => IpAddr::from((u32::from(base) | u32::from(number)).to_be_bytes()),
        IpAddr::V6(base) => IpAddr::from((u128::from(base) | u128::from(number)).to_be_bytes()),
    };
    let sidecar = IpNet::new_assert(host(1), net.prefix_len());
    TunnelAddress { sidecar, gateway: host(2) }
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
    fn what_is_taken_is_stepped_over() {
        let v4 = choose(false, &[], &nets(&["198.19.240.0/24"])).unwrap();
        assert_eq!(v4.sidecar.to_string(), "198.18.0.1/30");
        let v4 = choose(false, &[], &nets(&["198.18.0.0/15", "100.64.0.0/16"])).unwrap();
        assert_eq!(v4.sidecar.to_string(), "100.64.64.1/30".replace("64.64", "65.0"));
    }

    #[test]
    fn when_everything_is_taken_it_says_so() {
        let all = nets(&["198.18.0.0/15", "100.64.0.0/10", "172.16.0.0/12", "10.0.0.0/8"]);
        assert_eq!(choose(false, &[], &all), Err(Error::None("IPv4")));
    }

    #[test]
    fn what_was_asked_for_is_used_or_refused() {
        let wanted = nets(&["10.9.0.0/16", "10.99.7.0/29"]);
        let v4 = choose(false, &wanted, &nets(&["10.9.1.0/24"])).unwrap();
        assert_eq!(v4.sidecar.to_string(), "10.99.7.1/29");
        let error = choose(false, &wanted[..1], &nets(&["10.9.1.0/24"])).unwrap_err();
        assert!(error.to_string().contains("10.9.0.0/16") && error.to_string().contains("10.9.1.0/24"));
        assert!(matches!(choose(false, &nets(&["10.9.0.0/31"]), &[]), Err(Error::TooSmall(_))));
    }

    #[test]
    fn a_prefix_within_what_never_takes_the_tunnel_is_refused() {
        for wanted in ["169.254.169.252/30", "127.1.0.0/30", "168.63.129.0/24", "fe80::/64", "ff02::/126"] {
            let wanted = nets(&[wanted]);
            assert_eq!(choose(!wanted[0].addr().is_ipv4(), &wanted, &[]), Err(Error::Never(wanted[0])));
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
