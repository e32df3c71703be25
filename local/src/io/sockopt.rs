//! Socket options that socket2 and std do not have.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;

use nix::ifaddrs::{InterfaceAddress, getifaddrs};
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{setsockopt, sockopt};
use nix::{setsockopt_impl, sockopt_impl};
use socket2::{Domain, SockRef, Socket, Type};

use crate::policy::InterfaceIndex;

sockopt_impl!(
    /// Whether and how the path's MTU is discovered.
    MtuDiscoverV4,
    SetOnly,
    libc::IPPROTO_IP,
    libc::IP_MTU_DISCOVER,
    libc::c_int
);
sockopt_impl!(
    /// The same for IPv6.
    MtuDiscoverV6,
    SetOnly,
    libc::IPPROTO_IPV6,
    libc::IPV6_MTU_DISCOVER,
    libc::c_int
);
sockopt_impl!(
    /// The interface by which packets leave, in network byte order.
    UnicastInterfaceV4,
    SetOnly,
    libc::IPPROTO_IP,
    libc::IP_UNICAST_IF,
    u32
);
sockopt_impl!(
    /// The same for IPv6.
    UnicastInterfaceV6,
    SetOnly,
    libc::IPPROTO_IPV6,
    libc::IPV6_UNICAST_IF,
    u32
);

/// Makes a TCP socket use `interface`. SO_BINDTOIFINDEX needs no privilege since Linux 5.7.
///
/// A bound socket gets no error when the laptop can't reach a neighbour: the kernel delivers that error by the loopback
/// interface, where it does not find a socket bound to another interface. So a socket is bound only if the kernel would
/// choose another interface by itself. On older kernels the routes decide.
pub(super) fn bind_to_interface(
    socket: &Socket,
    destination: SocketAddr,
    interface: InterfaceIndex,
) -> io::Result<()> {
    let chosen = source_towards(destination, None);
    if chosen.is_some() && chosen == source_towards(destination, Some(interface)) {
        return Ok(());
    }
    match socket.bind_device_by_index_v4(Some(interface)) {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => Ok(()),
        done => done,
    }
}

/// The source address of packets to `destination`. Connecting a UDP socket looks up the kernel's routes and sends
/// nothing.
fn source_towards(destination: SocketAddr, interface: Option<InterfaceIndex>) -> Option<SocketAddr> {
    let socket = Socket::new(Domain::for_address(destination), Type::DGRAM, None).ok()?;
    if interface.is_some() {
        socket.bind_device_by_index_v4(interface).ok()?;
    }
    socket.connect(&destination.into()).ok()?;
    let mut source = socket.local_addr().ok()?.as_socket()?;
    source.set_port(0);
    Some(source)
}

/// The interface that has this address.
pub(super) fn interface_of(address: IpAddr) -> Option<InterfaceIndex> {
    let is_meant = |found: &InterfaceAddress| {
        let found = found.address.as_ref();
        let v4 = found.and_then(|it| it.as_sockaddr_in()).map(|it| IpAddr::from(it.ip()));
        let v6 = found.and_then(|it| it.as_sockaddr_in6()).map(|it| IpAddr::from(it.ip()));
        v4.or(v6) == Some(address)
    };
    let found = getifaddrs().ok()?.find(is_meant)?;
    InterfaceIndex::new(if_nametoindex(&*found.interface_name).ok()?)
}

/// Makes an unconnected socket send by `interface`. Unlike a bound socket, it still gets an error when the laptop
/// can't reach a neighbour.
pub(super) fn send_by_interface(socket: &Socket, v6: bool, interface: InterfaceIndex) -> nix::Result<()> {
    let index = interface.get().to_be();
    if v6 {
        setsockopt(socket, UnicastInterfaceV6, &index)
    } else {
        setsockopt(socket, UnicastInterfaceV4, &index)
    }
}

/// Never sets "don't fragment": a datagram larger than the MTU leaves in fragments, as it arrived.
pub(super) fn allow_fragments(socket: &impl AsFd, v6: bool) -> nix::Result<()> {
    if v6 {
        setsockopt(socket, MtuDiscoverV6, &libc::IP_PMTUDISC_DONT)
    } else {
        setsockopt(socket, MtuDiscoverV4, &libc::IP_PMTUDISC_DONT)
    }
}

/// Queues the ICMP errors about what the socket sends, with their details (ip(7), `IP_RECVERR`).
pub(super) fn queue_errors(socket: &impl AsFd, v6: bool) -> nix::Result<()> {
    if v6 {
        setsockopt(socket, sockopt::Ipv6RecvErr, &true)
    } else {
        setsockopt(socket, sockopt::Ipv4RecvErr, &true)
    }
}

/// Sets the hop limit (TTL) of packets sent from now on.
pub(super) fn set_hop_limit(socket: &SockRef<'_>, v6: bool, hop_limit: u8) -> io::Result<()> {
    if v6 { socket.set_unicast_hops_v6(hop_limit.into()) } else { socket.set_ttl_v4(hop_limit.into()) }
}
