//! The policy routes of the TUN hook: carries the [plan](crate::hook::plan) out in the kernel.
//!
//! Each family has two rules, after `local` and before `main`:
//!
//! ```text
//! 30000: from all lookup main suppress_prefixlength 0    every route of the codespace except its default wins
//! 30001: from all lookup 26727                           then ours
//! 32766: from all lookup main                            then its default
//! ```
//!
//! `main` is never edited. In our own table a forwarded network is a route to the TUN device. What must never enter the
//! tunnel is a `throw` route in the same table: the lookup continues with the next rule, as if our table did not exist.

use std::collections::BTreeMap;
use std::io;

use gh_net_common::frame::Families;
use gh_net_common::netlink::{Dump, MAIN_TABLE, Netlink, RouteKind, table_of};
use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::table::{Kernel, OwnTable, Step, is_gone};
use crate::hook::plan::{Plan, Table, Target};
use crate::journal::{Change, Journal, Rule};

/// Our own routing table.
const TABLE: u32 = 26_727;
/// The priority of the first of our two rules; the second has the next. The kernel's own rules are 0 (local), 32766
/// (main) and 32767 (default).
const PRIORITY: u32 = 30_000;
/// `RT_TABLE_COMPAT`: the table's number does not fit the header; the attribute holds it.
const TABLE_IN_ATTRIBUTE: u8 = 252;

/// The rules of the hook.
fn rules(families: Families) -> Vec<Rule> {
    let mut rules = Vec::new();
    for (v6, wanted) in [(false, families.v4), (true, families.v6)] {
        if wanted {
            rules.push(Rule { v6, priority: PRIORITY, table: MAIN_TABLE, but_default: true });
            rules.push(Rule { v6, priority: PRIORITY + 1, table: TABLE, but_default: false });
        }
    }
    rules
}

/// The hook's routes and rules in the kernel.
#[derive(Debug)]
pub(crate) struct Gateway(OwnTable<Routes>);

impl Gateway {
    /// Fills our table, then adds the rules that lead to it.
    ///
    /// # Errors
    /// The kernel refused a route or a rule, or communication failed. Changes already made are in the journal.
    pub(crate) fn install(plan: &Plan, device: u32, journal: &mut Journal) -> io::Result<Self> {
        let mut routes = Routes { netlink: Netlink::open()?, device };
        journal.record(Change::Table { table: TABLE })?;
        // Only we use this table: routes in it were left by an owner whose journal was lost.
        routes.flush(TABLE)?;
        let mut gateway = Self(OwnTable::new(routes));
        if let Some(failure) = gateway.follow(plan)?.into_iter().next() {
            return Err(io::Error::other(failure));
        }
        let mut netlink = Netlink::open()?;
        for rule in rules(plan.families()) {
            journal.record(Change::Rule(rule.clone()))?;
            match netlink.request(new_rule(&rule), NLM_F_CREATE | NLM_F_EXCL) {
                Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {}
                result => result?,
            }
        }
        Ok(gateway)
    }

    /// Makes our table what `plan` says. Returns, as text, the routes that the kernel refused; they are tried again the
    /// next time.
    ///
    /// # Errors
    /// Communication with the kernel failed.
    pub(crate) fn follow(&mut self, plan: &Plan) -> io::Result<Vec<String>> {
        self.0.follow(&plan.table())
    }

    /// The routes in our table.
    pub(crate) fn installed(&self) -> &Table {
        self.0.installed()
    }
}

/// Changes routes of our table.
#[derive(Debug)]
struct Routes {
    netlink: Netlink,
    device: u32,
}

impl Kernel for Routes {
    fn carry_out(&mut self, steps: Vec<Step>) -> io::Result<BTreeMap<usize, io::Error>> {
        let request = |step| match step {
            Step::Set(net, target) => {
                (RouteNetlinkMessage::NewRoute(self.route(&net, target)), NLM_F_CREATE | NLM_F_REPLACE)
            }
            Step::Remove(net, target) => (RouteNetlinkMessage::DelRoute(self.route(&net, target)), 0),
        };
        let requests = steps.into_iter().map(request).collect();
        Ok(self.netlink.batch(requests)?.into_iter().collect())
    }

    fn read(&mut self) -> io::Result<Table> {
        // Answers to requests that failed may still wait at the old socket.
        self.netlink = Netlink::open()?;
        let routes = self.netlink.routes(is_own)?.items;
        let target = |kind| match kind == RouteKind::Throw {
            true => Target::Direct,
            false => Target::Tunnel,
        };
        // A dump is bounded. A route that it lacks is set again, which is harmless.
        Ok(routes.into_iter().map(|route| (route.prefix, target(route.kind))).collect())
    }
}

impl Routes {
    fn route(&self, net: &IpNet, target: Target) -> RouteMessage {
        let mut route = RouteMessage::default();
        route.header.address_family = family(matches!(net, IpNet::V6(_)));
        route.header.destination_prefix_length = net.prefix_len();
        route.header.table = TABLE_IN_ATTRIBUTE;
        route.header.protocol = RouteProtocol::Static;
        if net.prefix_len() > 0 {
            route.attributes.push(RouteAttribute::Destination(RouteAddress::from(net.addr())));
        }
        route.attributes.push(RouteAttribute::Table(TABLE));
        match target {
            Target::Tunnel => {
                route.header.kind = RouteType::Unicast;
                // A route without a next hop has this scope, as with ip-route(8); IPv6 has no scopes.
                if matches!(net, IpNet::V4(_)) {
                    route.header.scope = RouteScope::Link;
                }
                route.attributes.push(RouteAttribute::Oif(self.device));
            }
            Target::Direct => route.header.kind = RouteType::Throw,
        }
        route
    }

    fn flush(&mut self, table: u32) -> io::Result<()> {
        let ours = |message| {
            let RouteNetlinkMessage::NewRoute(route) = message else { return None };
            let removal = || (RouteNetlinkMessage::DelRoute(only_key(route.clone())), 0);
            (table_of(&route) == table).then(removal)
        };
        loop {
            let request = RouteNetlinkMessage::GetRoute(RouteMessage::default());
            let Dump { items: removals, truncated, .. } = self.netlink.dump(request, ours)?;
            let count = removals.len();
            let failures = self.netlink.batch(removals)?;
            let progress = failures.len() < count;
            if let Some((_, error)) = failures.into_iter().find(|(_, error)| !is_gone(error)) {
                return Err(error);
            }
            // A dump is bounded, so a large table takes several.
            if !truncated || !progress {
                return Ok(());
            }
        }
    }
}

/// Whether a route is in our table.
pub(crate) fn is_own(route: &RouteMessage) -> bool {
    table_of(route) == TABLE
}

/// What identifies a route, without the kernel's own attributes such as cache information.
fn only_key(mut route: RouteMessage) -> RouteMessage {
    route.attributes.retain(|attribute| {
        matches!(
            attribute,
            RouteAttribute::Destination(_)
                | RouteAttribute::Table(_)
                | RouteAttribute::Oif(_)
                | RouteAttribute::Priority(_)
        )
    });
    route.header.flags = Default::default();
    route
}

/// Removes every route from one of our tables.
///
/// # Errors
/// The kernel's answer.
pub(crate) fn flush_table(table: u32) -> io::Result<()> {
    Routes { netlink: Netlink::open()?, device: 0 }.flush(table)
}

/// Removes a rule. No error if it does not exist.
///
/// # Errors
/// The kernel's answer.
pub(crate) fn delete_rule(rule: &Rule) -> io::Result<()> {
    let RouteNetlinkMessage::NewRule(message) = new_rule(rule) else { return Ok(()) };
    match Netlink::open()?.request(RouteNetlinkMessage::DelRule(message), 0) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EAFNOSUPPORT)) => Ok(()),
        result => result,
    }
}

fn new_rule(rule: &Rule) -> RouteNetlinkMessage {
    let mut message = RuleMessage::default();
    message.header.family = family(rule.v6);
    message.header.action = RuleAction::ToTable;
    match u8::try_from(rule.table) {
        Ok(table) => message.header.table = table,
        Err(_) => message.header.table = TABLE_IN_ATTRIBUTE,
    }
    message.attributes.push(RuleAttribute::Priority(rule.priority));
    message.attributes.push(RuleAttribute::Table(rule.table));
    if rule.but_default {
        message.attributes.push(RuleAttribute::SuppressPrefixLen(0));
    }
    RouteNetlinkMessage::NewRule(message)
}

fn family(v6: bool) -> AddressFamily {
    if v6 { AddressFamily::Inet6 } else { AddressFamily::Inet }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_has_two_rules_and_only_if_it_is_wanted() {
        let both = rules(Families { v4: true, v6: true });
        assert_eq!(both.len(), 4);
        let v4 = rules(Families { v4: true, v6: false });
        assert_eq!(v4.len(), 2);
        assert!(v4[0].but_default && v4[0].priority < v4[1].priority && v4[1].table == TABLE);
    }
}
