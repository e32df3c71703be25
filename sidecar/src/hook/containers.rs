//! The interfaces behind which the codespace's own containers are. Pure but for [`bridges`].
//!
//! They are the bridges of container engines (docker0, br-…, podman0, cni0): a bridge none of whose ports is anything but
//! one end of a pair (veth) or a virtual machine's (tap), and by which no default route leaves. A bridge with a network
//! card, a VLAN or another tunnel among its ports leads to neighbours of the codespace, who are not to use its tunnel.
//! So does one of which this is not known: a look that changes interrupted may have missed a port.

#![expect(clippy::wildcard_enum_match_arm, reason = "the kernel adds attributes")]

use std::collections::BTreeSet;
use std::io;

use gh_net_common::netlink::{Dump, Netlink, Route};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};

/// An interface, as far as it matters here.
#[derive(Debug, Clone)]
struct Interface {
    index: u32,
    name: String,
    kind: Kind,
    /// The bridge that it is a port of.
    bridge: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bridge,
    /// An end of a pair, or a tap.
    Virtual,
    Other,
}

/// The codespace's bridges, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Bridges {
    /// Those of its own containers.
    pub(crate) containers: BTreeSet<String>,
    /// The others: they lead to its neighbours, or out.
    pub(crate) others: BTreeSet<String>,
}

/// The bridges, and whether changes interrupted the look.
///
/// # Errors
/// The kernel's answer.
pub(super) fn bridges(routes: &[Route]) -> io::Result<(Bridges, bool)> {
    let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
    let Dump { items, interrupted, .. } = Netlink::open()?.dump(request, |message| match message {
        RouteNetlinkMessage::NewLink(link) => interface(&link),
        _ => None,
    })?;
    Ok((sorted(&items, routes), interrupted))
}

/// Whether the message is about a bridge, and its name.
pub(super) fn bridge(link: &LinkMessage) -> Option<String> {
    interface(link).filter(|it| it.kind == Kind::Bridge).map(|it| it.name)
}

fn interface(link: &LinkMessage) -> Option<Interface> {
    let mut found =
        Interface { index: link.header.index, name: String::new(), kind: Kind::Other, bridge: None };
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(name) => found.name.clone_from(name),
            LinkAttribute::Controller(bridge) => found.bridge = Some(*bridge),
            LinkAttribute::LinkInfo(parts) => {
                for part in parts {
                    match part {
                        LinkInfo::Kind(InfoKind::Bridge) => found.kind = Kind::Bridge,
                        LinkInfo::Kind(InfoKind::Veth | InfoKind::Tun) => found.kind = Kind::Virtual,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    (!found.name.is_empty()).then_some(found)
}

fn sorted(interfaces: &[Interface], routes: &[Route]) -> Bridges {
    let leads_out = |index: u32| {
        let mut defaults = routes.iter().filter(|route| route.prefix.prefix_len() == 0);
        defaults.any(|route| route.hops.iter().any(|hop| hop.interface == index))
    };
    let has_only_containers = |bridge: u32| {
        let mut ports = interfaces.iter().filter(|port| port.bridge == Some(bridge));
        ports.all(|port| port.kind == Kind::Virtual && !leads_out(port.index))
    };
    let is_containers =
        |it: &&Interface| it.bridge.is_none() && !leads_out(it.index) && has_only_containers(it.index);
    let bridges = interfaces.iter().filter(|it| it.kind == Kind::Bridge);
    let (containers, others): (Vec<_>, Vec<_>) = bridges.partition(is_containers);
    let names = |bridges: Vec<&Interface>| bridges.into_iter().map(|it| it.name.clone()).collect();
    Bridges { containers: names(containers), others: names(others) }
}

#[cfg(test)]
mod tests {
    use gh_net_common::netlink::{NextHop, RouteKind};

    use super::*;

    fn interface(index: u32, name: &str, kind: Kind, bridge: Option<u32>) -> Interface {
        Interface { index, name: name.to_owned(), kind, bridge }
    }

    #[test]
    fn a_bridge_with_a_way_out_is_not_the_containers() {
        use Kind::{Bridge, Other, Virtual};
        let interfaces = [
            interface(2, "eth0", Virtual, None),
            interface(3, "docker0", Bridge, None),
            interface(4, "veth1", Virtual, Some(3)),
            interface(5, "br-empty", Bridge, None),
            interface(6, "br-lan", Bridge, None),
            interface(7, "enp1s0", Other, Some(6)),
            interface(8, "vm0", Virtual, Some(6)),
            interface(9, "br-out", Bridge, None),
            interface(10, "veth2", Virtual, Some(9)),
        ];
        let route = Route {
            table: 254,
            prefix: "0.0.0.0/0".parse().unwrap(),
            metric: 0,
            kind: RouteKind::Unicast,
            scope: 0,
            protocol: 0,
            hops: vec![NextHop { interface: 9, gateway: None }],
        };
        let Bridges { containers, others } = sorted(&interfaces, &[route]);
        assert_eq!(containers.into_iter().collect::<Vec<_>>(), ["br-empty", "docker0"]);
        assert_eq!(others.into_iter().collect::<Vec<_>>(), ["br-lan", "br-out"]);
    }
}
