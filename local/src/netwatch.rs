//! What the laptop's kernel knows of its networks: a [`Snapshot`] of links, addresses, routes and rules,
//! and the [`Delta`] between two of them.
//!
//! Events drive nothing by themselves. [`Netwatch::changed`] says that something happened, whatever it was;
//! the next [`Netwatch::snapshot`] and its delta to the one before say what. So an event that is lost, or comes
//! twice, does no harm.

use std::net::IpAddr;

use ipnet::IpNet;

mod delta;
mod message;
mod netlink;

pub use delta::{Change, Delta};
pub use netlink::{Error, Netwatch};

/// The routing table that holds the laptop's own addresses (`RT_TABLE_LOCAL`).
pub const LOCAL_TABLE: u32 = 255;
/// The routing table that is meant when none is named (`RT_TABLE_MAIN`).
pub const MAIN_TABLE: u32 = 254;
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

/// One of the laptop's own addresses.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// The index of its link.
    pub link: u32,
    /// The address, and the length of the prefix that is on the link.
    pub address: IpNet,
    /// The other end of a point-to-point link; the prefix length is then that of the peer's network.
    pub peer: Option<IpAddr>,
}

impl Address {
    /// The network that is on the link.
    pub fn network(&self) -> IpNet {
        let base = self.peer.unwrap_or(self.address.addr());
        IpNet::new(base, self.address.prefix_len()).unwrap_or(self.address).trunc()
    }
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// The table it stands in.
    pub table: u32,
    /// Where it leads.
    pub prefix: IpNet,
    /// Among equal prefixes of a table the lowest counts.
    pub metric: u32,
    /// What becomes of the packets.
    pub kind: RouteKind,
    /// How far the destination is (`RT_SCOPE_*`).
    pub scope: u8,
    /// Who made it (`RTPROT_*`).
    pub protocol: u8,
    /// By which ways; empty if packets are not sent on.
    pub hops: Vec<NextHop>,
}

/// One way of a route.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NextHop {
    /// The index of the link.
    pub link: u32,
    /// The router on that link; `None` if the destination is on it.
    pub gateway: Option<IpAddr>,
}

/// What becomes of the packets that take a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RouteKind {
    /// They are sent on.
    Unicast,
    /// They are the laptop's own.
    Local,
    /// They are the laptop's own, and everybody else's on the link.
    Broadcast,
    /// They are the laptop's own, as one of several.
    Anycast,
    /// They go to a group.
    Multicast,
    /// They are dropped, with or without an answer (blackhole, unreachable, prohibit).
    Blocked,
    /// The look-up goes on with the next rule.
    Throw,
    /// Anything else.
    Other,
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
