//! What the laptop's kernel knows of its networks: a [`Snapshot`] of interfaces, addresses, routes and rules, and the
//! [`Delta`] between two of them.
//!
//! Events drive nothing by themselves. [`Netwatch::changed`] only says that something changed, and whether more is coming;
//! the next [`Netwatch::snapshot`] and its delta to the one before say what. So an event that is lost or repeated does no
//! harm. Files that belong to the configuration, such as resolv.conf, may be watched in the same way. A snapshot from the middle of a change is only used for [what it adds](Snapshot::with_additions).

mod delta;
mod files;
mod machine;
mod message;
mod netlink;
mod snapshot;

pub use delta::{Change, Delta};
pub use gh_net_common::debounce::Changes;
pub use gh_net_common::netlink::{Address, MAIN_TABLE, NextHop, Route, RouteKind};
pub use machine::Machine;
pub use netlink::{Error, Netwatch};
pub use snapshot::{
    DEFAULT_TABLE, Interface, InterfaceFlags, InterfaceKind, LOCAL_TABLE, Rule, RuleAction, Snapshot,
};

#[cfg(test)]
mod tests;
