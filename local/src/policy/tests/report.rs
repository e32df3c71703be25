//! The report to the user: reasons, hints, overlaps; and the networks that the tunnel's addresses avoid.

use std::net::Ipv4Addr;

use super::*;

/// The forwarded networks as the status shows them.
fn told(choice: &Choice, laptop: &Laptop) -> Vec<String> {
    let report = laptop.policy(choice).report;
    report.routes.iter().map(|route| format!("{}: {}", route.network, route.reason)).collect()
}

#[test]
fn each_forwarded_network_has_its_reason() {
    let laptop = Laptop::at_home()
        .interface(7, "vpn0", InterfaceKind::Tun)
        .route("10.20.0.0/16", 7)
        // Next to the LAN and by the same interface, but behind a router.
        .via("192.168.0.0/24", 2, "192.168.1.7")
        .add(
            "10.9.0.0/16",
            RouteKind::Unicast,
            [2, 7].map(|interface| NextHop { interface, gateway: None }).into(),
        );
    let routes = told(&choice(&["auto", "172.16.0.0/12"], &[]), &laptop);
    assert_eq!(
        routes,
        [
            "10.9.0.0/16: route on several interfaces",
            "10.20.0.0/16: route on vpn0",
            "172.16.0.0/12: --route 172.16.0.0/12",
            "192.168.0.0/24: route on wlan0",
            "192.168.1.0/24: connected on wlan0",
            "2001:db8:1::/64: connected on wlan0",
        ]
    );
    let private = told(&choice(&["private"], &["10.0.0.0/8"]), &Laptop::default());
    assert!(private.contains(&"172.16.0.0/12: --route private".to_owned()), "{private:?}");
    assert!(!private.iter().any(|route| route.starts_with("10.")), "{private:?}");
}

#[test]
fn a_network_without_a_route_of_the_laptop_is_attributed_to_the_option() {
    let laptop = Laptop::at_home().interface(7, "vpn0", InterfaceKind::Tun).route("10.1.0.0/16", 7);
    let routes = told(&choice(&["auto", "10.0.0.0/15"], &[]), &laptop);
    assert_eq!(routes[..2], ["10.0.0.0/16: --route 10.0.0.0/15", "10.1.0.0/16: route on vpn0"]);
}

#[test]
fn hints_have_codes() {
    let hints = [
        (Hint::FullTunnel { interface: String::new() }, "full-tunnel"),
        (Hint::NoRoutes, "no-routes"),
        (Hint::TooManyRoutes, "too-many-routes"),
    ];
    for (hint, code) in hints {
        assert_eq!(hint.code(), code);
    }
    assert_eq!(Overlap::CODE, "overlap");
}

#[test]
fn overlaps_are_found_and_reported() {
    let laptop = Laptop::at_home().interface(7, "wg0", InterfaceKind::WireGuard).route("172.16.0.0/12", 7);
    let codespace = Codespace {
        networks: ["172.16.5.4/24", "172.17.0.0/16", "10.0.0.0/24"].map(|net| net.parse().unwrap()).to_vec(),
        tunnel: Vec::new(),
        gateways: Vec::new(),
    };
    let report = Report::new(&choice(&[], &["172.17.0.0/16"]), &laptop.0, &codespace);
    let [overlap] = &report.overlaps[..] else { panic!("{:?}", report.overlaps) };
    assert_eq!(
        overlap.to_string(),
        "the laptop's network 172.16.0.0/12 (wg0) overlaps the codespace's own 172.16.5.0/24: the codespace \
         keeps 172.16.5.0/24 for itself, so the laptop's hosts in it can't be reached; reach them by another \
         address, or give the codespace's network another range (a container network's subnet), or accept it with \
         --exclude 172.16.5.0/24"
    );
}

#[test]
fn a_codespace_with_countless_networks_costs_little() {
    let many = (0..20_000u32).map(|n| IpNet::from(std::net::IpAddr::V4(Ipv4Addr::from_bits((10 << 24) + n))));
    let codespace = Codespace { networks: many.collect(), tunnel: Vec::new(), gateways: Vec::new() };
    let report = Report::new(&choice(&["10.0.0.0/8"], &[]), &Snapshot::default(), &codespace);
    assert_eq!(report.overlaps.len(), 16);
}

#[test]
fn one_network_of_the_codespace_that_contains_all_routes_of_the_laptop_costs_little() {
    let route = |n: u32| format!("{}/32", Ipv4Addr::from_bits((10 << 24) + 2 * n));
    let laptop = Laptop::at_home().interface(7, "vpn0", InterfaceKind::Tun);
    let laptop = (0..10_000).fold(laptop, |laptop, n| laptop.route(&route(n), 7));
    let twice = ["10.0.0.0/8", "10.0.0.0/8"].map(|network| network.parse().unwrap());
    let codespace = Codespace { networks: twice.to_vec(), tunnel: Vec::new(), gateways: Vec::new() };
    assert_eq!(Report::new(&Choice::default(), &laptop.0, &codespace).overlaps.len(), 16);
}

#[test]
fn the_tunnel_stays_clear_of_what_both_sides_have() {
    let laptop = Laptop::at_home()
        .interface(9, "docker0", InterfaceKind::Bridge)
        .address(9, "172.17.0.1/16")
        .route("10.0.0.0/8", 7);
    let codespace = ["172.16.5.4/24".parse().unwrap()];
    let avoid = tunnel_avoid(&choice(&["auto", "private", "198.18.0.0/15"], &[]), &laptop.0, &codespace);
    let avoid: Vec<_> = avoid.iter().map(ToString::to_string).collect();
    assert_eq!(
        avoid,
        [
            "10.0.0.0/8",
            "198.18.0.0/15",
            "172.17.0.0/16",
            "172.16.5.0/24",
            "192.168.1.0/24",
            "2001:db8:1::/64"
        ]
    );
}
