//! Where the laptop's kernel would send a packet: its rules and routing tables as one map. Pure.
//!
//! This is the kernel's own look-up (`fib_rules_lookup`, `fib_table_lookup`), done for all destinations at
//! once: the rules in their order, in each table the longest prefix, the first table that knows a way wins. A VPN
//! often lives in a table of its own (52 for Tailscale, 51820 for wg-quick), before or behind main, so looking at
//! main alone, or at all tables alike, would be wrong.
//!
//! A *default* way is one that says nothing about a destination but that it is not known better. A route can be
//! one without looking like it:
//! - 0.0.0.0/1 and 128.0.0.0/1 (OpenVPN's `redirect-gateway def1`), ::/1 and 8000::/1, 2000::/3, or a long list
//!   that leaves out a few networks (WireGuard's AllowedIPs): routes of one interface that cover half of all there
//!   is. Of these the ones that no other of them contains are defaults; the more specific ones are meant.
//! - A host route to a public address by the default's own next hop: how VPN clients keep the way to their
//!   server. It leads where the default leads.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;

use ipnet::IpNet;

use super::space::Space;
use super::{InterfaceIndex, private_ranges};
use crate::netwatch::{
    DEFAULT_TABLE, LOCAL_TABLE, Link, LinkKind, MAIN_TABLE, NextHop, Route, RouteKind, RuleAction, Snapshot,
};

/// What the kernel does with packets to a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// It knows a network there, by this interface if it is a single one.
    Network(Option<InterfaceIndex>),
    /// It sends them where it sends all it does not know.
    Default {
        /// The interface, if it is a single one.
        interface: Option<InterfaceIndex>,
        /// Whether the route does not look like a default.
        disguised: bool,
    },
    /// They stay on this machine: its own containers and virtual machines.
    Internal,
    /// It drops them, by a route with a prefix of this length.
    Blocked(u8),
}

/// A rule that concerns us.
struct Step {
    action: RuleAction,
    /// The destinations it names.
    named: IpNet,
    /// The destinations it is for: what it names, or all else.
    destinations: Space<()>,
}

/// All ways, and the prefixes of the routes that name networks.
#[derive(Debug, Default)]
pub(super) struct Ways {
    pub(super) space: Space<Way>,
    pub(super) routes: Vec<(IpNet, Way)>,
}

impl Ways {
    pub(super) fn of(snapshot: &Snapshot) -> Self {
        let map = Map::new(snapshot);
        let mut ways = Self::default();
        for v6 in [false, true] {
            // Whatever the families' rules are, a prefix is of one family.
            let family = map.family(v6, &mut ways.routes);
            ways.space = ways.space.or(&family);
        }
        ways
    }
}

struct Map<'a> {
    snapshot: &'a Snapshot,
    internal: BTreeSet<u32>,
    default_hops: BTreeSet<&'a NextHop>,
}

impl<'a> Map<'a> {
    fn new(snapshot: &'a Snapshot) -> Self {
        let internal = snapshot.links.iter().filter(|link| is_internal(link, &snapshot.links));
        let defaults = snapshot.routes.iter().filter(|route| is_default(route));
        Self {
            snapshot,
            internal: internal.map(|link| link.index).collect(),
            default_hops: defaults.flat_map(|route| &route.hops).collect(),
        }
    }

    fn family(&self, v6: bool, routes: &mut Vec<(IpNet, Way)>) -> Space<Way> {
        let all = if v6 { super::ALL_V6 } else { super::ALL_V4 };
        let mut space = Space::default();
        for step in self.steps(v6, all) {
            let found = match step.action {
                RuleAction::Table { table, suppress } => {
                    let table = self.table(v6, table, suppress);
                    let table = table
                        .into_iter()
                        .map(|(prefix, way)| (prefix, way.map(|it| self.seen_by(it, step.named))));
                    let table: Vec<_> = table.collect();
                    routes.extend(table.iter().filter_map(|(prefix, way)| {
                        let known = if prefix.contains(&step.named) { step.named } else { *prefix };
                        Some((known, (*way)?))
                    }));
                    // A throw route is an entry without a way: it hides wider ones, and the look-up goes on.
                    Space::longest_prefix(table).filter_map(|way| *way)
                }
                RuleAction::Blocked => {
                    Space::longest_prefix([(all, self.seen_by(Way::Blocked(0), step.named))])
                }
                RuleAction::Other => continue,
            };
            space = space.or(&found.within(&step.destinations));
        }
        space
    }

    /// The way, found by a rule that names the destinations it is for: a default among them is a network, and
    /// a block is as narrow as the rule.
    fn seen_by(&self, way: Way, named: IpNet) -> Way {
        let inside = |interface: InterfaceIndex| self.internal.contains(&interface.get());
        match way {
            Way::Default { interface, .. } if named.prefix_len() > 0 => {
                if interface.is_some_and(inside) {
                    Way::Internal
                } else {
                    Way::Network(interface)
                }
            }
            Way::Blocked(length) => Way::Blocked(length.max(named.prefix_len())),
            Way::Default { .. } | Way::Network(_) | Way::Internal => way,
        }
    }

    /// What is looked into, in which order, and for which destinations. `all` is the family's default prefix.
    fn steps(&self, v6: bool, all: IpNet) -> Vec<Step> {
        let mut rules: Vec<_> = self.snapshot.rules.iter().filter(|rule| rule.v6 == v6).collect();
        if rules.is_empty() {
            // A kernel without policy routing looks into these (fib_frontend.c).
            let step = |table| {
                let action = RuleAction::Table { table, suppress: None };
                Step { action, named: all, destinations: Space::of([all]) }
            };
            return vec![step(MAIN_TABLE), step(DEFAULT_TABLE)];
        }
        rules.sort_by_key(|rule| rule.priority);
        // The local table holds the laptop's own addresses, of which `verdict` takes care one by one.
        let local = |action| matches!(action, RuleAction::Table { table: LOCAL_TABLE, .. });
        let steps = rules.into_iter().filter(|rule| !local(rule.action)).map(|rule| {
            let to = rule.destination.unwrap_or(all).trunc();
            let named = Space::of(rule.matches.then_some(to));
            let destinations = if rule.inverted { Space::of([all]).without(&named) } else { named };
            Step { action: rule.action, named: if rule.inverted { all } else { to }, destinations }
        });
        steps.filter(|step| !step.destinations.is_empty()).collect()
    }

    /// The entries of one table: one for each prefix.
    fn table(&self, v6: bool, table: u32, suppress: Option<u8>) -> Vec<(IpNet, Option<Way>)> {
        let mut best: BTreeMap<IpNet, Route> = BTreeMap::new();
        for route in self.snapshot.routes.iter().filter(|route| route.table == table) {
            let prefix = route.prefix;
            if prefix.addr().is_ipv6() != v6 || suppress.is_some_and(|most| prefix.prefix_len() <= most) {
                continue;
            }
            match best.get_mut(&prefix) {
                Some(best) if best.metric < route.metric => {}
                // The ways of an IPv6 route over several come as routes of equal metric.
                Some(best) if best.metric == route.metric => best.hops.extend_from_slice(&route.hops),
                _ => {
                    best.insert(prefix, route.clone());
                }
            }
        }
        let disguised = disguised_defaults(best.values());
        best.values().map(|route| (route.prefix, self.way(route, &disguised))).collect()
    }

    fn way(&self, route: &Route, disguised: &BTreeSet<IpNet>) -> Option<Way> {
        let length = route.prefix.prefix_len();
        match route.kind {
            RouteKind::Throw => None,
            RouteKind::Blocked => Some(Way::Blocked(length)),
            RouteKind::Unicast => Some(self.unicast(route, disguised)),
            RouteKind::Local
            | RouteKind::Broadcast
            | RouteKind::Anycast
            | RouteKind::Multicast
            | RouteKind::Other => Some(Way::Internal),
        }
    }

    fn unicast(&self, route: &Route, disguised: &BTreeSet<IpNet>) -> Way {
        let interface = single_interface(route);
        let inside = |hop: &NextHop| self.internal.contains(&hop.link);
        if disguised.contains(&route.prefix) {
            Way::Default { interface, disguised: true }
        } else if is_default(route) || self.is_pin(route) {
            Way::Default { interface, disguised: false }
        } else if !route.hops.is_empty() && route.hops.iter().all(inside) {
            Way::Internal
        } else {
            Way::Network(interface)
        }
    }

    /// Whether this is a host route that leads where the default leads.
    fn is_pin(&self, route: &Route) -> bool {
        route.prefix.prefix_len() == route.prefix.max_prefix_len()
            && !is_private(route.prefix)
            && !route.hops.is_empty()
            && route.hops.iter().all(|hop| self.default_hops.contains(hop))
    }
}

fn is_default(route: &Route) -> bool {
    route.kind == RouteKind::Unicast && route.prefix.prefix_len() == 0
}

fn is_private(prefix: IpNet) -> bool {
    private_ranges().any(|range| range.contains(&prefix))
}

fn single_interface(route: &Route) -> Option<InterfaceIndex> {
    let (first, rest) = route.hops.split_first()?;
    rest.iter().all(|hop| hop.link == first.link).then(|| NonZeroU32::new(first.link)).flatten()
}

/// The prefixes of routes that together make an interface the default one. `routes` are of one table and
/// family.
fn disguised_defaults<'a>(routes: impl Iterator<Item = &'a Route>) -> BTreeSet<IpNet> {
    let mut by_interface: BTreeMap<InterfaceIndex, Vec<IpNet>> = BTreeMap::new();
    for route in routes.filter(|route| route.kind == RouteKind::Unicast && !is_default(route)) {
        if let Some(interface) = single_interface(route).filter(|_| !is_private(route.prefix)) {
            by_interface.entry(interface).or_default().push(route.prefix);
        }
    }
    let mut defaults = BTreeSet::new();
    for mut prefixes in by_interface.into_values() {
        let (v4, v6) = Space::of(prefixes.iter().copied()).sizes();
        // Half of IPv4; half of what is in use of IPv6 (2000::/3).
        if v4 >= 1 << 31 || v6 >= 1 << 124 {
            // Sorted, a prefix stands behind all that contain it.
            prefixes.sort();
            let mut widest: Option<IpNet> = None;
            for prefix in prefixes {
                if widest.is_none_or(|widest| !widest.contains(&prefix)) {
                    widest = Some(prefix);
                    defaults.insert(prefix);
                }
            }
        }
    }
    defaults
}

/// Whether what is behind the link is on this machine.
fn is_internal(link: &Link, links: &[Link]) -> bool {
    match &link.kind {
        LinkKind::Loopback => true,
        LinkKind::Bridge => {
            let mut members = links.iter().filter(|member| member.master == Some(link.index));
            is_engine_bridge(&link.name) && !members.any(leads_out)
        }
        // The host's end of a container's cable; a cable that somebody laid by hand has a name of its own.
        LinkKind::Veth => ["veth", "cali"].iter().any(|kind| is_generated(&link.name, kind, 6)),
        LinkKind::Hardware | LinkKind::Tun | LinkKind::WireGuard | LinkKind::Tunnel | LinkKind::Other(_) => {
            false
        }
    }
}

/// Whether a bridge's name is one that Docker, libvirt, Podman, CNI, LXC, LXD or Incus gives.
fn is_engine_bridge(name: &str) -> bool {
    const PREFIXES: [&str; 7] = ["docker", "virbr", "podman", "cni", "lxcbr", "lxdbr", "incusbr"];
    PREFIXES.iter().any(|prefix| name.starts_with(prefix)) || is_generated(name, "br-", 12)
}

/// Whether the name is `prefix` and at least so many hexadecimal digits.
fn is_generated(name: &str, prefix: &str, digits: usize) -> bool {
    let rest = name.strip_prefix(prefix);
    rest.is_some_and(|rest| rest.len() >= digits && rest.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Whether a bridge with this member reaches beyond the machine.
fn leads_out(member: &Link) -> bool {
    match &member.kind {
        LinkKind::Hardware => true,
        LinkKind::Other(kind) => ["vlan", "bond", "team"].contains(&kind.as_str()),
        LinkKind::Loopback
        | LinkKind::Bridge
        | LinkKind::Veth
        | LinkKind::Tun
        | LinkKind::WireGuard
        | LinkKind::Tunnel => false,
    }
}
