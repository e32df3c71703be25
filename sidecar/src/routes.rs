//! The gateway hook: which packets of the codespace take the tunnel. This module is the plan, and pure;
//! [`netlink`] carries it out.
//!
//! Two rules a family, behind `local` and before `main`:
//!
//! ```text
//! 30000: from all lookup main suppress_prefixlength 0    every route of the codespace but its default wins
//! 30001: from all lookup 26727                           then ours
//! 32766: from all lookup main                            then its default
//! ```
//!
//! `main` is never edited. In our own table, a network of the laptop is a route to the tunnel's device. What
//! must never enter the tunnel, whatever routes arrive, is a `throw` route in the same table: the lookup
//! then goes on with the next rule, as if our table were not there. Being of the longest prefix they win
//! over any network of the laptop that holds them. They are what carries us (the peer of the ssh connection,
//! the codespace's default gateways, its own resolvers) and what belongs to no network but the machine's own
//! (loopback, link-local with the metadata service, multicast).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use gh_net_common::frame::{self, Families, TunnelAddress};
use gh_net_common::reserved;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub(crate) mod netlink;

/// Our own routing table.
pub(crate) const TABLE: u32 = 26_727;
/// The priority of the first of our two rules; the second has the next. The kernel's own rules are 0
/// (local), 32766 (main) and 32767 (default).
pub(crate) const PRIORITY: u32 = 30_000;
/// The networks of the laptop that are taken at most.
pub(crate) const MAX_ROUTES: usize = 16_384;

/// A routing rule of ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rule {
    /// IPv6, else IPv4.
    pub(crate) v6: bool,
    /// Its place among the rules.
    pub(crate) priority: u32,
    /// The table that is looked up.
    pub(crate) table: u32,
    /// Whether what the lookup finds is not taken if it is a default route.
    pub(crate) but_default: bool,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = if self.v6 { "IPv6" } else { "IPv4" };
        write!(f, "{} (lookup {}, {family})", self.priority, self.table)
    }
}

/// The rules of the hook.
pub(crate) fn rules(families: Families) -> Vec<Rule> {
    const MAIN: u32 = 254;
    let mut rules = Vec::new();
    for (v6, wanted) in [(false, families.v4), (true, families.v6)] {
        if wanted {
            rules.push(Rule { v6, priority: PRIORITY, table: MAIN, but_default: true });
            rules.push(Rule { v6, priority: PRIORITY + 1, table: TABLE, but_default: false });
        }
    }
    rules
}

/// What becomes of a packet that our table has a route for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// It takes the tunnel.
    Tunnel,
    /// It goes the way it would go without us.
    Around,
}

/// The content of our table.
pub(crate) type Table = BTreeMap<IpNet, Way>;

/// How to get from one table to another.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Diff {
    /// Routes to take away, first.
    pub(crate) remove: Vec<(IpNet, Way)>,
    /// Routes to add.
    pub(crate) add: Vec<(IpNet, Way)>,
}

/// What changes `old` into `new`. What goes around the tunnel is added before what goes through it.
pub(crate) fn diff(old: &Table, new: &Table) -> Diff {
    let missing_in =
        |other: &Table, (net, way): (&IpNet, &Way)| (other.get(net) != Some(way)).then_some((*net, *way));
    let mut add: Vec<_> = new.iter().filter_map(|route| missing_in(old, route)).collect();
    add.sort_by_key(|(_, way)| *way == Way::Tunnel);
    Diff { remove: old.iter().filter_map(|route| missing_in(new, route)).collect(), add }
}

/// Networks of the laptop that were not taken, and why. Counts, because there may be thousands.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refused {
    /// Of a family the tunnel does not have.
    pub(crate) family: usize,
    /// Loopback, link-local, multicast, or the tunnel's own prefix.
    pub(crate) never: usize,
    /// More than [`MAX_ROUTES`].
    pub(crate) surplus: usize,
}

/// What our table is to hold.
#[derive(Debug)]
pub(crate) struct Plan {
    families: Families,
    tunnel: Vec<TunnelAddress>,
    around: BTreeSet<IpNet>,
    laptop: BTreeSet<IpNet>,
    /// The parts of a full set that is not whole yet.
    parts: Option<Parts>,
}

/// The parts of a full set so far.
#[derive(Debug, Default)]
struct Parts {
    nets: Vec<IpNet>,
    surplus: usize,
}

impl Plan {
    /// A plan for a tunnel with these addresses, without any network of the laptop yet.
    pub(crate) fn new(tunnel: Vec<TunnelAddress>) -> Self {
        let has = |v6: bool| tunnel.iter().any(|address| address.gateway.is_ipv6() == v6);
        let families = Families { v4: has(false), v6: has(true) };
        Self { families, tunnel, around: BTreeSet::new(), laptop: BTreeSet::new(), parts: None }
    }

    /// The families the tunnel has.
    pub(crate) fn families(&self) -> Families {
        self.families
    }

    /// The addresses that carry us from now on.
    pub(crate) fn set_exceptions(&mut self, exceptions: impl IntoIterator<Item = IpAddr>) {
        self.around = exceptions
            .into_iter()
            .map(|address| IpNet::from(address.to_canonical()))
            .filter(|net| !reserved::contains(net) && self.has_family(net))
            .collect();
    }

    /// These carry us, too.
    pub(crate) fn add_exceptions(&mut self, exceptions: impl IntoIterator<Item = IpAddr>) {
        let known = self.around.iter().map(IpNet::addr).collect::<Vec<_>>();
        self.set_exceptions(known.into_iter().chain(exceptions));
    }

    /// Takes over the laptop's networks, or a change to them. The parts of a full set are collected until it is whole.
    pub(crate) fn update(&mut self, change: &frame::Routes) -> Refused {
        match change {
            frame::Routes::Change { add, remove } => {
                self.parts = None;
                for net in remove {
                    self.laptop.remove(&net.trunc());
                }
                self.add(add)
            }
            frame::Routes::Part(add) => {
                self.collect(add);
                Refused::default()
            }
            frame::Routes::Last(add) => {
                self.collect(add);
                self.laptop.clear();
                let Parts { nets, surplus } = self.parts.take().unwrap_or_default();
                let mut refused = self.add(&nets);
                refused.surplus += surplus;
                refused
            }
        }
    }

    /// Prefixes beyond what a set may hold are only counted.
    fn collect(&mut self, part: &[IpNet]) {
        let parts = self.parts.get_or_insert_default();
        let taken = part.len().min(MAX_ROUTES - parts.nets.len());
        parts.nets.extend(&part[..taken]);
        parts.surplus += part.len() - taken;
    }

    fn add(&mut self, add: &[IpNet]) -> Refused {
        let mut refused = Refused::default();
        for net in add.iter().map(IpNet::trunc) {
            if !self.has_family(&net) {
                refused.family += 1;
            } else if reserved::contains(&net) || self.is_own(&net) {
                refused.never += 1;
            } else if self.laptop.len() >= MAX_ROUTES && !self.laptop.contains(&net) {
                refused.surplus += 1;
            } else {
                self.laptop.insert(net);
            }
        }
        refused
    }

    /// The laptop's networks that are forwarded.
    pub(crate) fn laptop(&self) -> &BTreeSet<IpNet> {
        &self.laptop
    }

    /// The table that follows from all of it.
    pub(crate) fn table(&self) -> Table {
        let mut table = Table::new();
        table.extend(self.laptop.iter().map(|net| (*net, Way::Tunnel)));
        table.extend(self.tunnel.iter().map(|address| (address.gateway.into(), Way::Tunnel)));
        table.extend(self.around.iter().map(|net| (*net, Way::Around)));
        table.extend(
            reserved::all()
                .map(|(net, _)| net)
                .filter(|net| self.has_family(net))
                .map(|net| (net, Way::Around)),
        );
        table
    }

    fn has_family(&self, net: &IpNet) -> bool {
        match net {
            IpNet::V4(_) => self.families.v4,
            IpNet::V6(_) => self.families.v6,
        }
    }

    fn is_own(&self, net: &IpNet) -> bool {
        self.tunnel.iter().any(|address| address.sidecar.trunc().contains(net))
    }
}

#[cfg(test)]
mod tests;
