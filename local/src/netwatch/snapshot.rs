//! What a snapshot consists of.

use std::collections::BTreeSet;

use gh_net_common::netlink::{Address, Route};
use ipnet::IpNet;

use super::machine::Machine;

/// The routing table that holds the laptop's own addresses (`RT_TABLE_LOCAL`).
pub const LOCAL_TABLE: u32 = 255;
/// The routing table that is looked up last (`RT_TABLE_DEFAULT`).
pub const DEFAULT_TABLE: u32 = 253;

/// The laptop's networks at one moment. Everything is sorted, so that equal networks are equal snapshots, except the
/// rules, which are in the kernel's order of evaluation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The network interfaces.
    pub interfaces: Vec<Interface>,
    /// The laptop's own addresses.
    pub addresses: Vec<Address>,
    /// The routes of all tables.
    pub routes: Vec<Route>,
    /// Which tables are looked up, for which destinations, in which order.
    pub rules: Vec<Rule>,
    /// The kind of machine, which tells where a virtual one reaches its host.
    pub machine: Machine,
    /// Whether the kernel listed more than a snapshot holds.
    pub truncated: bool,
    /// Whether the networks changed while they were read: something may be missing.
    pub interrupted: bool,
}

impl Snapshot {
    /// The interface with this index.
    pub fn interface(&self, index: u32) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.index == index)
    }

    /// The name of the interface with this index, or a description if it is unknown.
    pub fn interface_name(&self, index: u32) -> String {
        self.interface(index).map_or_else(|| format!("interface {index}"), |interface| interface.name.clone())
    }
}

impl Snapshot {
    /// This snapshot with what a `later` one adds to it. What is missing there stays.
    #[must_use]
    pub fn with_additions(&self, later: &Self) -> Self {
        let kept = self.interfaces.iter().filter(|interface| later.interface(interface.index).is_none());
        let mut rules = joined(&self.rules, &later.rules);
        rules.sort_by_key(|rule| rule.priority); // Stable: equals keep their order.
        let mut joined = Self {
            interfaces: kept.chain(&later.interfaces).cloned().collect(),
            addresses: joined(&self.addresses, &later.addresses),
            routes: joined(&self.routes, &later.routes),
            rules,
            machine: later.machine,
            truncated: self.truncated || later.truncated,
            interrupted: later.interrupted,
        };
        joined.interfaces.sort();
        joined.addresses.sort();
        joined.routes.sort();
        joined
    }
}

/// All of `later`, and what is only in `earlier`.
fn joined<T: Clone + Ord>(earlier: &[T], later: &[T]) -> Vec<T> {
    let known: BTreeSet<&T> = later.iter().collect();
    later.iter().chain(earlier.iter().filter(|item| !known.contains(item))).cloned().collect()
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interface {
    /// Its index, which routes and addresses refer to.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: InterfaceKind,
    /// Its state.
    pub flags: InterfaceFlags,
    /// The bridge, bond or VRF it belongs to.
    pub master: Option<u32>,
}

/// The kind of an interface, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum InterfaceKind {
    /// The loopback interface.
    Loopback,
    /// A device that the kernel did not create: wired or wireless network hardware, or a hypervisor's emulation of it.
    Hardware,
    /// A bridge.
    Bridge,
    /// One end of a virtual cable.
    Veth,
    /// TUN or TAP, operated by a program.
    Tun,
    /// WireGuard.
    WireGuard,
    /// Another kernel tunnel: PPP, IP in IP, GRE, SIT, VTI, XFRM.
    Tunnel,
    /// Anything else, by the kernel's name for it.
    Other(String),
}

/// The state of an interface.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct InterfaceFlags {
    /// It is administratively up (IFF_UP).
    pub up: bool,
    /// It has a carrier (IFF_RUNNING).
    pub running: bool,
    /// It has one peer and no neighbours (IFF_POINTOPOINT).
    pub point_to_point: bool,
}

/// A rule of policy routing, as it applies to the sockets of an unprivileged program, which have no mark and no bound
/// source address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// IPv6, else IPv4.
    pub v6: bool,
    /// Rules are evaluated in ascending order.
    pub priority: u32,
    /// Whether it matches such a socket, apart from the destination and before `inverted`.
    pub matches: bool,
    /// The destinations it matches; `None` is all.
    pub destination: Option<IpNet>,
    /// Whether it matches exactly what it would otherwise not match.
    pub inverted: bool,
    /// What it does.
    pub action: RuleAction,
}

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RuleAction {
    /// Look up a table.
    Table {
        /// The table.
        table: u32,
        /// Routes with prefixes of at most this length are ignored.
        suppress: Option<u8>,
    },
    /// Drop, with or without an answer.
    Blocked,
    /// Anything else (goto, nop).
    Other,
}
