//! What the laptop's kernel knows of its networks: a [`Snapshot`] of links, addresses, routes and rules, and the
//! [`Delta`] between two of them.
//!
//! Events drive nothing by themselves. [`Netwatch::changed`] only says that something changed; the next
//! [`Netwatch::snapshot`] and its delta to the one before say what. So an event that is lost or repeated does no harm.

use ipnet::IpNet;

mod delta;
mod message;
mod netlink;

pub use delta::{Change, Delta};
pub use gh_net_common::netlink::{Address, MAIN_TABLE, NextHop, Route, RouteKind};
pub use netlink::{Error, Netwatch};

/// The routing table that holds the laptop's own addresses (`RT_TABLE_LOCAL`).
pub const LOCAL_TABLE: u32 = 255;
/// The routing table that rules look into last (`RT_TABLE_DEFAULT`).
pub const DEFAULT_TABLE: u32 = 253;

/// The laptop's networks at one moment. Sorted, so that equal networks are equal snapshots; only the rules
/// stand in the kernel's order, which is that of their effect.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The network interfaces.
    pub links: Vec<Link>,
    /// The laptop's own addresses.
    pub addresses: Vec<Address>,
    /// The routes of all tables.
    pub routes: Vec<Route>,
    /// Which tables are looked into, for which destinations, in which order.
    pub rules: Vec<Rule>,
    /// Whether there was more than is kept: the snapshot is bounded.
    pub truncated: bool,
}

impl Snapshot {
    /// The link with this index.
    pub fn link(&self, index: u32) -> Option<&Link> {
        self.links.iter().find(|link| link.index == index)
    }

    /// The name of the link with this index, or words that stand for it.
    pub fn link_name(&self, index: u32) -> String {
        self.link(index).map_or_else(|| format!("interface {index}"), |link| link.name.clone())
    }

    /// What changed from this snapshot to a later one.
    pub fn delta(&self, later: &Self) -> Delta {
        Delta::between(self, later)
    }
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Link {
    /// Its index, by which routes and addresses name it.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: LinkKind,
    /// Its state.
    pub flags: LinkFlags,
    /// The bridge, bond or VRF it belongs to.
    pub master: Option<u32>,
}

/// What a link is, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum LinkKind {
    /// The loopback interface.
    Loopback,
    /// A device the kernel did not make itself: wired or wireless network hardware, or what a hypervisor
    /// shows as such.
    Hardware,
    /// A bridge.
    Bridge,
    /// One end of a virtual cable.
    Veth,
    /// TUN or TAP: the other side is a program.
    Tun,
    /// WireGuard.
    WireGuard,
    /// Another tunnel of the kernel's: PPP, IP in IP, GRE, SIT, VTI, XFRM.
    Tunnel,
    /// Anything else, by the kernel's word for it.
    Other(String),
}

/// The state of a link.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkFlags {
    /// It is switched on (IFF_UP).
    pub up: bool,
    /// It has a carrier (IFF_RUNNING).
    pub running: bool,
    /// It has one peer and no neighbours (IFF_POINTOPOINT).
    pub point_to_point: bool,
}

/// A rule of policy routing, as it concerns the sockets of a program without privileges: one that sets no
/// mark and binds no source address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// Whether it is one of IPv6.
    pub v6: bool,
    /// Rules take effect in ascending order.
    pub priority: u32,
    /// Whether it concerns such a socket at all, its destination aside and before `inverted`.
    pub matches: bool,
    /// The destinations it is for; `None` is all.
    pub destination: Option<IpNet>,
    /// Whether it is for everything that it is otherwise not for.
    pub inverted: bool,
    /// What it does.
    pub action: RuleAction,
}

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RuleAction {
    /// Look into a table.
    Table {
        /// The table.
        table: u32,
        /// Routes with prefixes of at most this length do not count.
        suppress: Option<u8>,
    },
    /// Drop, with or without an answer.
    Blocked,
    /// Anything else (goto, nop).
    Other,
}

#[cfg(test)]
mod tests;
