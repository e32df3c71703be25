//! Destinations that are never forwarded, whatever the routes say. Pure.
//!
//! The laptop's own services, its loopback and the metadata services of clouds are trusted by address: whoever
//! reaches them is let in. The codespace is not to get there by way of the laptop.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::Refusal::{self, NoRoute, Prohibited, Silent};
use super::space::Space;
use crate::netwatch::{LOCAL_TABLE, RouteKind, Snapshot};

/// Whole blocks: they are also taken out of the routes that the sidecar is told.
const BLOCKS: [(IpNet, Refusal); 7] = [
    (v4([0, 0, 0, 0], 8), Prohibited), // "this host"; Linux takes 0.0.0.0 for loopback
    (v4([127, 0, 0, 0], 8), Prohibited), // loopback
    (v4([169, 254, 0, 0], 16), Silent), // link-local (RFC 3927)
    (v4([224, 0, 0, 0], 4), Silent),   // multicast
    // Reserved (RFC 4291): ::, ::1, IPv4-compatible and IPv4-mapped addresses.
    (v6([0, 0, 0, 0, 0, 0, 0, 0], 16), Prohibited),
    (v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10), Silent), // link-local
    (v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8), Silent),  // multicast
];

/// Single addresses: routes are not split around them.
const ADDRESSES: [(IpNet, Refusal); 9] = [
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

/// NAT64 (RFC 6052) and 6to4 (RFC 3056): an IPv4 address in an IPv6 one.
const NAT64: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96);
const SIX_TO_FOUR: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16);

const fn v4(octets: [u8; 4], length: u8) -> IpNet {
    let [a, b, c, d] = octets;
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length))
}

const fn v6(segments: [u16; 8], length: u8) -> IpNet {
    let [a, b, c, d, e, f, g, h] = segments;
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), length))
}

/// The blocks that are never forwarded.
pub(super) fn blocks() -> Space<()> {
    Space::of(BLOCKS.map(|(prefix, _)| prefix))
}

/// All that is never forwarded on this laptop, with the reason. `tunnel` are the tunnel's own networks.
pub(super) fn refused(snapshot: &Snapshot, tunnel: &[IpNet]) -> Space<Refusal> {
    let own = snapshot.addresses.iter().map(|it| (IpNet::from(it.address.addr()), Prohibited));
    // The local table also knows what the addresses don't say: anycast, and whole networks that are local.
    let local = snapshot.routes.iter().filter(|it| it.table == LOCAL_TABLE && it.prefix.prefix_len() > 0);
    let local = local.filter_map(|route| Some((route.prefix, local_refusal(route.kind)?)));
    let edges = snapshot.addresses.iter().flat_map(|it| edges(it.network()));
    let tunnel = tunnel.iter().map(|prefix| (prefix.trunc(), NoRoute));
    // Of equal prefixes the first counts.
    Space::longest_prefix(own.chain(local).chain(edges).chain(tunnel).chain(ADDRESSES).chain(BLOCKS))
}

fn local_refusal(kind: RouteKind) -> Option<Refusal> {
    match kind {
        RouteKind::Local | RouteKind::Anycast => Some(Prohibited),
        RouteKind::Broadcast => Some(Silent),
        RouteKind::Unicast
        | RouteKind::Multicast
        | RouteKind::Blocked
        | RouteKind::Throw
        | RouteKind::Other => None,
    }
}

/// The broadcast addresses of a network the laptop is connected to: the last address, and the first one, the
/// obsolete form that kernels before Linux 5.14 and many hosts still take for one (RFC 1812, 5.3.5). Networks
/// of two addresses or one have none (RFC 3021), nor has IPv6.
fn edges(network: IpNet) -> Vec<(IpNet, Refusal)> {
    match network {
        IpNet::V4(v4) if v4.prefix_len() <= 30 => {
            [v4.broadcast(), v4.network()].map(|edge| (IpNet::from(IpAddr::from(edge)), Silent)).to_vec()
        }
        IpNet::V4(_) | IpNet::V6(_) => Vec::new(),
    }
}

/// The IPv4 address that a translator behind this address would use.
pub(super) fn embedded(address: IpAddr) -> Option<IpAddr> {
    let IpAddr::V6(v6) = address else { return None };
    let bits = v6.to_bits();
    if NAT64.contains(&v6) {
        Some(Ipv4Addr::from_bits(bits as u32).into())
    } else if SIX_TO_FOUR.contains(&v6) {
        Some(Ipv4Addr::from_bits((bits >> 80) as u32).into())
    } else {
        None
    }
}
