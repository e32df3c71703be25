//! Carries the [plan](super) out, and takes it back.

use std::io;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Plan, Rule, TABLE, Table, Way, diff, rules};
use crate::netlink::{Netlink, Request, table_of};
use crate::undo::{Change, Journal};

/// `RT_TABLE_COMPAT`: the table's number does not fit the header; look at the attribute.
const TABLE_IN_ATTRIBUTE: u8 = 252;

/// The hook as it is in the kernel.
#[derive(Debug)]
pub(crate) struct Gateway {
    netlink: Netlink,
    device: u32,
    installed: Table,
}

impl Gateway {
    /// Fills our table, then adds the rules that lead to it.
    ///
    /// # Errors
    /// The kernel refused a rule, or the conversation with it failed. What was done is in the journal.
    pub(crate) fn install(plan: &Plan, device: u32, journal: &mut Journal) -> io::Result<Self> {
        let mut gateway = Self { netlink: Netlink::open()?, device, installed: Table::new() };
        journal.record(Change::Table { table: TABLE })?;
        // The table is ours alone; what is in it was left by an owner whose journal was lost.
        gateway.flush(TABLE)?;
        if let Some(failure) = gateway.follow(plan)?.into_iter().next() {
            return Err(io::Error::other(failure));
        }
        for rule in rules(plan.families()) {
            journal.record(Change::Rule(rule.clone()))?;
            match gateway.netlink.request(new_rule(&rule), NLM_F_CREATE | NLM_F_EXCL) {
                Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {}
                result => result?,
            }
        }
        Ok(gateway)
    }

    /// Makes our table what `plan` says. Returns, in words, the routes the kernel refused; they are tried
    /// again the next time.
    ///
    /// # Errors
    /// The conversation with the kernel failed.
    pub(crate) fn follow(&mut self, plan: &Plan) -> io::Result<Vec<String>> {
        let diff = diff(&self.installed, &plan.table());
        let removals: Vec<Request> = diff
            .remove
            .iter()
            .map(|(net, way)| (RouteNetlinkMessage::DelRoute(self.route(net, *way)), 0))
            .collect();
        for (index, error) in self.netlink.batch(removals)? {
            // The kernel drops routes by itself, for example when somebody sets the device down.
            tracing::debug!(%error, "removing the route to {}", diff.remove[index].0);
        }
        for (net, _) in &diff.remove {
            self.installed.remove(net);
        }
        let additions: Vec<Request> = diff
            .add
            .iter()
            .map(|(net, way)| {
                (RouteNetlinkMessage::NewRoute(self.route(net, *way)), NLM_F_CREATE | NLM_F_EXCL)
            })
            .collect();
        let mut failures = self.netlink.batch(additions)?;
        failures.retain(|(_, error)| error.raw_os_error() != Some(libc::EEXIST));
        self.installed.extend(diff.add.iter().copied());
        let mut refused = Vec::new();
        for (index, error) in failures {
            let (net, _) = diff.add[index];
            self.installed.remove(&net);
            refused.push(format!("{net}: {error}"));
        }
        Ok(refused)
    }

    fn route(&self, net: &IpNet, way: Way) -> RouteMessage {
        let mut route = RouteMessage::default();
        route.header.address_family = family(matches!(net, IpNet::V6(_)));
        route.header.destination_prefix_length = net.prefix_len();
        route.header.table = TABLE_IN_ATTRIBUTE;
        route.header.protocol = RouteProtocol::Static;
        if net.prefix_len() > 0 {
            route.attributes.push(RouteAttribute::Destination(RouteAddress::from(net.addr())));
        }
        route.attributes.push(RouteAttribute::Table(TABLE));
        match way {
            Way::Tunnel => {
                route.header.kind = RouteType::Unicast;
                // Without a next hop, as ip-route(8) does; IPv6 has no scopes.
                if matches!(net, IpNet::V4(_)) {
                    route.header.scope = RouteScope::Link;
                }
                route.attributes.push(RouteAttribute::Oif(self.device));
            }
            Way::Around => route.header.kind = RouteType::Throw,
        }
        route
    }

    fn flush(&mut self, table: u32) -> io::Result<()> {
        let messages = self.netlink.route_messages()?;
        let ours = messages.into_iter().filter(|route| table_of(route) == table);
        let removals = ours.map(|route| (RouteNetlinkMessage::DelRoute(only_key(route)), 0)).collect();
        let failures = self.netlink.batch(removals)?;
        let gone = |error: &io::Error| error.raw_os_error() == Some(libc::ESRCH);
        match failures.into_iter().find(|(_, error)| !gone(error)) {
            Some((_, error)) => Err(error),
            None => Ok(()),
        }
    }
}

/// What names a route, without the kernel's bookkeeping (its cache info and the like).
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
/// What the kernel answered.
pub(crate) fn flush_table(table: u32) -> io::Result<()> {
    Gateway { netlink: Netlink::open()?, device: 0, installed: Table::new() }.flush(table)
}

/// Removes a rule. Fine if it is gone.
///
/// # Errors
/// What the kernel answered.
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
