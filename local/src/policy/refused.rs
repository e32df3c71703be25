//! Destinations that are never forwarded, regardless of the routes. Pure.
//!
//! The laptop's own services, its loopback and the metadata services of clouds trust a client by its address alone.
//! The codespace must not reach them through the laptop.

use std::net::IpAddr;

use gh_net_common::reserved::{self, Answer};
use ipnet::IpNet;

use super::prefix_map::PrefixMap;
use crate::engine::Refusal::{self, NoRoute, Prohibited, Silent};
use crate::netwatch::{LOCAL_TABLE, RouteKind, Snapshot};

/// The blocks that are never forwarded.
pub(super) fn blocks() -> PrefixMap<()> {
    PrefixMap::from_prefixes(reserved::BLOCKS.map(|(prefix, _)| prefix))
}

/// All that is never forwarded on this laptop, and how it is refused. `tunnel` are the tunnel's own networks.
pub(super) fn refused(snapshot: &Snapshot, tunnel: &[IpNet]) -> PrefixMap<Refusal> {
    let own = snapshot.addresses.iter().map(|it| (IpNet::from(it.address.addr()), Prohibited));
    // The local table also has anycast addresses, and whole networks that are local.
    let local = snapshot.routes.iter().filter(|it| it.table == LOCAL_TABLE && it.prefix.prefix_len() > 0);
    let local = local.filter_map(|route| Some((route.prefix, local_refusal(route.kind)?)));
    let edges = snapshot.addresses.iter().flat_map(|it| edges(it.network()));
    let tunnel = tunnel.iter().map(|prefix| (prefix.trunc(), NoRoute));
    let reserved = reserved::all().map(|(prefix, answer)| (prefix, refusal(answer)));
    // Of equal prefixes the first counts.
    PrefixMap::longest_prefix(own.chain(local).chain(edges).chain(tunnel).chain(reserved))
}

fn refusal(answer: Answer) -> Refusal {
    match answer {
        Answer::Prohibited => Prohibited,
        Answer::Silent => Silent,
    }
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
/// obsolete form that kernels before Linux 5.14 and many hosts still accept (RFC 1812, 5.3.5). Networks
/// of two addresses or one have none (RFC 3021), nor has IPv6.
fn edges(network: IpNet) -> Vec<(IpNet, Refusal)> {
    match network {
        IpNet::V4(v4) if v4.prefix_len() <= 30 => {
            [v4.broadcast(), v4.network()].map(|edge| (IpNet::from(IpAddr::from(edge)), Silent)).to_vec()
        }
        IpNet::V4(_) | IpNet::V6(_) => Vec::new(),
    }
}
