//! Addresses and routes, from the kernel's messages. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteNextHop, RouteType, RouteVia,
};

/// An address of an interface.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// The index of the interface.
    pub interface: u32,
    /// The address, and the length of the prefix that is on the link.
    pub address: IpNet,
    /// The other end of a point-to-point link; the prefix length is then that of the peer's network.
    pub peer: Option<IpAddr>,
}

impl Address {
    /// The address of a message, if it has a usable one.
    pub fn from_message(message: AddressMessage) -> Option<Self> {
        let (mut local, mut far) = (None, None);
        for attribute in message.attributes {
            match attribute {
                AddressAttribute::Local(address) => local = Some(address),
                AddressAttribute::Address(address) => far = Some(address),
                _ => {}
            }
        }
        // IFA_ADDRESS is the peer's address on point-to-point links and the own address elsewhere (linux/if_addr.h).
        let own = local.or(far)?;
        Some(Self {
            interface: message.header.index,
            address: IpNet::new(own, message.header.prefix_len).ok()?,
            peer: far.filter(|far| *far != own),
        })
    }

    /// The network that is on the link.
    pub fn network(&self) -> IpNet {
        let base = self.peer.unwrap_or(self.address.addr());
        IpNet::new(base, self.address.prefix_len()).unwrap_or(self.address).trunc()
    }
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// The table it is in.
    pub table: u32,
    /// Its destination.
    pub prefix: IpNet,
    /// Among equal prefixes of a table the lowest metric counts.
    pub metric: u32,
    /// What happens to the packets.
    pub kind: RouteKind,
    /// How far the destination is (`RT_SCOPE_*`).
    pub scope: u8,
    /// What created it (`RTPROT_*`).
    pub protocol: u8,
    /// The next hops, several of a multipath route; empty if packets are not sent on.
    pub hops: Vec<NextHop>,
}

/// A next hop of a route.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NextHop {
    /// The index of the interface.
    pub interface: u32,
    /// The router on that link; `None` if the destination is on it.
    pub gateway: Option<IpAddr>,
}

/// What happens to the packets that take a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RouteKind {
    /// They are sent on.
    Unicast,
    /// They are for this machine.
    Local,
    /// They are for this machine and all others on the link.
    Broadcast,
    /// They are for this machine, as one of several.
    Anycast,
    /// They go to a group.
    Multicast,
    /// They are dropped, with or without an answer (blackhole, unreachable, prohibit).
    Blocked,
    /// The look-up continues with the next rule.
    Throw,
    /// Anything else.
    Other,
}

impl From<RouteType> for RouteKind {
    fn from(kind: RouteType) -> Self {
        match kind {
            RouteType::Unicast => Self::Unicast,
            RouteType::Local => Self::Local,
            RouteType::Broadcast => Self::Broadcast,
            RouteType::Anycast => Self::Anycast,
            RouteType::Multicast => Self::Multicast,
            RouteType::BlackHole | RouteType::Unreachable | RouteType::Prohibit => Self::Blocked,
            RouteType::Throw => Self::Throw,
            _ => Self::Other,
        }
    }
}

impl Route {
    /// The route of a message; `None` if it is neither IPv4 nor IPv6.
    pub fn from_message(message: RouteMessage) -> Option<Self> {
        let table = table_of(&message);
        let header = message.header;
        let any: IpAddr = match header.address_family {
            AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
            AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
            _ => return None,
        };
        let (mut destination, mut metric) = (any, 0);
        let (mut interface, mut gateway, mut hops) = (None, None, Vec::new());
        for attribute in message.attributes {
            match attribute {
                RouteAttribute::Destination(address) => destination = ip(&address)?,
                RouteAttribute::Priority(priority) => metric = priority,
                RouteAttribute::Oif(index) => interface = Some(index),
                RouteAttribute::MultiPath(ways) => hops = ways.into_iter().map(next_hop).collect(),
                other => gateway = gateway.or(router(&other)),
            }
        }
        hops.extend(interface.map(|interface| NextHop { interface, gateway }));
        hops.sort();
        Some(Self {
            table,
            prefix: IpNet::new(destination, header.destination_prefix_length).ok()?,
            metric,
            kind: header.kind.into(),
            scope: header.scope.into(),
            protocol: header.protocol.into(),
            hops,
        })
    }

    /// The routers it leads to.
    pub fn gateways(&self) -> impl Iterator<Item = IpAddr> {
        self.hops.iter().filter_map(|hop| hop.gateway)
    }
}

/// The number of the table a route is in. The header holds only numbers up to 255.
pub fn table_of(route: &RouteMessage) -> u32 {
    let attribute = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    attribute.unwrap_or_else(|| route.header.table.into())
}

fn next_hop(hop: RouteNextHop) -> NextHop {
    NextHop { interface: hop.interface_index, gateway: hop.attributes.iter().find_map(router) }
}

fn router(attribute: &RouteAttribute) -> Option<IpAddr> {
    match attribute {
        RouteAttribute::Gateway(address) => ip(address),
        RouteAttribute::Via(RouteVia::Inet6(address)) => Some((*address).into()), // RFC 5549
        _ => None,
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some((*v4).into()),
        RouteAddress::Inet6(v6) => Some((*v6).into()),
        _ => None,
    }
}
