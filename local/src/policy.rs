//! Which destinations are forwarded, and by which interface. Pure.
//!
//! The user's [`Choice`] and a [`Snapshot`] of the laptop's networks become a [`Policy`]: one map for what is
//! forwarded, one for what is refused whatever the first one says. It decides about each new flow, and it is
//! what the sidecar is told to route into the tunnel.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use gh_net_common::reserved;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

pub use crate::engine::{InterfaceIndex, Protocol, Refusal, Verdict};

use crate::engine::{self, NewFlow};
use crate::netwatch::{LinkKind, Snapshot};

mod choice;
mod refused;
mod space;
mod ways;
mod words;

pub use choice::{Choice, ParseRouteError, RouteChoice};
pub use words::{Hint, Overlap};

use space::Space;
use ways::{Way, Ways};

const ALL_V4: IpNet = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0));
const ALL_V6: IpNet = IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0));

const PRIVATE_V4: [Ipv4Net; 4] = [
    Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 8),
    Ipv4Net::new_assert(Ipv4Addr::new(172, 16, 0, 0), 12),
    Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 0, 0), 16),
    Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 10), // RFC 6598
];
const PRIVATE_V6: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7); // RFC 4193

/// After so many overlaps no more are looked for.
const MAX_OVERLAPS: usize = 16;

/// The ranges that belong to nobody on the internet: whoever uses them means a network of his own.
pub fn private_ranges() -> impl Iterator<Item = IpNet> {
    PRIVATE_V4.into_iter().map(IpNet::from).chain([PRIVATE_V6.into()])
}

/// What the policy has to know of the other side.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Codespace {
    /// The codespace's own networks.
    pub networks: Vec<IpNet>,
    /// The tunnel's networks, those of its own addresses.
    pub tunnel: Vec<IpNet>,
}

/// The rules in force. The engine holds one and is given another when the laptop's networks change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    forwarded: Space<Option<InterfaceIndex>>,
    refused: Space<Refusal>,
    routes: Vec<IpNet>,
    hints: Vec<Hint>,
    overlaps: Vec<Overlap>,
    tunnel_avoid: Vec<IpNet>,
}

impl Policy {
    /// The policy that carries out the user's choice on these networks.
    pub fn new(choice: &Choice, snapshot: &Snapshot, codespace: &Codespace) -> Self {
        let ways = Ways::of(snapshot);
        let forwarded = forwarded(choice, &ways);
        let routes = forwarded.covered().prefixes();
        Self {
            hints: hints(choice, snapshot, &ways, &routes),
            overlaps: overlaps(&networks(choice, snapshot, &ways), &forwarded.covered(), &codespace.networks),
            tunnel_avoid: tunnel_avoid(choice, snapshot, &ways, &codespace.networks),
            refused: refused::refused(snapshot, &codespace.tunnel),
            forwarded,
            routes,
        }
    }

    /// The networks to forward, as the sidecar is told: the fewest prefixes, IPv4 first, in ascending order.
    /// Single addresses that [`Self::verdict`] refuses are among them, so that they are refused and do not go
    /// elsewhere.
    pub fn routes(&self) -> &[IpNet] {
        &self.routes
    }

    /// What the user should be told about this policy.
    pub fn hints(&self) -> &[Hint] {
        &self.hints
    }

    /// Which of the forwarded networks the codespace has too; its own win there.
    pub fn overlaps(&self) -> &[Overlap] {
        &self.overlaps
    }

    /// The networks that the tunnel's own addresses must stay clear of: all that the laptop or the codespace
    /// has. The widest come first, in case not all can be told.
    pub fn tunnel_avoid(&self) -> &[IpNet] {
        &self.tunnel_avoid
    }
}

/// The rules, by which a verdict says why.
pub mod rule {
    use crate::engine::RuleId;

    /// A network that is forwarded.
    pub const FORWARDED: RuleId = RuleId(0);
    /// No network that is forwarded holds the destination.
    pub const NO_ROUTE: RuleId = RuleId(1);
    /// The destination is never forwarded: the laptop itself, or a reserved range.
    pub const RESERVED: RuleId = RuleId(2);
}

impl engine::Policy for Policy {
    fn verdict(&self, flow: &NewFlow<'_>) -> Verdict {
        let destination = flow.destination.ip();
        let refuse = |refusal, rule| Verdict::Refuse { refusal, rule };
        if let Some(refusal) = self.refused.get(destination) {
            return refuse(*refusal, rule::RESERVED);
        }
        if reserved::embedded_v4(destination).is_some_and(|v4| self.refused.get(v4.into()).is_some()) {
            return refuse(Refusal::Prohibited, rule::RESERVED);
        }
        match self.forwarded.get(destination) {
            Some(interface) => Verdict::Forward {
                destination: flow.destination,
                interface: *interface,
                rule: rule::FORWARDED,
            },
            None => refuse(Refusal::NoRoute, rule::NO_ROUTE),
        }
    }
}

fn forwarded(choice: &Choice, ways: &Ways) -> Space<Option<InterfaceIndex>> {
    let mut forwarded = Space::default();
    if choice.has_auto() {
        forwarded = ways.space.filter_map(|way| match way {
            Way::Network(interface) => Some(*interface),
            Way::Default { .. } | Way::Internal | Way::Blocked(_) => None,
        });
    }
    for network in choice.named() {
        // What the laptop blocks inside a network is not part of it; the network itself is the user's word.
        let blocked = ways.space.filter_map(|way| match way {
            Way::Blocked(length) => (*length > network.prefix_len()).then_some(()),
            Way::Network(_) | Way::Default { .. } | Way::Internal => None,
        });
        forwarded = forwarded.or(&Space::longest_prefix([(network, None)]).without(&blocked));
    }
    let excluded = Space::of(choice.excludes.iter().map(IpNet::trunc));
    forwarded.without(&excluded).without(&refused::blocks())
}

/// The networks of the user's choice as they are known to him: before they are joined or split, with the
/// interface that leads there.
fn networks(choice: &Choice, snapshot: &Snapshot, ways: &Ways) -> Vec<(IpNet, Option<String>)> {
    let routes = ways.routes.iter().filter(|_| choice.has_auto()).filter_map(|(prefix, way)| match way {
        Way::Network(interface) => Some((*prefix, interface.map(|it| snapshot.link_name(it.get())))),
        Way::Default { .. } | Way::Internal | Way::Blocked(_) => None,
    });
    routes.chain(choice.named().map(|network| (network, None))).collect()
}

fn hints(choice: &Choice, snapshot: &Snapshot, ways: &Ways, routes: &[IpNet]) -> Vec<Hint> {
    if !choice.has_auto() {
        return Vec::new();
    }
    let tunnel = |index: InterfaceIndex| {
        let link = snapshot.link(index.get());
        let kinds = [LinkKind::Tun, LinkKind::WireGuard, LinkKind::Tunnel];
        link.is_some_and(|link| link.flags.point_to_point || kinds.contains(&link.kind))
    };
    let full_tunnels: BTreeSet<InterfaceIndex> = ways
        .space
        .values()
        .filter_map(|way| match way {
            Way::Default { interface, disguised } => interface.filter(|it| *disguised || tunnel(*it)),
            Way::Network(_) | Way::Internal | Way::Blocked(_) => None,
        })
        .collect();
    let mut hints: Vec<_> = full_tunnels
        .into_iter()
        .map(|index| Hint::FullTunnel { interface: snapshot.link_name(index.get()) })
        .collect();
    if hints.is_empty() && routes.is_empty() {
        hints.push(Hint::Nothing);
    }
    if snapshot.truncated {
        hints.push(Hint::TooManyRoutes);
    }
    hints
}

/// The overlaps, as many as a person would read: the codespace may name thousands of networks.
fn overlaps(
    networks: &[(IpNet, Option<String>)],
    forwarded: &Space<()>,
    codespace: &[IpNet],
) -> Vec<Overlap> {
    let mut overlaps = Vec::new();
    for codespace in codespace.iter().map(IpNet::trunc).filter(|network| forwarded.overlaps(*network)) {
        if overlaps.len() >= MAX_OVERLAPS {
            break;
        }
        for (laptop, interface) in networks {
            let nested = laptop.contains(&codespace) || codespace.contains(laptop);
            let overlap = Overlap { laptop: *laptop, interface: interface.clone(), codespace };
            if nested && forwarded.overlaps(overlap.shared()) && !overlaps.contains(&overlap) {
                overlaps.push(overlap);
            }
        }
    }
    overlaps
}

fn tunnel_avoid(choice: &Choice, snapshot: &Snapshot, ways: &Ways, codespace: &[IpNet]) -> Vec<IpNet> {
    let connected = snapshot.addresses.iter().map(|address| address.network());
    let routes = ways.routes.iter().filter_map(|(prefix, way)| match way {
        Way::Network(_) | Way::Internal => Some(*prefix),
        Way::Default { .. } | Way::Blocked(_) => None,
    });
    // A range as wide as all private IPv6 addresses leaves no room for the tunnel at all.
    let named = choice.routes.iter().filter_map(|route| match route {
        RouteChoice::Network(network) => Some(*network).filter(|network| network.prefix_len() >= 8),
        RouteChoice::Auto | RouteChoice::Private => None,
    });
    let all = connected.chain(routes).chain(named).chain(codespace.iter().copied());
    let mut avoid = Space::of(all.map(|prefix| prefix.trunc())).without(&refused::blocks()).prefixes();
    avoid.sort_by_key(IpNet::prefix_len);
    avoid
}

#[cfg(test)]
impl Policy {
    /// Forwards everything, loopback included.
    pub(crate) fn everything() -> Self {
        Self { forwarded: Space::longest_prefix([(ALL_V4, None), (ALL_V6, None)]), ..Self::default() }
    }
}

#[cfg(test)]
mod tests;
