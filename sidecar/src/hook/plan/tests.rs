//! The plan, from announced networks to a table.

use gh_net_common::frame::Routes;

use super::*;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn tunnel(v6: bool) -> Vec<TunnelAddress> {
    let mut tunnel =
        vec![TunnelAddress { sidecar: net("198.19.240.1/30"), gateway: "198.19.240.2".parse().unwrap() }];
    if v6 {
        tunnel.push(TunnelAddress {
            sidecar: net("fd67:682d:6e65:74::1/126"),
            gateway: "fd67:682d:6e65:74::2".parse().unwrap(),
        });
    }
    tunnel
}

fn add(nets: &[&str]) -> Routes {
    Routes::Change { add: nets.iter().map(|n| net(n)).collect(), remove: vec![] }
}

#[test]
fn the_gateway_is_reached_by_the_tunnel_from_the_start() {
    let table = Plan::new(tunnel(true)).table();
    assert_eq!(table[&net("198.19.240.2/32")], Target::Tunnel);
    assert_eq!(table[&net("fd67:682d:6e65:74::2/128")], Target::Tunnel);
    assert_eq!(table[&net("169.254.0.0/16")], Target::Direct);
}

#[test]
fn addresses_that_carry_the_session_stay_out_of_the_tunnel() {
    let mut plan = Plan::new(tunnel(false));
    plan.set_exceptions(["::ffff:10.0.0.5".parse().unwrap()]);
    plan.add_exceptions(["10.0.0.6".parse().unwrap()]);
    plan.update(&add(&["10.0.0.0/8", "10.0.0.5/32", "10.0.0.6/32"]));
    let table = plan.table();
    assert_eq!(table[&net("10.0.0.0/8")], Target::Tunnel);
    assert_eq!(table[&net("10.0.0.5/32")], Target::Direct);
    assert_eq!(table[&net("10.0.0.6/32")], Target::Direct);
}

#[test]
fn reserved_and_own_networks_are_refused_and_counted() {
    let mut plan = Plan::new(tunnel(true));
    let refused = plan.update(&add(&[
        "127.0.0.0/8",
        "169.254.169.254/32",
        "239.1.0.0/16",
        "fe80::/64",
        "::1/128",
        "198.19.240.0/30",
        "198.19.240.2/32",
        "fd67:682d:6e65:74::/126",
    ]));
    assert_eq!(refused, Refused { never: 8, ..Refused::default() });
    assert!(plan.laptop().is_empty());
}

#[test]
fn a_default_route_of_the_laptop_is_taken_as_it_is() {
    let mut plan = Plan::new(tunnel(false));
    assert_eq!(plan.update(&add(&["0.0.0.0/0"])), Refused::default());
    assert_eq!(plan.table()[&net("0.0.0.0/0")], Target::Tunnel);
    assert_eq!(plan.table()[&net("224.0.0.0/4")], Target::Direct);
}

#[test]
fn routes_of_a_family_the_tunnel_lacks_are_counted() {
    let mut plan = Plan::new(tunnel(false));
    assert_eq!(plan.update(&add(&["2001:db8::/32", "10.0.0.0/8"])).family, 1);
    assert_eq!(plan.laptop().len(), 1);
}

#[test]
fn the_number_of_routes_is_bounded() {
    let mut plan = Plan::new(tunnel(false));
    let many = (0..MAX_ROUTES as u32 + 5).map(|n| IpNet::from(IpAddr::from((0x0a00_0000 + n).to_be_bytes())));
    let refused = plan.update(&Routes::Last(many.collect()));
    assert_eq!(refused.surplus, 5);
    assert_eq!(plan.laptop().len(), MAX_ROUTES);
}

#[test]
fn parts_count_when_the_set_is_complete_and_only_with_parts_of_the_same_link() {
    let mut plan = Plan::new(tunnel(false));
    plan.update(&add(&["10.0.0.0/8"]));
    let (first, second, last) = ([net("10.1.0.0/16")], [net("10.2.0.0/16")], [net("10.3.0.0/16")]);
    plan.update(&Routes::Part(first.to_vec()));
    assert_eq!(plan.laptop().iter().copied().collect::<Vec<_>>(), [net("10.0.0.0/8")]);
    plan.discard_parts();
    plan.update(&Routes::Part(second.to_vec()));
    plan.update(&Routes::Last(last.to_vec()));
    assert_eq!(plan.laptop().iter().copied().collect::<Vec<_>>(), [second, last].concat());
}

#[test]
fn a_full_set_replaces_and_a_change_changes() {
    let mut plan = Plan::new(tunnel(false));
    plan.update(&add(&["10.0.0.0/8", "10.20.0.7/16"]));
    plan.update(&Routes::Change { add: vec![], remove: vec![net("10.20.99.0/16")] });
    assert_eq!(plan.laptop().iter().copied().collect::<Vec<_>>(), [net("10.0.0.0/8")]);
    plan.update(&Routes::Last(vec![net("192.168.7.0/24")]));
    assert_eq!(plan.laptop().iter().copied().collect::<Vec<_>>(), [net("192.168.7.0/24")]);
}

#[test]
fn prefixes_overlap_if_one_contains_the_other() {
    let nets = BTreeSet::from([net("10.1.0.0/16"), net("fd20::/32")]);
    for other in ["10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32", "0.0.0.0/0", "fd20:0:1::/48", "::/0"] {
        assert!(overlaps(&nets, &net(other)), "{other}");
    }
    for other in ["10.0.0.0/16", "10.2.0.0/15", "11.0.0.0/8", "fd21::/32"] {
        assert!(!overlaps(&nets, &net(other)), "{other}");
    }
}
