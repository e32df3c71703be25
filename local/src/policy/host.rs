//! The addresses of the host, if the laptop is a virtual machine. Pure.
//!
//! The host's own services are reachable there, also those that listen on its loopback, as if by a program of the host. Only
//! what surely is the host is taken for it: a default gateway may as well be a router of the company, where the virtual
//! machine is bridged to the host's network. So each case is a network that only the hypervisor sets up in this way.
//!
//! Not known from within are the host's addresses on its own networks, and the gateways of VMware and Hyper-V, whose NAT has
//! networks like any other.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};

use crate::netwatch::{Machine, Snapshot};

/// The host's end of Docker Desktop's network: its gateway, its resolver, `host.docker.internal`.
const DOCKER_DESKTOP: [Ipv4Addr; 3] =
    [Ipv4Addr::new(192, 168, 65, 1), Ipv4Addr::new(192, 168, 65, 2), Ipv4Addr::new(192, 168, 65, 254)];

/// The host's addresses, as far as they are known.
pub(super) fn addresses(snapshot: &Snapshot) -> Vec<IpAddr> {
    if snapshot.machine == Machine::Unknown {
        return Vec::new();
    }
    let gateways: Vec<Ipv4Addr> = gateways(snapshot).collect();
    let own = snapshot.addresses.iter().map(|it| it.address);
    let mut found: Vec<IpAddr> = own.flat_map(|own| of_network(snapshot, own, &gateways)).collect();
    if snapshot.machine == Machine::DockerDesktop {
        // A container's gateway is the virtual machine, which is a part of Docker Desktop.
        found.extend(gateways.into_iter().chain(DOCKER_DESKTOP).map(IpAddr::from));
    }
    found
}

fn gateways(snapshot: &Snapshot) -> impl Iterator<Item = Ipv4Addr> {
    let defaults = snapshot.routes.iter().filter(|route| route.prefix.prefix_len() == 0);
    defaults.flat_map(|route| &route.hops).filter_map(|hop| match hop.gateway {
        Some(IpAddr::V4(gateway)) => Some(gateway),
        Some(IpAddr::V6(_)) | None => None,
    })
}

/// The host's addresses in the network of one of the laptop's own.
fn of_network(snapshot: &Snapshot, own: IpNet, gateways: &[Ipv4Addr]) -> Vec<IpAddr> {
    match own {
        IpNet::V4(own) => of_v4(snapshot, own, gateways).into_iter().map(IpAddr::from).collect(),
        // The user network of QEMU: host and resolver.
        IpNet::V6(own) if own.addr().segments()[..4] == [0xfec0, 0, 0, 0] => {
            [2, 3].map(|host| Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, host).into()).to_vec()
        }
        IpNet::V6(_) => Vec::new(),
    }
}

fn of_v4(snapshot: &Snapshot, own: Ipv4Net, gateways: &[Ipv4Addr]) -> Vec<Ipv4Addr> {
    let [a, b, c, last] = own.addr().octets();
    let at = |host: u8| Ipv4Addr::new(a, b, c, host);
    let is_gateway = |host: u8| gateways.contains(&at(host));
    match (snapshot.machine, own.prefix_len(), [a, b, c]) {
        (Machine::Unknown, ..) => Vec::new(),
        // WSL's NAT; where Windows' networks are mirrored, there is an interface `loopback0`, and the gateway is a router.
        (Machine::Wsl, 20, _) => {
            let first = own.hosts().next().filter(|first| gateways.contains(first));
            let is_mirrored = snapshot.interfaces.iter().any(|it| it.name == "loopback0");
            first.filter(|first| first.is_private() && !is_mirrored).into_iter().collect()
        }
        // The user network (slirp) of QEMU, VirtualBox (10.0.2.0 for the first adapter, then 10.0.3.0, …) and Lima: host,
        // resolver, file server.
        (_, 24, [10, 0, _] | [192, 168, 5]) if last == 15 && is_gateway(2) => vec![at(2), at(3), at(4)],
        // podman machine and others with gvisor-tap-vsock.
        (_, 24, [192, 168, 127]) if last == 2 && is_gateway(1) => vec![at(1), at(254)],
        // The default network of libvirt.
        (Machine::Qemu, 24, [192, 168, 122]) if is_gateway(1) => vec![at(1)],
        // The host-only network of VirtualBox has no router.
        (Machine::VirtualBox, 24, [192, 168, 56]) if !is_gateway(1) => vec![at(1)],
        (Machine::Parallels, 24, [10, 211, 55]) => vec![at(1), at(2)],
        _ => Vec::new(),
    }
}
