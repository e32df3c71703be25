//! The kernel's messages about networks, as both ends read them.

use gh_net::netwatch::{Interface, Rule};
use gh_net_common::netlink::{Address, Route, messages_in};
use netlink_packet_route::RouteNetlinkMessage;

/// A datagram of the kernel. Nothing in it makes either end panic, and what counts for it as a network is one.
pub fn netlink(data: &[u8]) {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the crate's enums grow with the kernel's")]
    for message in messages_in(data).unwrap_or_default() {
        match message {
            RouteNetlinkMessage::NewLink(link) => drop(Interface::from(link)),
            RouteNetlinkMessage::NewAddress(address) => drop(Address::from_message(address)),
            RouteNetlinkMessage::NewRoute(route) => {
                if let Some(route) = Route::from_message(route) {
                    assert!(route.prefix.prefix_len() <= route.prefix.max_prefix_len());
                    assert!(route.gateways().count() <= route.hops.len());
                }
            }
            RouteNetlinkMessage::NewRule(rule) => drop(Rule::from_message(rule, 1000)),
            _ => {}
        }
    }
    gh_net_sidecar::fuzzing::netlink(data);
}
