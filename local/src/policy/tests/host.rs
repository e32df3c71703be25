//! The host of a virtual machine is refused, and a router that is not the host is not.

use super::*;
use crate::netwatch::Machine;

const HOST: Outcome = Err(Refusal::Prohibited);

/// A virtual machine with one address, and a default route by `gateway` if it is not empty.
fn guest(machine: Machine, own: &str, gateway: &str) -> Made {
    let network = own.parse::<IpNet>().unwrap().trunc().to_string();
    let mut laptop = Laptop::default().interface(2, "eth0", InterfaceKind::Hardware).address(2, own);
    laptop = laptop.route(&network, 2);
    if !gateway.is_empty() {
        laptop = laptop.via("default", 2, gateway);
    }
    laptop.0.machine = machine;
    laptop.policy(&choice(&["auto", "private"], &[]))
}

#[test]
fn the_host_of_a_virtual_machine_is_refused() {
    for (machine, own, gateway, hosts) in [
        (Machine::VirtualBox, "10.0.2.15/24", "10.0.2.2", &["10.0.2.2", "10.0.2.3", "10.0.2.4"][..]),
        (Machine::VirtualBox, "10.0.3.15/24", "10.0.3.2", &["10.0.3.2", "10.0.3.3"]),
        (Machine::VirtualBox, "192.168.56.101/24", "", &["192.168.56.1"]),
        (Machine::Qemu, "10.0.2.15/24", "10.0.2.2", &["10.0.2.2", "10.0.2.3", "64:ff9b::10.0.2.2"]),
        (Machine::Qemu, "192.168.122.77/24", "192.168.122.1", &["192.168.122.1"]),
        (Machine::Qemu, "fec0::5054:ff:fe12:3456/64", "", &["fec0::2", "fec0::3"]),
        (Machine::Virtual, "192.168.5.15/24", "192.168.5.2", &["192.168.5.2"]),
        (Machine::Virtual, "192.168.127.2/24", "192.168.127.1", &["192.168.127.1", "192.168.127.254"]),
        (Machine::Parallels, "10.211.55.3/24", "10.211.55.1", &["10.211.55.1", "10.211.55.2"]),
        (Machine::Wsl, "172.28.112.9/20", "172.28.112.1", &["172.28.112.1"]),
        (
            Machine::DockerDesktop,
            "172.17.0.2/16",
            "172.17.0.1",
            &["172.17.0.1", "192.168.65.1", "192.168.65.254"],
        ),
    ] {
        let policy = guest(machine, own, gateway);
        for host in hosts {
            assert_eq!(verdict(&policy, host), HOST, "{machine:?} {own}: {host}");
        }
    }
}

/// A bridged virtual machine is a host of the company's network like any other.
#[test]
fn a_router_that_may_be_the_companys_is_forwarded() {
    for (machine, own, gateway, other) in [
        (Machine::Unknown, "10.0.2.15/24", "10.0.2.2", "10.0.2.2"),
        (Machine::VirtualBox, "10.0.2.15/16", "10.0.2.2", "10.0.2.2"),
        (Machine::VirtualBox, "10.0.2.16/24", "10.0.2.1", "10.0.2.1"),
        (Machine::VirtualBox, "192.168.56.101/24", "192.168.56.1", "192.168.56.1"),
        (Machine::Virtual, "192.168.122.77/24", "192.168.122.1", "192.168.122.1"),
        (Machine::Qemu, "192.168.1.15/24", "192.168.1.2", "192.168.1.2"),
        (Machine::Wsl, "10.1.2.3/24", "10.1.2.1", "10.1.2.1"),
        (Machine::Wsl, "172.28.112.9/20", "172.28.112.1", "172.28.112.2"),
        (Machine::Wsl, "172.28.112.9/20", "172.28.112.254", "172.28.112.254"),
        (Machine::Qemu, "10.0.2.15/24", "10.0.2.2", "192.168.65.1"),
    ] {
        let policy = guest(machine, own, gateway);
        assert!(verdict(&policy, other).is_ok(), "{machine:?} {own}: {other}");
    }
}

#[test]
fn where_windows_networks_are_mirrored_the_gateway_is_a_router() {
    let mut laptop = Laptop::default()
        .interface(2, "eth0", InterfaceKind::Hardware)
        .interface(3, "loopback0", InterfaceKind::Hardware)
        .address(2, "172.28.112.9/20")
        .route("172.28.112.0/20", 2)
        .via("default", 2, "172.28.112.1");
    laptop.0.machine = Machine::Wsl;
    assert_eq!(verdict(&laptop.auto(), "172.28.112.1"), by(2));
}
