//! What another program can take from the TUN hook (`ip rule flush`, a network manager that tidies up), and which of the
//! kernel's events say that it may have. Pure.
#![expect(clippy::wildcard_enum_match_arm, reason = "the kernel adds messages")]

use std::fmt;

use gh_net_common::frame::TunnelAddress;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkFlags, LinkMessage};
use netlink_packet_route::route::RouteAttribute;
use netlink_packet_route::rule::RuleMessage;

use super::message::{self, own_route};
use crate::hook::concern::Concern;
use crate::hook::containers::bridge;
use crate::hook::plan::Table;
use crate::hook::rule::{Packets, Rule};

/// What is missing.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Damage {
    /// Changes interrupted the look: more may be missing.
    pub(crate) is_unsure: bool,
    /// The device is down.
    pub(super) down: bool,
    /// Addresses of the device.
    pub(super) addresses: Vec<TunnelAddress>,
    /// Routing rules.
    pub(super) rules: Vec<Rule>,
    /// Routes of our table are missing or altered.
    pub(super) routes: bool,
}

impl Damage {
    /// Whether nothing is missing.
    pub(crate) fn is_none(&self) -> bool {
        let Self { is_unsure: _, down, addresses, rules, routes } = self;
        !down && addresses.is_empty() && rules.is_empty() && !routes
    }
}

/// In the words of "another program has removed ...".
impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { is_unsure: _, down, addresses, rules, routes } = self;
        let mut parts = Vec::new();
        if *down {
            parts.push("the device from service".to_owned());
        }
        parts.extend(addresses.iter().map(|address| format!("the address {}", address.sidecar.addr())));
        parts.extend(rules.iter().map(|rule| format!("the routing rule {rule}")));
        if *routes {
            parts.push("routes".to_owned());
        }
        f.write_str(&parts.join(", "))
    }
}

/// What an event means to a hook with this device, these rules and these routes.
pub(super) fn concern(
    event: &RouteNetlinkMessage,
    device: u32,
    rules: &[Rule],
    installed: &Table,
) -> Concern {
    match event {
        RouteNetlinkMessage::NewRoute(route) if message::is_own(route) => match own_route(route, device) {
            // Set, and perhaps replaced by us since: the table is looked at to be sure.
            Some((net, target)) if installed.get(&net) == target.as_ref() => Concern::None,
            Some(_) => Concern::Damage,
            None => Concern::None,
        },
        RouteNetlinkMessage::DelRoute(route) if message::is_own(route) => {
            let was_installed = own_route(route, device).is_some_and(|(net, _)| installed.contains_key(&net));
            if was_installed { Concern::Damage } else { Concern::None }
        }
        RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route)
            if route.attributes.contains(&RouteAttribute::Oif(device)) =>
        {
            Concern::None
        }
        RouteNetlinkMessage::NewRule(rule) if is_among(rules, rule) => Concern::None,
        RouteNetlinkMessage::DelRule(rule) if is_among(rules, rule) => Concern::Damage,
        RouteNetlinkMessage::NewAddress(address) if address.header.index == device => Concern::None,
        RouteNetlinkMessage::DelAddress(address) if address.header.index == device => Concern::Damage,
        RouteNetlinkMessage::NewLink(link) if link.header.index == device => {
            if link.header.flags.contains(LinkFlags::Up) { Concern::None } else { Concern::Damage }
        }
        RouteNetlinkMessage::NewLink(link) if is_new_bridge(link, rules) => Concern::Bridge,
        // The device itself reports that it is gone.
        RouteNetlinkMessage::DelLink(link) if link.header.index == device => Concern::None,
        _ => Concern::Codespace,
    }
}

/// Whether no rule is for packets from this bridge.
fn is_new_bridge(link: &LinkMessage, rules: &[Rule]) -> bool {
    let is_for = |rule: &Rule, name: &str| matches!(&rule.packets, Packets::By(by) if by == name);
    bridge(link).is_some_and(|name| !rules.iter().any(|rule| is_for(rule, &name)))
}

fn is_among(rules: &[Rule], rule: &RuleMessage) -> bool {
    message::rule(rule).is_some_and(|rule| rules.contains(&rule))
}

#[cfg(test)]
mod tests {
    use RouteNetlinkMessage::{
        DelAddress, DelLink, DelRoute, DelRule, NewAddress, NewLink, NewRoute, NewRule,
    };
    use ipnet::IpNet;
    use netlink_packet_route::address::AddressMessage;
    use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo};
    use netlink_packet_route::route::{RouteMessage, RouteType};

    use super::*;
    use crate::hook::plan::Target;

    const DEVICE: u32 = 7;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn rules() -> Vec<Rule> {
        let rule =
            |v6, priority, packets, table, but_default| Rule { v6, priority, packets, table, but_default };
        let by = |interface: &str| Packets::By(interface.to_owned());
        vec![
            rule(false, 30_000, Packets::All, 254, true),
            rule(false, 30_001, by("lo"), 26_727, false),
            rule(true, 30_001, by("docker0"), 26_727, false),
            rule(false, 30_001, Packets::From(net("10.9.0.0/16")), 26_727, false),
        ]
    }

    fn rule(rule: &Rule) -> RuleMessage {
        match message::new_rule(rule) {
            NewRule(rule) => rule,
            other => panic!("{other:?}"),
        }
    }

    fn meaning(event: RouteNetlinkMessage) -> Concern {
        let installed = Table::from([
            (net("10.20.0.0/16"), Target::Tunnel),
            (net("fd20::/32"), Target::Tunnel),
            (net("10.20.0.99/32"), Target::Direct),
        ]);
        concern(&event, DEVICE, &rules(), &installed)
    }

    fn own(prefix: &str, target: Target) -> RouteMessage {
        message::route(&net(prefix), target, DEVICE)
    }

    #[test]
    fn routes_in_our_table() {
        for (prefix, target) in [
            ("10.20.0.0/16", Target::Tunnel),
            ("fd20::/32", Target::Tunnel),
            ("10.20.0.99/32", Target::Direct),
        ] {
            assert_eq!(meaning(NewRoute(own(prefix, target))), Concern::None, "{prefix}");
            assert_eq!(meaning(DelRoute(own(prefix, target))), Concern::Damage, "{prefix}");
        }
        assert_eq!(meaning(NewRoute(own("10.20.0.0/16", Target::Direct))), Concern::Damage);
        let other_device = message::route(&net("10.20.0.0/16"), Target::Tunnel, DEVICE + 1);
        assert_eq!(meaning(NewRoute(other_device)), Concern::Damage);
        let mut blocked = own("10.20.0.0/16", Target::Direct);
        blocked.header.kind = RouteType::BlackHole;
        assert_eq!(meaning(NewRoute(blocked)), Concern::Damage);
        // What we have removed ourselves.
        assert_eq!(meaning(DelRoute(own("10.30.0.0/16", Target::Tunnel))), Concern::None);
    }

    #[test]
    fn rules_addresses_and_the_device() {
        for ours in rules() {
            assert_eq!(meaning(NewRule(rule(&ours))), Concern::None);
            assert_eq!(meaning(DelRule(rule(&ours))), Concern::Damage);
            let mut conditional = rule(&ours);
            conditional.header.dst_len = 24;
            assert_eq!(meaning(DelRule(conditional)), Concern::Codespace, "not ours");
        }
        let address = |index| {
            let mut message = AddressMessage::default();
            message.header.index = index;
            message
        };
        assert_eq!(meaning(NewAddress(address(DEVICE))), Concern::None);
        assert_eq!(meaning(DelAddress(address(DEVICE))), Concern::Damage);
        assert_eq!(meaning(DelAddress(address(1))), Concern::Codespace);
        let link = |index, flags| {
            let mut message = LinkMessage::default();
            (message.header.index, message.header.flags) = (index, flags);
            message
        };
        assert_eq!(meaning(NewLink(link(DEVICE, LinkFlags::Up))), Concern::None);
        assert_eq!(meaning(NewLink(link(DEVICE, LinkFlags::empty()))), Concern::Damage);
        assert_eq!(
            meaning(DelLink(link(DEVICE, LinkFlags::empty()))),
            Concern::None,
            "the device reports it"
        );
        assert_eq!(meaning(NewLink(link(1, LinkFlags::empty()))), Concern::Codespace);
    }

    #[test]
    fn a_bridge_without_a_rule_is_looked_at_at_once() {
        let link = |name: &str, kind| {
            let mut message = LinkMessage::default();
            message.attributes = vec![
                LinkAttribute::IfName(name.to_owned()),
                LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)]),
            ];
            NewLink(message)
        };
        assert_eq!(meaning(link("br-new", InfoKind::Bridge)), Concern::Bridge);
        assert_eq!(meaning(link("docker0", InfoKind::Bridge)), Concern::Codespace);
        assert_eq!(meaning(link("veth1", InfoKind::Veth)), Concern::Codespace);
    }

    #[test]
    fn routes_elsewhere_are_the_codespaces() {
        let mut elsewhere = RouteMessage::default();
        elsewhere.header.table = 254;
        assert_eq!(meaning(NewRoute(elsewhere.clone())), Concern::Codespace);
        assert_eq!(meaning(DelRoute(elsewhere.clone())), Concern::Codespace);
        // The kernel's own route to an address of the device.
        elsewhere.attributes.push(RouteAttribute::Oif(DEVICE));
        assert_eq!(meaning(NewRoute(elsewhere)), Concern::None);
    }

    #[test]
    fn damage_is_named() {
        let damage = Damage { rules: rules()[..1].to_vec(), routes: true, ..Damage::default() };
        assert_eq!(damage.to_string(), "the routing rule 30000 (lookup 254, IPv4), routes");
        assert!(Damage::default().is_none() && !damage.is_none());
    }
}
