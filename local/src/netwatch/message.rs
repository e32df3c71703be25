//! The interfaces and rules of a snapshot, from the kernel's messages. Pure.
#![expect(clippy::wildcard_enum_match_arm, reason = "the crate's enums grow with the kernel's")]

use ipnet::IpNet;
use netlink_packet_core::Nla;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::link::{self, InfoKind, LinkAttribute, LinkInfo, LinkLayerType, LinkMessage};
use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::rule::{self, RuleAttribute, RuleFlags, RuleMessage};

use super::snapshot::{Interface, InterfaceFlags, InterfaceKind, Rule, RuleAction};

/// `FRA_PAD` only aligns other attributes.
const FRA_PAD: u16 = 18;

impl From<LinkMessage> for Interface {
    fn from(message: LinkMessage) -> Self {
        let flags = message.header.flags;
        let mut interface = Self {
            index: message.header.index,
            name: String::new(),
            kind: InterfaceKind::Hardware,
            flags: InterfaceFlags {
                up: flags.contains(link::LinkFlags::Up),
                running: flags.contains(link::LinkFlags::Running),
                point_to_point: flags.contains(link::LinkFlags::Pointopoint),
            },
            master: None,
        };
        let layer = message.header.link_layer_type;
        if layer == LinkLayerType::Loopback {
            interface.kind = InterfaceKind::Loopback;
        } else if layer == LinkLayerType::Ppp {
            interface.kind = InterfaceKind::Tunnel;
        }
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => interface.name = name,
                LinkAttribute::Controller(master) => {
                    interface.master = Some(master).filter(|index| *index != 0)
                }
                LinkAttribute::LinkInfo(infos) => {
                    let kind = infos.into_iter().find_map(|info| match info {
                        LinkInfo::Kind(kind) => Some(kind.into()),
                        _ => None,
                    });
                    interface.kind = kind.unwrap_or(interface.kind);
                }
                _ => {}
            }
        }
        interface
    }
}

impl From<InfoKind> for InterfaceKind {
    fn from(kind: InfoKind) -> Self {
        match kind {
            InfoKind::Bridge => Self::Bridge,
            InfoKind::Veth | InfoKind::Netkit => Self::Veth,
            InfoKind::Tun => Self::Tun,
            InfoKind::Wireguard => Self::WireGuard,
            InfoKind::IpIp
            | InfoKind::Ip6Tnl
            | InfoKind::SitTun
            | InfoKind::GreTun
            | InfoKind::GreTun6
            | InfoKind::Vti
            | InfoKind::Vti6
            | InfoKind::Xfrm => Self::Tunnel,
            InfoKind::Other(kind) if kind == "ppp" => Self::Tunnel,
            other => Self::Other(other.to_string()),
        }
    }
}

/// Whether a route applies to ordinary packets, and not only to a type of service or to some sources.
pub(super) fn is_ordinary(route: &RouteMessage) -> bool {
    route.header.tos == 0 && route.header.source_prefix_length == 0
}

impl Rule {
    /// The rule of a message, as it applies to a socket of user `uid`.
    pub fn from_message(message: RuleMessage, uid: u32) -> Option<Self> {
        let header = message.header;
        let v6 = match header.family {
            AddressFamily::Inet => false,
            AddressFamily::Inet6 => true,
            _ => return None,
        };
        let (mut table, mut priority, mut destination, mut suppress) = (header.table.into(), 0, None, None);
        // The mark and its mask are separate attributes; a rule without a mask compares all bits.
        let (mut mark, mut mask) = (0, u32::MAX);
        let mut matches = header.src_len == 0 && header.tos == 0;
        for attribute in message.attributes {
            match attribute {
                RuleAttribute::Table(id) => table = id,
                RuleAttribute::Priority(order) => priority = order,
                RuleAttribute::Destination(address) => {
                    destination = Some(IpNet::new(address, header.dst_len).ok()?);
                }
                RuleAttribute::FwMark(bits) => mark = bits,
                RuleAttribute::FwMask(bits) => mask = bits,
                // The kernel reports -1 for none.
                RuleAttribute::SuppressPrefixLen(length) => suppress = u8::try_from(length).ok(),
                other => matches &= meets(&other, uid),
            }
        }
        matches &= mark & mask == 0;
        let action = match header.action {
            rule::RuleAction::ToTable => RuleAction::Table { table, suppress },
            rule::RuleAction::Blackhole | rule::RuleAction::Unreachable | rule::RuleAction::Prohibit => {
                RuleAction::Blocked
            }
            _ => RuleAction::Other,
        };
        let inverted = header.flags.contains(RuleFlags::Invert);
        Some(Self { v6, priority, matches, destination, inverted, action })
    }
}

/// Whether an ordinary socket's packets meet this condition of a rule. An unknown condition counts as not met.
fn meets(attribute: &RuleAttribute, uid: u32) -> bool {
    match attribute {
        // For rules, locally generated packets arrive on the loopback interface (ip-rule(8)).
        RuleAttribute::Iifname(name) => name == "lo",
        RuleAttribute::UidRange(range) => (range.start..=range.end).contains(&uid),
        // These describe a rule or its action, not what it matches. A VRF's rule (l3mdev) has a table only for sockets
        // of the VRF.
        RuleAttribute::Protocol(_)
        | RuleAttribute::Realm(_)
        | RuleAttribute::Goto(_)
        | RuleAttribute::SuppressIfGroup(_) => true,
        RuleAttribute::L3MDev(vrf) => !vrf,
        RuleAttribute::TunId(id) => *id == 0,
        RuleAttribute::Other(other) => other.kind() == FRA_PAD,
        _ => false,
    }
}
