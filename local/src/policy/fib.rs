//! The laptop's forwarding information base (FIB): where its kernel sends a packet, its rules and routing tables as
//! one map. Pure.
//!
//! This is the kernel's own lookup (`fib_rules_lookup`, `fib_table_lookup`), done for all destinations at once: the
//! rules in their order, the longest prefix in each table, and the first table with a match wins. A VPN often has a
//! table of its own (52 for Tailscale, 51820 for wg-quick), before or after main, so looking at main alone, or at all
//! tables alike, would be wrong.
//!
//! A *default* route only says that nothing more specific matched. A route can be one without looking like it:
//! - 0.0.0.0/1 and 128.0.0.0/1 (OpenVPN's `redirect-gateway def1`), ::/1 and 8000::/1, 2000::/3, or a long list that
//!   leaves out a few networks (WireGuard's AllowedIPs): routes of one interface that together cover half of the
//!   address space. Those that no other of them contains are defaults; the more specific ones are real networks.
//! - A host route to a public address by the default's own next hop: VPN clients add one to reach their server. It
//!   leads where the default leads.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;

use ipnet::IpNet;

use super::prefix_map::PrefixMap;
use super::ranges::{ALL_V4, ALL_V6, private_ranges};
use crate::engine::InterfaceIndex;
use crate::netwatch::{
    DEFAULT_TABLE, Interface, InterfaceKind, LOCAL_TABLE, MAIN_TABLE, NextHop, Route, RouteKind, RuleAction,
    Snapshot,
};

/// The result of the kernel's route lookup for a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lookup {
    /// A network, reached by this interface if it is a single one.
    Network(Option<InterfaceIndex>),
    /// The default route.
    Default {
        /// The interface, if it is a single one.
        interface: Option<InterfaceIndex>,
        /// Whether the route does not look like a default.
        disguised: bool,
    },
    /// A destination on this machine: its own containers and virtual machines.
    Internal,
    /// Packets are dropped, by a route with a prefix of this length.
    Blocked(u8),
}

/// A routing policy rule that applies to our packets.
struct Step {
    action: RuleAction,
    /// The destinations it names.
    named: IpNet,
    /// The destinations it applies to: what it names, or everything else if it is inverted.
    destinations: PrefixMap<()>,
}

/// The lookup's result for every destination, and the routes that it comes from.
#[derive(Debug, Default)]
pub(super) struct Fib {
    pub(super) map: PrefixMap<Lookup>,
    pub(super) routes: Vec<(IpNet, Lookup)>,
}

impl Fib {
    pub(super) fn of(snapshot: &Snapshot) -> Self {
        let tables = Tables::new(snapshot);
        let mut fib = Self::default();
        for v6 in [false, true] {
            let family = tables.family(v6, &mut fib.routes);
            fib.map = fib.map.or(&family);
        }
        fib
    }
}

struct Tables<'a> {
    snapshot: &'a Snapshot,
    internal: BTreeSet<u32>,
    default_hops: BTreeSet<&'a NextHop>,
}

impl<'a> Tables<'a> {
    fn new(snapshot: &'a Snapshot) -> Self {
        let internal =
            snapshot.interfaces.iter().filter(|interface| is_internal(interface, &snapshot.interfaces));
        let defaults = snapshot.routes.iter().filter(|route| is_default(route));
        Self {
            snapshot,
            internal: internal.map(|interface| interface.index).collect(),
            default_hops: defaults.flat_map(|route| &route.hops).collect(),
        }
    }

    fn family(&self, v6: bool, routes: &mut Vec<(IpNet, Lookup)>) -> PrefixMap<Lookup> {
        let all = if v6 { ALL_V6 } else { ALL_V4 };
        let mut map = PrefixMap::default();
        for step in self.steps(v6, all) {
            let found = match step.action {
                RuleAction::Table { table, suppress } => {
                    let table = self.table(v6, table, suppress).into_iter();
                    let table =
                        table.map(|(prefix, found)| (prefix, found.map(|it| self.adjusted(it, step.named))));
                    let table: Vec<_> = table.collect();
                    routes.extend(table.iter().filter_map(|(prefix, found)| {
                        let known = if prefix.contains(&step.named) { step.named } else { *prefix };
                        Some((known, (*found)?))
                    }));
                    // A throw route has no result: it hides wider routes, and the lookup goes on in the next table.
                    PrefixMap::longest_prefix(table).filter_map(|found| *found)
                }
                RuleAction::Blocked => {
                    PrefixMap::longest_prefix([(all, self.adjusted(Lookup::Blocked(0), step.named))])
                }
                RuleAction::Other => continue,
            };
            map = map.or(&found.within(&step.destinations));
        }
        map
    }

    /// Adjusts a result to the rule that selected its table: if the rule names destinations, a default route is a route
    /// to these, and a block is as narrow as the rule.
    fn adjusted(&self, found: Lookup, named: IpNet) -> Lookup {
        let inside = |interface: InterfaceIndex| self.internal.contains(&interface.get());
        match found {
            Lookup::Default { interface, .. } if named.prefix_len() > 0 => {
                if interface.is_some_and(inside) {
                    Lookup::Internal
                } else {
                    Lookup::Network(interface)
                }
            }
            Lookup::Blocked(length) => Lookup::Blocked(length.max(named.prefix_len())),
            Lookup::Default { .. } | Lookup::Network(_) | Lookup::Internal => found,
        }
    }

    /// The steps of the lookup, in order. `all` is the family's default prefix.
    fn steps(&self, v6: bool, all: IpNet) -> Vec<Step> {
        let mut rules: Vec<_> = self.snapshot.rules.iter().filter(|rule| rule.v6 == v6).collect();
        if rules.is_empty() {
            // A kernel without policy routing uses these tables (fib_frontend.c).
            let step = |table| {
                let action = RuleAction::Table { table, suppress: None };
                Step { action, named: all, destinations: PrefixMap::from_prefixes([all]) }
            };
            return vec![step(MAIN_TABLE), step(DEFAULT_TABLE)];
        }
        rules.sort_by_key(|rule| rule.priority);
        // The local table holds the laptop's own addresses, which are refused one by one.
        let local = |action| matches!(action, RuleAction::Table { table: LOCAL_TABLE, .. });
        let steps = rules.into_iter().filter(|rule| !local(rule.action)).map(|rule| {
            let to = rule.destination.unwrap_or(all).trunc();
            let named = PrefixMap::from_prefixes(rule.matches.then_some(to));
            let destinations =
                if rule.inverted { PrefixMap::from_prefixes([all]).without(&named) } else { named };
            Step { action: rule.action, named: if rule.inverted { all } else { to }, destinations }
        });
        steps.filter(|step| !step.destinations.is_empty()).collect()
    }

    /// The entries of one table, one for each prefix.
    fn table(&self, v6: bool, table: u32, suppress: Option<u8>) -> Vec<(IpNet, Option<Lookup>)> {
        let mut best: BTreeMap<IpNet, Route> = BTreeMap::new();
        for route in self.snapshot.routes.iter().filter(|route| route.table == table) {
            let prefix = route.prefix;
            if prefix.addr().is_ipv6() != v6 || suppress.is_some_and(|most| prefix.prefix_len() <= most) {
                continue;
            }
            match best.get_mut(&prefix) {
                Some(best) if best.metric < route.metric => {}
                // The next hops of an IPv6 multipath route come as routes of equal metric.
                Some(best) if best.metric == route.metric => best.hops.extend_from_slice(&route.hops),
                _ => {
                    best.insert(prefix, route.clone());
                }
            }
        }
        let disguised = disguised_defaults(best.values());
        best.values().map(|route| (route.prefix, self.lookup(route, &disguised))).collect()
    }

    fn lookup(&self, route: &Route, disguised: &BTreeSet<IpNet>) -> Option<Lookup> {
        let length = route.prefix.prefix_len();
        match route.kind {
            RouteKind::Throw => None,
            RouteKind::Blocked => Some(Lookup::Blocked(length)),
            RouteKind::Unicast => Some(self.unicast(route, disguised)),
            RouteKind::Local
            | RouteKind::Broadcast
            | RouteKind::Anycast
            | RouteKind::Multicast
            | RouteKind::Other => Some(Lookup::Internal),
        }
    }

    fn unicast(&self, route: &Route, disguised: &BTreeSet<IpNet>) -> Lookup {
        let interface = single_interface(route);
        let inside = |hop: &NextHop| self.internal.contains(&hop.interface);
        if disguised.contains(&route.prefix) {
            Lookup::Default { interface, disguised: true }
        } else if is_default(route) || self.is_pin(route) {
            Lookup::Default { interface, disguised: false }
        } else if !route.hops.is_empty() && route.hops.iter().all(inside) {
            Lookup::Internal
        } else {
            Lookup::Network(interface)
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
    rest.iter()
        .all(|hop| hop.interface == first.interface)
        .then(|| NonZeroU32::new(first.interface))
        .flatten()
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
        let (v4, v6) = PrefixMap::from_prefixes(prefixes.iter().copied()).sizes();
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

/// Whether the interface leads to this machine only.
fn is_internal(interface: &Interface, interfaces: &[Interface]) -> bool {
    match &interface.kind {
        InterfaceKind::Loopback => true,
        InterfaceKind::Bridge => {
            let mut members = interfaces.iter().filter(|member| member.master == Some(interface.index));
            is_engine_bridge(&interface.name) && !members.any(leads_out)
        }
        // The host's end of a container's link. A veth that somebody made by hand has another name.
        InterfaceKind::Veth => ["veth", "cali"].iter().any(|kind| is_generated(&interface.name, kind, 6)),
        InterfaceKind::Hardware
        | InterfaceKind::Tun
        | InterfaceKind::WireGuard
        | InterfaceKind::Tunnel
        | InterfaceKind::Other(_) => false,
    }
}

/// Whether a bridge's name is one that Docker, libvirt, Podman, CNI, LXC, LXD or Incus generates.
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
fn leads_out(member: &Interface) -> bool {
    match &member.kind {
        InterfaceKind::Hardware => true,
        InterfaceKind::Other(kind) => ["vlan", "bond", "team"].contains(&kind.as_str()),
        InterfaceKind::Loopback
        | InterfaceKind::Bridge
        | InterfaceKind::Veth
        | InterfaceKind::Tun
        | InterfaceKind::WireGuard
        | InterfaceKind::Tunnel => false,
    }
}
