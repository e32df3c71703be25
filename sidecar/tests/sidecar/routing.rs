//! Which packets the kernel routes into the tunnel.

use gh_net_common::frame::{Dns, DnsMode, Frame, Goodbye, Open, Reason, Rebind, Routes, Sources};

use crate::codespace::{in_codespace, route_to, sh, snapshot};
use crate::laptop::{Laptop, net, open, resume, routes};

#[test]
fn the_laptops_networks_take_the_tunnel_and_nothing_else_does() {
    in_codespace(|| async {
        let main = || sh("ip route show table main; ip -6 route show table main");
        let before = main();
        let (mut laptop, _) = Laptop::session(0).await;
        laptop.send(&[routes(&["10.20.0.0/16", "192.168.0.0/16", "172.16.0.0/12", "fd20::/32"])]).await;
        laptop.settle().await;
        assert_eq!(main(), before, "main was edited");
        for there in ["10.20.0.10", "192.168.1.1", "172.17.0.1", "fd20::1", "198.19.240.2"] {
            assert!(route_to(there).contains("dev ghnet0"), "{}", route_to(there));
        }
        // The codespace's own networks, although the laptop announces larger ones, and the internet.
        for (here, via) in [
            ("172.16.5.77", "dev eth0"),
            ("192.168.77.5", "via 172.16.5.9"),
            ("1.1.1.1", "via 172.16.5.1"),
            ("2606:4700::1111", "via 2001:db8:5::1"),
            ("127.0.0.1", "dev lo"),
        ] {
            assert!(route_to(here).contains(via), "{}", route_to(here));
        }
        let rules = sh("ip rule; ip -6 rule");
        let lookup =
            "30000:\tfrom all lookup main suppress_prefixlength 0\n30001:\tfrom all iif lo lookup 26727\n";
        assert_eq!(rules.matches(lookup).count(), 2, "{rules}");
    });
}

#[test]
fn addresses_that_carry_the_session_stay_direct_even_if_their_network_is_forwarded() {
    in_codespace(|| async {
        sh("echo 'nameserver 10.20.0.53' >> /etc/resolv.conf");
        let mut laptop = Laptop::connect_from([10, 20, 0, 99].into()).await;
        laptop.ask(open(0)).await.unwrap();
        laptop.send(&[routes(&["10.20.0.0/16", "10.20.0.99/32", "172.16.0.0/12"])]).await;
        laptop.settle().await;
        assert!(route_to("10.20.0.98").contains("dev ghnet0"));
        for direct in ["10.20.0.99", "10.20.0.53"] {
            assert!(route_to(direct).contains("via 172.16.5.1"), "{}", route_to(direct));
        }
        assert!(route_to("172.16.5.1").contains("dev eth0"));
        // The status counts what is forwarded, which is not all that was announced.
        laptop.send(&[Frame::AskStatus]).await;
        let routes = laptop
            .until(|frame| match frame {
                Frame::SidecarStatus(status) => Some(status.routes),
                _ => None,
            })
            .await;
        assert_eq!(routes, 2);
    });
}

#[test]
fn every_router_of_a_multipath_default_route_stays_direct() {
    in_codespace(|| async {
        sh("ip route add 10.20.0.1 dev eth0; ip route add 10.20.0.2 dev eth0
            ip route replace default nexthop via 10.20.0.1 nexthop via 10.20.0.2
            ip route delete 10.20.0.1; ip route delete 10.20.0.2");
        let (mut laptop, _) = Laptop::session(0).await;
        laptop.send(&[routes(&["10.20.0.0/16"])]).await;
        laptop.settle().await;
        for (address, device) in [("10.20.0.1", "eth0"), ("10.20.0.2", "eth0"), ("10.20.0.3", "ghnet0")] {
            assert!(route_to(address).contains(&format!("dev {device}")), "{}", route_to(address));
        }
    });
}

#[test]
fn a_resuming_laptop_that_has_moved_stays_direct() {
    in_codespace(|| async {
        let mut laptop = Laptop::connect_from([10, 20, 0, 99].into()).await;
        let opened = laptop.ask(open(60)).await.unwrap();
        laptop.send(&[routes(&["10.20.0.0/16"])]).await;
        laptop.settle().await;
        laptop.cut().await;
        let mut moved = Laptop::connect_from([10, 20, 0, 7].into()).await;
        moved.ask(Open { grace: 0, ..resume(&opened) }).await.unwrap();
        assert!(route_to("10.20.0.7").contains("via 172.16.5.1"));
        assert!(route_to("10.20.0.99").contains("dev ghnet0"));
    });
}

#[test]
fn a_route_that_changes_its_kind_is_replaced_in_both_families() {
    for (peer, next, net, direct) in [
        ("10.20.0.99", "10.20.0.7", "10.20.0.0/16", "via 172.16.5.1"),
        ("fd20::99", "fd20::7", "fd20::/32", "via 2001:db8:5::1"),
    ] {
        in_codespace(move || async move {
            let mut laptop = Laptop::connect_from(peer.parse().unwrap()).await;
            let opened = laptop.ask(open(60)).await.unwrap();
            // Both have routes of their own, so each changes between the tunnel and the direct route.
            let host = |address: &str| if address.contains(':') { "/128" } else { "/32" };
            let hosts = [peer, next].map(|address| format!("{address}{}", host(address)));
            laptop.send(&[routes(&[net, &hosts[0], &hosts[1]])]).await;
            laptop.settle().await;
            assert!(route_to(peer).contains(direct), "{}", route_to(peer));
            assert!(route_to(next).contains("dev ghnet0"), "{}", route_to(next));
            laptop.cut().await;
            let mut moved = Laptop::connect_from(next.parse().unwrap()).await;
            moved.ask(Open { grace: 0, ..resume(&opened) }).await.unwrap();
            assert!(route_to(next).contains(direct), "{}", route_to(next));
            assert!(route_to(peer).contains("dev ghnet0"), "{}", route_to(peer));
            let table = sh("ip route show table 26727; ip -6 route show table 26727");
            for address in [peer, next] {
                let count = table.lines().filter(|line| line.split(' ').any(|word| word == address)).count();
                assert_eq!(count, 1, "{table}");
            }
        });
    }
}

#[test]
fn changes_are_followed_live() {
    in_codespace(|| async {
        let (mut laptop, _) = Laptop::session(0).await;
        laptop.send(&[routes(&["10.20.0.0/16", "10.30.0.0/16"])]).await;
        let change = Routes::Change { add: vec![net("10.40.0.0/16")], remove: vec![net("10.30.0.0/16")] };
        laptop.send(&[Frame::Routes(change)]).await;
        laptop.settle().await;
        assert!(route_to("10.40.0.1").contains("dev ghnet0"));
        assert!(route_to("10.30.0.1").contains("via 172.16.5.1"));
        laptop.send(&[routes(&["10.50.0.0/16"])]).await;
        laptop.settle().await;
        assert!(route_to("10.20.0.1").contains("via 172.16.5.1"));
        assert!(route_to("10.50.0.1").contains("dev ghnet0"));
    });
}

#[test]
fn a_default_route_of_the_laptop_takes_all_but_what_is_never_forwarded() {
    in_codespace(|| async {
        let (mut laptop, _) = Laptop::session(0).await;
        laptop.send(&[routes(&["0.0.0.0/0", "::/0"])]).await;
        laptop.settle().await;
        for there in ["1.1.1.1", "2606:4700::1111"] {
            assert!(route_to(there).contains("dev ghnet0"), "{}", route_to(there));
        }
        for here in [
            "172.16.5.53",
            "169.254.169.254",
            "168.63.129.16",
            "100.100.100.200",
            "fd00:ec2::254",
            "224.0.0.251",
            "172.16.5.1",
        ] {
            assert!(route_to(here).contains("dev eth0"), "{}", route_to(here));
        }
    });
}

#[test]
fn refused_routes_are_reported_once() {
    in_codespace(|| async {
        let mut laptop = Laptop::connect().await;
        let mut request = open(0);
        request.families.v6 = false;
        laptop.ask(request).await.unwrap();
        for _ in 0..3 {
            laptop.send(&[routes(&["10.20.0.0/16", "fd20::/32", "169.254.0.0/16"])]).await;
        }
        laptop.send(&[Frame::Goodbye(Goodbye { reason: Reason::Done, text: String::new() })]).await;
        let mut notices = Vec::new();
        laptop
            .until(|frame| match frame {
                Frame::Notice(notice) => {
                    notices.push(notice.text);
                    None
                }
                Frame::Goodbye(_) => Some(()),
                _ => None,
            })
            .await;
        assert_eq!(notices.len(), 2, "{notices:?}");
        assert!(notices[0].contains("address family") && notices[1].contains("link-local"), "{notices:?}");
    });
}

#[test]
fn thousands_of_routes_come_and_go() {
    in_codespace(|| async {
        let before = snapshot();
        let (mut laptop, _) = Laptop::session(0).await;
        let nets: Vec<_> = (0..10_000_u32)
            .map(|n| ipnet::IpNet::new([10, (n >> 8) as u8, n as u8, 0].into(), 24).unwrap())
            .collect();
        for chunk in nets.chunks(2000) {
            laptop.send(&[Frame::Routes(Routes::Change { add: chunk.to_vec(), remove: vec![] })]).await;
        }
        laptop.settle().await;
        assert_eq!(sh("ip route show table 26727 dev ghnet0").lines().count(), 10_001);
        laptop.send(&[routes(&["10.0.0.0/8"])]).await;
        laptop.settle().await;
        assert_eq!(sh("ip route show table 26727 dev ghnet0").lines().count(), 2);
        laptop.cut().await;
        assert_eq!(snapshot(), before);
    });
}

#[test]
fn prefixes_in_use_are_avoided_and_preferred_ones_are_used_if_they_are_free() {
    in_codespace(|| async {
        let mut laptop = Laptop::connect().await;
        let mut request = open(0);
        request.avoid = vec![net("198.19.0.0/16")];
        // The first is a network of the codespace: no reason to refuse the session.
        request.preferred = vec![net("172.16.5.0/30"), net("fd99::/64")];
        let opened = laptop.ask(request).await.unwrap();
        let addresses: Vec<String> = opened.addresses.iter().map(|a| a.sidecar.to_string()).collect();
        assert_eq!(addresses, ["198.18.0.1/30", "fd99::1/64"]);
        assert!(route_to("fd99::2").contains("dev ghnet0"));
        assert!(route_to("fd99::3").contains("via 2001:db8:5::1"));
    });
}

/// A neighbour on the codespace's LAN and a container behind a bridge, both of which route by the codespace.
const NEIGHBOURS: &str = "
    echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
    ip netns add neighbour; ip netns add container
    ip link set far netns neighbour
    ip -n neighbour address add 172.16.5.7/24 dev far
    ip -n neighbour address add 2001:db8:5::7/64 dev far nodad
    ip link add docker0 type bridge
    ip address add 172.17.0.1/16 dev docker0; ip address add fd17::1/64 dev docker0 nodad
    ip link add veth0 type veth peer name eth0 netns container
    ip link set veth0 master docker0 up; ip link set docker0 up
    ip -n container address add 172.17.0.2/16 dev eth0
    ip -n container address add fd17::2/64 dev eth0 nodad
    for host in neighbour container; do ip -n $host link set lo up; done
    ip -n neighbour link set far up; ip -n container link set eth0 up
    ip -n neighbour route add default via 172.16.5.4; ip -n neighbour -6 route add default via 2001:db8:5::4
    ip -n container route add default via 172.17.0.1; ip -n container -6 route add default via fd17::1
    until ip netns exec neighbour ping -qc1 -W1 172.16.5.4; do :; done
    until ip netns exec container ping -qc1 -W1 172.17.0.1; do :; done
    until ip netns exec container ping -qc1 -W1 fd17::1; do :; done
    until ip netns exec neighbour ping -qc1 -W1 2001:db8:5::4; do :; done";

/// Whose packets enter the tunnel: those from `host`, by the source of what the laptop gets after a ping of it.
async fn enters(laptop: &mut Laptop, host: &str, target: &str) -> bool {
    let enter = if host.is_empty() { String::new() } else { format!("ip netns exec {host} ") };
    let before = crate::codespace::device_statistics("tx")["packets"].as_u64().unwrap();
    sh(&format!("{enter}ping -qc1 -W1 {target} >/dev/null || true"));
    laptop.settle().await;
    crate::codespace::device_statistics("tx")["packets"].as_u64().unwrap() > before
}

/// Who gets an answer of the responder: one is sent to every question, if only SERVFAIL.
fn resolves(host: &str) -> bool {
    sh(&format!("ip netns exec {host} dig +tries=1 +time=6 @198.19.240.1 www.corp.example A || true"))
        .contains("status:")
}

#[test]
fn neighbours_do_not_enter_the_tunnel_but_containers_do() {
    in_codespace(|| async {
        sh("mkdir -p /run/netns");
        sh(NEIGHBOURS);
        for (containers, networks, container, neighbour) in [
            (true, &[][..], true, false),
            (false, &[], false, false),
            (false, &["172.16.5.7/32", "2001:db8:5::7/128"], false, true),
        ] {
            let mut laptop = Laptop::connect().await;
            let networks = networks.iter().map(|text| net(text)).collect();
            let from = Sources { containers, networks };
            laptop.ask(Open { from, ..open(0) }).await.unwrap();
            let dns = Dns { mode: DnsMode::Split, search: vec![], domains: vec![], rebind: Rebind::Allow };
            laptop.send(&[routes(&["10.20.0.0/16", "fd20::/32"]), Frame::Dns(dns)]).await;
            laptop.settle().await;
            for target in ["10.20.0.10", "fd20::10"] {
                assert!(enters(&mut laptop, "", target).await, "the codespace's own: {target}");
                assert_eq!(enters(&mut laptop, "container", target).await, container, "{target}");
                assert_eq!(enters(&mut laptop, "neighbour", target).await, neighbour, "{target}");
            }
            laptop.cut().await;
        }
    });
}

#[test]
fn neighbours_get_no_answer_of_the_responder_but_containers_do() {
    in_codespace(|| async {
        sh("mkdir -p /run/netns");
        sh(NEIGHBOURS);
        let (mut laptop, _) = Laptop::session(0).await;
        let dns = Dns { mode: DnsMode::Split, search: vec![], domains: vec![], rebind: Rebind::Allow };
        laptop.send(&[routes(&["10.20.0.0/16"]), Frame::Dns(dns)]).await;
        laptop.settle().await;
        let asked = tokio::task::spawn_blocking(|| ["container", "neighbour"].map(resolves));
        let [container, neighbour] = tokio::select! {
            asked = asked => asked.unwrap(),
            never = laptop.stay_alive() => never,
        };
        assert!(container && !neighbour, "{container} {neighbour}");
    });
}

#[test]
fn containers_of_a_network_that_comes_later_enter_the_tunnel() {
    in_codespace(|| async {
        let (mut laptop, _) = Laptop::session(0).await;
        laptop.send(&[routes(&["10.20.0.0/16"])]).await;
        laptop.settle().await;
        sh(
            "ip link add br-late type bridge; ip address add 172.18.0.1/16 dev br-late; ip link set br-late up",
        );
        let has_rule = || sh("ip rule").contains("iif br-late lookup 26727");
        while !has_rule() {
            laptop.settle().await;
        }
        sh("ip link delete br-late");
        while has_rule() {
            laptop.settle().await;
        }
    });
}
