//! The body of a fuzz target: the kernel's routes and rules, among which ours are recognized.

use gh_net_common::netlink::messages_in;
use netlink_packet_route::RouteNetlinkMessage;

use super::message;

/// A datagram of the kernel.
///
/// # Panics
/// A route or rule that we would set is not recognized as it was set.
pub fn netlink(data: &[u8]) {
    const DEVICE: u32 = 7;
    #[expect(clippy::wildcard_enum_match_arm, reason = "the crate's enums grow with the kernel's")]
    for received in messages_in(data).unwrap_or_default() {
        match received {
            RouteNetlinkMessage::NewRoute(route) => {
                let is_own = message::is_own(&route);
                assert_eq!(message::is_own(&message::only_key(route.clone())), is_own);
                if let Some((net, Some(target))) = message::own_route(&route, DEVICE) {
                    let set = message::route(&net.trunc(), target, DEVICE);
                    assert_eq!(message::own_route(&set, DEVICE), Some((net.trunc(), Some(target))));
                }
            }
            RouteNetlinkMessage::NewRule(rule) => {
                let Some(rule) = message::rule(&rule) else { continue };
                let RouteNetlinkMessage::NewRule(set) = message::new_rule(&rule) else { continue };
                assert_eq!(message::rule(&set), Some(rule));
            }
            _ => {}
        }
    }
}
