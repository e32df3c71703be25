//! The routes and rules of the TUN hook as the kernel's messages, in both directions. Pure.
#![expect(clippy::wildcard_enum_match_arm, reason = "the crate's enums grow with the kernel's")]

use gh_net_common::netlink::{Route, RouteKind, table_of};
use ipnet::IpNet;
use netlink_packet_core::Nla;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::hook::plan::Target;
use crate::hook::rule::{Packets, Rule};

/// Our own routing table.
pub(super) const TABLE: u32 = 26_727;
/// `RT_TABLE_COMPAT`: the table's number does not fit the header; the attribute holds it.
const TABLE_IN_ATTRIBUTE: u8 = 252;
/// `FRA_PAD` only aligns other attributes.
const FRA_PAD: u16 = 18;

/// A route in our table, with what identifies it and what it does.
pub(super) fn route(net: &IpNet, target: Target, device: u32) -> RouteMessage {
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
            route.attributes.push(RouteAttribute::Oif(device));
        }
        Target::Direct => route.header.kind = RouteType::Throw,
    }
    route
}

/// Whether a route is in our table.
pub(crate) fn is_own(route: &RouteMessage) -> bool {
    table_of(route) == TABLE
}

/// What identifies a route, without the kernel's own attributes such as cache information.
pub(super) fn only_key(mut route: RouteMessage) -> RouteMessage {
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

/// The prefix of a route in our table, and its target if it is one that we set.
pub(super) fn own_route(message: &RouteMessage, device: u32) -> Option<(IpNet, Option<Target>)> {
    let route = Route::from_message(message.clone())?;
    let target = match route.kind {
        RouteKind::Throw => Some(Target::Direct),
        RouteKind::Unicast
            if route.hops.iter().all(|hop| hop.interface == device && hop.gateway.is_none()) =>
        {
            Some(Target::Tunnel)
        }
        RouteKind::Unicast
        | RouteKind::Local
        | RouteKind::Broadcast
        | RouteKind::Anycast
        | RouteKind::Multicast
        | RouteKind::Blocked
        | RouteKind::Other => None,
    };
    Some((route.prefix, target))
}

/// The message that adds a rule.
pub(super) fn new_rule(rule: &Rule) -> RouteNetlinkMessage {
    let mut message = RuleMessage::default();
    message.header.family = family(rule.v6);
    message.header.action = RuleAction::ToTable;
    match u8::try_from(rule.table) {
        Ok(table) => message.header.table = table,
        Err(_) => message.header.table = TABLE_IN_ATTRIBUTE,
    }
    message.attributes.push(RuleAttribute::Priority(rule.priority));
    message.attributes.push(RuleAttribute::Table(rule.table));
    match &rule.packets {
        Packets::All => {}
        Packets::By(interface) => message.attributes.push(RuleAttribute::Iifname(interface.clone())),
        Packets::From(net) => {
            message.header.src_len = net.prefix_len();
            message.attributes.push(RuleAttribute::Source(net.network()));
        }
    }
    if rule.but_default {
        message.attributes.push(RuleAttribute::SuppressPrefixLen(0));
    }
    RouteNetlinkMessage::NewRule(message)
}

fn family(v6: bool) -> AddressFamily {
    if v6 { AddressFamily::Inet6 } else { AddressFamily::Inet }
}

/// A rule that looks a table up for packets that ours may be for; `None` for others.
pub(super) fn rule(message: &RuleMessage) -> Option<Rule> {
    let header = &message.header;
    let v6 = match header.family {
        AddressFamily::Inet => false,
        AddressFamily::Inet6 => true,
        _ => return None,
    };
    let is_plain = header.action == RuleAction::ToTable
        && header.dst_len == 0
        && header.tos == 0
        && !header.flags.contains(RuleFlags::Invert);
    let (mut interface, mut source) = (None, None);
    let mut rule =
        Rule { v6, priority: 0, packets: Packets::All, table: header.table.into(), but_default: false };
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Priority(priority) => rule.priority = *priority,
            RuleAttribute::Table(table) => rule.table = *table,
            RuleAttribute::Iifname(name) => interface = Some(name),
            // The kernel keeps the host bits that whoever added the rule gave.
            RuleAttribute::Source(address) => {
                source = IpNet::new(*address, header.src_len).ok().map(|net| net.trunc());
            }
            // The kernel reports -1 for none.
            RuleAttribute::SuppressPrefixLen(0) => rule.but_default = true,
            RuleAttribute::SuppressPrefixLen(u32::MAX)
            | RuleAttribute::SuppressIfGroup(u32::MAX)
            | RuleAttribute::Protocol(_) => {}
            RuleAttribute::Other(other) if other.kind() == FRA_PAD => {}
            _ => return None,
        }
    }
    rule.packets = match (interface, source) {
        (None, None) if header.src_len == 0 => Packets::All,
        (Some(interface), None) if header.src_len == 0 => Packets::By(interface.clone()),
        (None, Some(net)) => Packets::From(net),
        _ => return None,
    };
    is_plain.then_some(rule)
}
