//! The difference between two snapshots, with a readable description of each change. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use gh_net_common::netlink::{Address, Route, RouteKind};

use super::snapshot::{Link, Rule, RuleAction, Snapshot};

/// Maximum number of changes in the text of a [`Delta`].
const SHOWN: usize = 5;

/// All that changed from one snapshot to another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Delta {
    /// The changes: links first, then addresses, routes, rules.
    pub changes: Vec<Change>,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A link is new.
    LinkAdded(String),
    /// A link is gone.
    LinkRemoved(String),
    /// A link has another name, kind or master.
    LinkChanged(String),
    /// A link can carry packets now.
    LinkUp(String),
    /// A link can't carry packets any more.
    LinkDown(String),
    /// The laptop has a new address.
    AddressAdded {
        /// The address.
        address: Address,
        /// Its link's name.
        link: String,
    },
    /// The laptop has lost an address.
    AddressRemoved {
        /// The address.
        address: Address,
        /// Its link's name.
        link: String,
    },
    /// A route is new.
    RouteAdded {
        /// The route.
        route: Route,
        /// The names of its links.
        links: Vec<String>,
    },
    /// A route is gone.
    RouteRemoved {
        /// The route.
        route: Route,
        /// The names of its links.
        links: Vec<String>,
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

    fn between(before: &Snapshot, after: &Snapshot) -> Self {
        let mut changes = link_changes(before, after);
        let address =
            |snapshot: &Snapshot, address: &Address| (address.clone(), snapshot.link_name(address.link));
        let (gone, new) = difference(&before.addresses, &after.addresses);
        changes.extend(gone.into_iter().map(|it| {
            let (address, link) = address(before, it);
            Change::AddressRemoved { address, link }
        }));
        changes.extend(new.into_iter().map(|it| {
            let (address, link) = address(after, it);
            Change::AddressAdded { address, link }
        }));
        let (gone, new) = difference(&before.routes, &after.routes);
        changes.extend(
            gone.into_iter()
                .map(|route| Change::RouteRemoved { route: route.clone(), links: link_names(before, route) }),
        );
        changes.extend(
            new.into_iter()
                .map(|route| Change::RouteAdded { route: route.clone(), links: link_names(after, route) }),
        );
        let (gone, new) = difference(&before.rules, &after.rules);
        changes.extend(gone.into_iter().cloned().map(Change::RuleRemoved));
        changes.extend(new.into_iter().cloned().map(Change::RuleAdded));
        Self { changes }
    }
}

fn link_changes(before: &Snapshot, after: &Snapshot) -> Vec<Change> {
    let (old, new) = (links_by_index(before), links_by_index(after));
    let usable = |link: &Link| link.flags.up && link.flags.running;
    let mut changes = Vec::new();
    for link in old.values().filter(|link| !new.contains_key(&link.index)) {
        changes.push(Change::LinkRemoved(link.name.clone()));
    }
    for link in new.values() {
        let name = || link.name.clone();
        let Some(was) = old.get(&link.index) else {
            changes.push(Change::LinkAdded(name()));
            continue;
        };
        if (&was.name, &was.kind, was.master) != (&link.name, &link.kind, link.master) {
            changes.push(Change::LinkChanged(name()));
        }
        match (usable(was), usable(link)) {
            (false, true) => changes.push(Change::LinkUp(name())),
            (true, false) => changes.push(Change::LinkDown(name())),
            (true, true) | (false, false) => {}
        }
    }
    changes
}

fn links_by_index(snapshot: &Snapshot) -> BTreeMap<u32, &Link> {
    snapshot.links.iter().map(|link| (link.index, link)).collect()
}

fn link_names(snapshot: &Snapshot, route: &Route) -> Vec<String> {
    route.hops.iter().map(|hop| snapshot.link_name(hop.link)).collect()
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
            Self::LinkAdded(name) => write!(f, "link {name} added"),
            Self::LinkRemoved(name) => write!(f, "link {name} removed"),
            Self::LinkChanged(name) => write!(f, "link {name} changed"),
            Self::LinkUp(name) => write!(f, "link {name} came up"),
            Self::LinkDown(name) => write!(f, "link {name} went down"),
            Self::AddressAdded { address, link } => write!(f, "address {} on {link} added", address.address),
            Self::AddressRemoved { address, link } => {
                write!(f, "address {} on {link} removed", address.address)
            }
            Self::RouteAdded { route, links } => write!(f, "{} added", RouteWords(route, links)),
            Self::RouteRemoved { route, links } => write!(f, "{} removed", RouteWords(route, links)),
            Self::RuleAdded(rule) => write!(f, "{} added", RuleWords(rule)),
            Self::RuleRemoved(rule) => write!(f, "{} removed", RuleWords(rule)),
        }
    }
}

struct RouteWords<'a>(&'a Route, &'a [String]);

impl fmt::Display for RouteWords<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(route, links) = self;
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
        if links.is_empty() { Ok(()) } else { write!(f, " via {}", links.join(" and ")) }
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
