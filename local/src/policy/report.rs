//! The report for the user: the forwarded networks with their reasons, hints and overlaps.

use std::collections::BTreeSet;
use std::fmt;

use ipnet::IpNet;

use super::choice::{Choice, RouteChoice};
use super::codespace::Codespace;
use super::decision::forwarded;
use super::fib::{Fib, Lookup};
use super::hints::{Hint, Overlap};
use super::prefix_map::PrefixMap;
use super::refused;
use crate::engine::InterfaceIndex;
use crate::netwatch::{InterfaceKind, Snapshot};

/// Maximum number of reported overlaps. The sidecar chooses the codespace's networks, and one that contains all of the
/// laptop's overlaps each of them.
const MAX_OVERLAPS: usize = 16;

/// Why a network is forwarded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// The laptop is connected to it by this interface.
    Connected(String),
    /// The laptop has a route to it, by this interface if it is a single one.
    Route(Option<String>),
    /// The user names it.
    Named(RouteChoice),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected(interface) => write!(f, "connected on {interface}"),
            Self::Route(Some(interface)) => write!(f, "route on {interface}"),
            Self::Route(None) => f.write_str("route on several interfaces"),
            Self::Named(route) => write!(f, "--route {route}"),
        }
    }
}

/// A network that is forwarded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardedRoute {
    /// The network.
    pub network: IpNet,
    /// Why it is forwarded.
    pub reason: Reason,
}

/// The consequences of the user's choice, for the user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The forwarded networks: together the same addresses as the policy's, one entry at least for each reason.
    pub routes: Vec<ForwardedRoute>,
    /// Hints about what the user may not expect.
    pub hints: Vec<Hint>,
    /// The forwarded networks that overlap the codespace's own, which take precedence.
    pub overlaps: Vec<Overlap>,
}

impl Report {
    /// The report on the user's choice on these networks.
    pub fn new(choice: &Choice, snapshot: &Snapshot, codespace: &Codespace) -> Self {
        let fib = Fib::of(snapshot);
        let forwarded = forwarded(choice, &fib, Cause::Route, Cause::Named);
        let routes = with_connected(forwarded.clone(), snapshot).entries().into_iter();
        Self {
            hints: hints(choice, snapshot, &fib, forwarded.is_empty()),
            overlaps: overlaps(&networks(choice, snapshot, &fib), &forwarded.covered(), &codespace.networks),
            routes: routes
                .map(|(network, cause)| ForwardedRoute { network, reason: cause.reason(snapshot) })
                .collect(),
        }
    }
}

/// A [`Reason`] before the interfaces have names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    Connected(u32),
    Route(Option<InterfaceIndex>),
    Named(RouteChoice),
}

impl Cause {
    fn reason(self, snapshot: &Snapshot) -> Reason {
        match self {
            Self::Connected(interface) => Reason::Connected(snapshot.interface_name(interface)),
            Self::Route(interface) => Reason::Route(interface.map(|it| snapshot.interface_name(it.get()))),
            Self::Named(route) => Reason::Named(route),
        }
    }
}

/// Distinguishes the networks on the laptop's interfaces from those behind a router.
fn with_connected(forwarded: PrefixMap<Cause>, snapshot: &Snapshot) -> PrefixMap<Cause> {
    let mut connected = PrefixMap::default();
    for address in &snapshot.addresses {
        let network = PrefixMap::from_prefixes([address.network()]);
        connected = connected.or(&forwarded.within(&network).filter_map(|cause| match cause {
            Cause::Route(Some(interface)) if interface.get() == address.interface => {
                Some(Cause::Connected(address.interface))
            }
            Cause::Route(_) | Cause::Connected(_) | Cause::Named(_) => None,
        }));
    }
    connected.or(&forwarded)
}

/// The networks that the tunnel's own addresses must stay clear of: all that the laptop or the codespace has. The
/// widest come first, in case the list has to be cut.
pub fn tunnel_avoid(choice: &Choice, snapshot: &Snapshot, codespace: &[IpNet]) -> Vec<IpNet> {
    let connected = snapshot.addresses.iter().map(|address| address.network());
    let fib = Fib::of(snapshot);
    let routes = fib.routes.iter().filter_map(|(prefix, found)| match found {
        Lookup::Network(_) | Lookup::Internal => Some(*prefix),
        Lookup::Default { .. } | Lookup::Blocked(_) => None,
    });
    // A range as wide as all private IPv6 addresses leaves no room for the tunnel at all.
    let named = choice.routes.iter().filter_map(|route| match route {
        RouteChoice::Network(network) => Some(*network).filter(|network| network.prefix_len() >= 8),
        RouteChoice::Auto | RouteChoice::Private => None,
    });
    let all = connected.chain(routes).chain(named).chain(codespace.iter().copied());
    let avoid = PrefixMap::from_prefixes(all.map(|prefix| prefix.trunc()));
    let mut avoid = avoid.without(&refused::blocks()).prefixes();
    avoid.sort_by_key(IpNet::prefix_len);
    avoid
}

/// The networks of the user's choice as the user names them: not yet joined or split, with their interface.
fn networks(choice: &Choice, snapshot: &Snapshot, fib: &Fib) -> Vec<(IpNet, Option<String>)> {
    let routes = fib.routes.iter().filter(|_| choice.has_auto()).filter_map(|(prefix, found)| match found {
        Lookup::Network(interface) => Some((*prefix, interface.map(|it| snapshot.interface_name(it.get())))),
        Lookup::Default { .. } | Lookup::Internal | Lookup::Blocked(_) => None,
    });
    routes.chain(choice.named().map(|(network, _)| (network, None))).collect()
}

fn hints(choice: &Choice, snapshot: &Snapshot, fib: &Fib, nothing_forwarded: bool) -> Vec<Hint> {
    if !choice.has_auto() {
        return Vec::new();
    }
    let tunnel = |index: InterfaceIndex| {
        let interface = snapshot.interface(index.get());
        let kinds = [InterfaceKind::Tun, InterfaceKind::WireGuard, InterfaceKind::Tunnel];
        interface.is_some_and(|interface| interface.flags.point_to_point || kinds.contains(&interface.kind))
    };
    let full_tunnels: BTreeSet<InterfaceIndex> = fib
        .map
        .values()
        .filter_map(|found| match found {
            Lookup::Default { interface, disguised } => interface.filter(|it| *disguised || tunnel(*it)),
            Lookup::Network(_) | Lookup::Internal | Lookup::Blocked(_) => None,
        })
        .collect();
    let mut hints: Vec<_> = full_tunnels
        .into_iter()
        .map(|index| Hint::FullTunnel { interface: snapshot.interface_name(index.get()) })
        .collect();
    if hints.is_empty() && nothing_forwarded {
        hints.push(Hint::NoRoutes);
    }
    if snapshot.truncated {
        hints.push(Hint::TooManyRoutes);
    }
    hints
}

/// Stops at [`MAX_OVERLAPS`]. Each codespace network that gets past the filter overlaps at least one of `networks`, so
/// the number of passes over `networks` is bounded as well.
fn overlaps(
    networks: &[(IpNet, Option<String>)],
    forwarded: &PrefixMap<()>,
    codespace: &[IpNet],
) -> Vec<Overlap> {
    let mut overlaps = Vec::new();
    let codespace: BTreeSet<_> = codespace.iter().map(IpNet::trunc).collect();
    for codespace in codespace.into_iter().filter(|network| forwarded.overlaps(*network)) {
        for (laptop, interface) in networks {
            if overlaps.len() == MAX_OVERLAPS {
                return overlaps;
            }
            if !laptop.contains(&codespace) && !codespace.contains(laptop) {
                continue;
            }
            let overlap = Overlap { laptop: *laptop, interface: interface.clone(), codespace };
            if forwarded.overlaps(overlap.shared()) && !overlaps.contains(&overlap) {
                overlaps.push(overlap);
            }
        }
    }
    overlaps
}
