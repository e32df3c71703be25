//! The difference between two snapshots, with a readable description of each change. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use gh_net_common::netlink::{Address, Route, RouteKind};

use super::snapshot::{Interface, Rule, RuleAction, Snapshot};

/// Maximum number of changes in the text of a [`Delta`].
const SHOWN: usize = 5;

/// All that changed from one snapshot to another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Delta {
    /// The changes: interfaces first, then addresses, routes, rules.
    pub changes: Vec<Change>,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// An interface is new.
    InterfaceAdded(String),
    /// An interface is gone.
    InterfaceRemoved(String),
    /// An interface has another name, kind or master.
    InterfaceChanged(String),
    /// An interface can carry packets now.
    InterfaceUp(String),
    /// An interface can't carry packets any more.
    InterfaceDown(String),
    /// The laptop has a new address.
    AddressAdded {
        /// The address.
        address: Address,
        /// Its interface's name.
        interface: String,
    },
    /// The laptop has lost an address.
    AddressRemoved {
        /// The address.
        address: Address,
        /// Its interface's name.
        interface: String,
    },
    /// A route is new.
    RouteAdded {
        /// The route.
        route: Route,
        /// The names of its interfaces.
        interfaces: Vec<String>,
    },
    /// A route is gone.
    RouteRemoved {
        /// The route.
        route: Route,
        /// The names of its interfaces.
        interfaces: Vec<String>,
    },
    /// A rule is new.
    RuleAdded(Rule),
    /// A rule is gone.
    RuleRemoved(Rule),
}

impl Snapshot {
    /// What changed from this snapshot to a later one.
    pub fn delta(&self, later: &Self) -> Delta {
        Delta::between(self, later)
    }
}

impl Delta {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Whether packets may go another way now, so that another server may be asked for a name, or may answer otherwise.
    /// What happens on one link only is left out: each container on this machine brings such an address.
    pub fn moves_packets(&self) -> bool {
        self.changes.iter().any(|change| match change {
            Change::AddressAdded { address, .. } | Change::AddressRemoved { address, .. } => {
                !is_link_local(address.address.addr())
            }
            Change::RouteAdded { route, .. } | Change::RouteRemoved { route, .. } => {
                !is_link_local(route.prefix.addr()) && !route.prefix.addr().is_multicast()
            }
            Change::RuleAdded(_) | Change::RuleRemoved(_) => true,
            Change::InterfaceAdded(_)
            | Change::InterfaceRemoved(_)
            | Change::InterfaceChanged(_)
            | Change::InterfaceUp(_)
            | Change::InterfaceDown(_) => false,
        })
    }

    fn between(before: &Snapshot, after: &Snapshot) -> Self {
        let mut changes = interface_changes(before, after);
        let address = |snapshot: &Snapshot, address: &Address| {
            (address.clone(), snapshot.interface_name(address.interface))
        };
        let (gone, new) = difference(&before.addresses, &after.addresses);
        changes.extend(gone.into_iter().map(|it| {
            let (address, interface) = address(before, it);
            Change::AddressRemoved { address, interface }
        }));
        changes.extend(new.into_iter().map(|it| {
            let (address, interface) = address(after, it);
            Change::AddressAdded { address, interface }
        }));
        let (gone, new) = difference(&before.routes, &after.routes);
        changes.extend(gone.into_iter().map(|route| Change::RouteRemoved {
            route: route.clone(),
            interfaces: interface_names(before, route),
        }));
        changes.extend(new.into_iter().map(|route| Change::RouteAdded {
            route: route.clone(),
            interfaces: interface_names(after, route),
        }));
        let (gone, new) = difference(&before.rules, &after.rules);
        changes.extend(gone.into_iter().cloned().map(Change::RuleRemoved));
        changes.extend(new.into_iter().cloned().map(Change::RuleAdded));
        Self { changes }
    }
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

fn interface_changes(before: &Snapshot, after: &Snapshot) -> Vec<Change> {
    let (old, new) = (interfaces_by_index(before), interfaces_by_index(after));
    let usable = |interface: &Interface| interface.flags.up && interface.flags.running;
    let mut changes = Vec::new();
    for interface in old.values().filter(|interface| !new.contains_key(&interface.index)) {
        changes.push(Change::InterfaceRemoved(interface.name.clone()));
    }
    for interface in new.values() {
        let name = || interface.name.clone();
        let Some(was) = old.get(&interface.index) else {
            changes.push(Change::InterfaceAdded(name()));
            continue;
        };
        if (&was.name, &was.kind, was.master) != (&interface.name, &interface.kind, interface.master) {
            changes.push(Change::InterfaceChanged(name()));
        }
        match (usable(was), usable(interface)) {
            (false, true) => changes.push(Change::InterfaceUp(name())),
            (true, false) => changes.push(Change::InterfaceDown(name())),
            (true, true) | (false, false) => {}
        }
    }
    changes
}

fn interfaces_by_index(snapshot: &Snapshot) -> BTreeMap<u32, &Interface> {
    snapshot.interfaces.iter().map(|interface| (interface.index, interface)).collect()
}

fn interface_names(snapshot: &Snapshot, route: &Route) -> Vec<String> {
    route.hops.iter().map(|hop| snapshot.interface_name(hop.interface)).collect()
}

/// What is only in the first list, and what is only in the second.
fn difference<'a, T: Ord>(before: &'a [T], after: &'a [T]) -> (Vec<&'a T>, Vec<&'a T>) {
    let (before, after): (BTreeSet<_>, BTreeSet<_>) = (before.iter().collect(), after.iter().collect());
    let gone = before.difference(&after).copied().collect();
    let new = after.difference(&before).copied().collect();
    (gone, new)
}

impl fmt::Display for Delta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, change) in self.changes.iter().take(SHOWN).enumerate() {
            let separator = if position == 0 { "" } else { ", " };
            write!(f, "{separator}{change}")?;
        }
        match self.changes.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, ", and {more} more"),
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InterfaceAdded(name) => write!(f, "interface {name} added"),
            Self::InterfaceRemoved(name) => write!(f, "interface {name} removed"),
            Self::InterfaceChanged(name) => write!(f, "interface {name} changed"),
            Self::InterfaceUp(name) => write!(f, "interface {name} came up"),
            Self::InterfaceDown(name) => write!(f, "interface {name} went down"),
            Self::AddressAdded { address, interface } => {
                write!(f, "address {} on {interface} added", address.address)
            }
            Self::AddressRemoved { address, interface } => {
                write!(f, "address {} on {interface} removed", address.address)
            }
            Self::RouteAdded { route, interfaces } => write!(f, "{} added", RouteWords(route, interfaces)),
            Self::RouteRemoved { route, interfaces } => {
                write!(f, "{} removed", RouteWords(route, interfaces))
            }
            Self::RuleAdded(rule) => write!(f, "{} added", RuleWords(rule)),
            Self::RuleRemoved(rule) => write!(f, "{} removed", RuleWords(rule)),
        }
    }
}

struct RouteWords<'a>(&'a Route, &'a [String]);

impl fmt::Display for RouteWords<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(route, interfaces) = self;
        match route.kind {
            RouteKind::Unicast => f.write_str("route ")?,
            RouteKind::Blocked => f.write_str("blocking route ")?,
            RouteKind::Local
            | RouteKind::Broadcast
            | RouteKind::Anycast
            | RouteKind::Multicast
            | RouteKind::Throw
            | RouteKind::Other => write!(f, "{} route ", format!("{:?}", route.kind).to_lowercase())?,
        }
        if route.prefix.prefix_len() == 0 {
            f.write_str(if route.prefix.addr().is_ipv4() { "default" } else { "default (IPv6)" })?;
        } else {
            write!(f, "{}", route.prefix)?;
        }
        if interfaces.is_empty() { Ok(()) } else { write!(f, " via {}", interfaces.join(" and ")) }
    }
}

struct RuleWords<'a>(&'a Rule);

impl fmt::Display for RuleWords<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Rule { v6, priority, action, .. } = self.0;
        write!(f, "{} rule {priority}", if *v6 { "IPv6" } else { "IPv4" })?;
        match action {
            RuleAction::Table { table, .. } => write!(f, " to table {table}"),
            RuleAction::Blocked => f.write_str(" that blocks"),
            RuleAction::Other => Ok(()),
        }
    }
}
