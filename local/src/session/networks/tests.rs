use gh_net_common::frame::TunnelAddress;

use super::*;
use crate::netwatch::{
    Interface, InterfaceFlags, InterfaceKind, MAIN_TABLE, NextHop, Route as KernelRoute, RouteKind,
};
use crate::policy::RouteChoice;
use crate::status::RouteReason;

/// A laptop with a default route on wlan0, and routes on interfaces that are named by their index.
fn snapshot(routes: &[(&str, u32)]) -> Snapshot {
    let interface = |index, name: &str| Interface {
        index,
        name: name.to_owned(),
        kind: InterfaceKind::Hardware,
        flags: InterfaceFlags { up: true, running: true, point_to_point: false },
        master: None,
    };
    let route = |prefix: &str, interface| KernelRoute {
        table: MAIN_TABLE,
        prefix: prefix.parse().unwrap(),
        metric: 0,
        kind: RouteKind::Unicast,
        scope: 0,
        protocol: 4,
        hops: vec![NextHop { interface, gateway: None }],
    };
    let mut routes: Vec<_> = routes.iter().map(|&(prefix, interface)| route(prefix, interface)).collect();
    routes.push(route("0.0.0.0/0", 1));
    routes.sort();
    Snapshot {
        interfaces: vec![interface(1, "wlan0"), interface(2, "vpn0"), interface(3, "vpn1")],
        routes,
        ..Snapshot::default()
    }
}

fn resolver(search: &str) -> Configuration {
    Configuration { search: vec![search.to_owned()], changes: 0 }
}

fn networks(routes: &[(&str, u32)]) -> Networks {
    Networks::new(Choice::default(), DnsMode::Split, snapshot(routes), resolver("corp.internal"))
}

fn update(networks: &mut Networks, routes: &[(&str, u32)]) -> Option<Update> {
    networks.update(snapshot(routes), resolver("corp.internal"))
}

fn prefixes(prefixes: &[&str]) -> Vec<IpNet> {
    prefixes.iter().map(|prefix| prefix.parse().unwrap()).collect()
}

#[test]
fn a_new_link_gets_full_sets_and_a_change_only_the_difference() {
    let mut networks = networks(&[("10.20.0.0/16", 2)]);
    let frames = networks.link_frames();
    assert_eq!(frames[0], Frame::Routes(Routes::Last(prefixes(&["10.20.0.0/16"]))));
    let [_, Frame::Dns(dns)] = frames.as_slice() else { panic!("{frames:?}") };
    assert_eq!(dns.domains, ["corp.internal", "gh-net.internal", "20.10.in-addr.arpa"]);

    assert!(update(&mut networks, &[("10.20.0.0/16", 2)]).is_none(), "nothing changed");
    let update = update(&mut networks, &[("10.30.0.0/16", 3)]).unwrap();
    let change = Routes::Change { add: prefixes(&["10.30.0.0/16"]), remove: prefixes(&["10.20.0.0/16"]) };
    assert_eq!(update.frames[0], Frame::Routes(change));
    assert!(matches!(&update.frames[1..], [Frame::Dns(dns)] if dns.domains[2] == "30.10.in-addr.arpa"));
    assert_eq!(
        crate::status::lines::route_changes(&update.changes),
        ["+10.30.0.0/16 (route on vpn1)", "-10.20.0.0/16 (was: route on vpn0)"]
    );
    assert_eq!(update.policy.as_ref(), Some(networks.policy()));
}

#[test]
fn a_change_of_no_forwarded_network_only_tells_that_names_may_have_changed() {
    let mut networks = networks(&[("10.20.0.0/16", 2)]);
    let update = update(&mut networks, &[("10.20.0.0/16", 3)]).unwrap();
    assert_eq!(update.frames, networks.link_frames()[1..]);
    assert!(matches!(update.frames[..], [Frame::Dns(_)]) && update.changes.is_empty(), "{update:?}");
    let reason = RouteReason::Route { interface: Some("vpn1".into()) };
    assert_eq!(networks.routes()[0].reason, reason, "but the status shows the new interface");
}

#[test]
fn a_change_too_large_for_one_frame_is_a_full_set() {
    let mut networks = networks(&[("10.20.0.0/16", 2)]);
    let many: Vec<String> =
        (0..MAX_PREFIXES + 1).map(|n| format!("10.{}.{}.0/32", n / 256, n % 256)).collect();
    let many: Vec<(&str, u32)> = many.iter().map(|prefix| (prefix.as_str(), 2)).collect();
    let update = update(&mut networks, &many).unwrap();
    assert!(matches!(
        &update.frames[..2],
        [Frame::Routes(Routes::Part(part)), Frame::Routes(Routes::Last(last))]
            if part.len() == MAX_PREFIXES && last.len() == 1
    ));
}

#[test]
fn while_the_networks_change_routes_are_only_added() {
    let mut networks = networks(&[("10.20.0.0/16", 2)]);
    let add = |networks: &mut Networks, routes: &[(&str, u32)]| {
        networks.add(&snapshot(routes), resolver("corp.internal"))
    };
    assert!(add(&mut networks, &[]).is_none(), "the VPN's client rewrites its routes");
    let added = add(&mut networks, &[("10.30.0.0/16", 2)]).unwrap();
    let change = Routes::Change { add: prefixes(&["10.30.0.0/16"]), remove: Vec::new() };
    assert_eq!(added.frames[0], Frame::Routes(change));
    let settled = update(&mut networks, &[("10.30.0.0/16", 2)]).unwrap();
    let change = Routes::Change { add: Vec::new(), remove: prefixes(&["10.20.0.0/16"]) };
    assert_eq!(settled.frames[0], Frame::Routes(change));
}

#[test]
fn search_domains_alone_are_a_change() {
    let mut networks = networks(&[("10.20.0.0/16", 2)]);
    let same = snapshot(&[("10.20.0.0/16", 2)]);
    let update = networks.update(same, resolver("lab.internal")).unwrap();
    assert!(matches!(update.frames.as_slice(), [Frame::Dns(dns)] if dns.search == ["lab.internal"]));
}

#[test]
fn another_configuration_of_the_resolver_is_told_though_the_domains_are_the_same() {
    let mut networks = networks(&[("10.20.0.0/16", 2)]);
    let same = || snapshot(&[("10.20.0.0/16", 2)]);
    let again = Configuration { changes: 1, ..resolver("corp.internal") };
    let update = networks.update(same(), again.clone()).unwrap();
    assert_eq!(update.frames, networks.link_frames()[1..]);
    assert!(networks.update(same(), again.clone()).is_none());

    let mut off = Networks::new(Choice::default(), DnsMode::Off, same(), resolver("corp.internal"));
    assert!(off.update(same(), again).unwrap().frames.is_empty());
}

#[test]
fn what_happens_on_one_link_of_the_laptop_does_not_wake_the_codespace() {
    let mut networks = networks(&[("10.20.0.0/16", 2)]);
    let mut container = snapshot(&[("10.20.0.0/16", 2), ("fe80::/64", 4), ("ff00::/8", 4)]);
    container.interfaces.push(Interface {
        index: 4,
        name: "veth0".into(),
        ..container.interfaces[0].clone()
    });
    let update = networks.update(container, resolver("corp.internal")).unwrap();
    assert!(update.frames.is_empty(), "{update:?}");
}

#[test]
fn a_search_domain_of_the_public_is_not_believed_and_that_is_said() {
    let search = ["com", "corp.internal", "co.uk"].map(str::to_owned).to_vec();
    let resolver = Configuration { search, changes: 0 };
    let networks = Networks::new(Choice::default(), DnsMode::Split, snapshot(&[]), resolver.clone());
    let Some(Frame::Dns(dns)) = networks.link_frames().pop() else { panic!("no DNS settings") };
    assert_eq!(
        (dns.search, dns.domains),
        (vec!["corp.internal".to_owned()], ["corp.internal", "gh-net.internal"].map(str::to_owned).to_vec())
    );
    let said = |networks: &Networks| {
        let note = networks.notes().iter().find(|note| note.code == "search-domain-refused");
        note.map(|note| note.text.clone())
    };
    assert!(said(&networks).expect("a note").contains("com, co.uk"));
    let off = Networks::new(Choice::default(), DnsMode::Off, snapshot(&[]), resolver);
    assert_eq!(said(&off), None);
}

#[test]
fn each_network_has_its_reason() {
    let reasons = |routes: Vec<RouteChoice>| {
        let choice = Choice { routes, ..Choice::default() };
        let laptop = snapshot(&[("10.0.0.0/9", 2), ("10.128.0.0/9", 3)]);
        let networks = Networks::new(choice, DnsMode::Off, laptop, Configuration::default());
        assert_eq!(networks.link_frames().len(), 1, "no DNS settings");
        let lines = networks.routes().iter().map(|route| RouteChange::Added(route.clone()));
        crate::status::lines::route_changes(&lines.collect::<Vec<_>>())
    };
    assert_eq!(
        reasons(vec![RouteChoice::Auto]),
        ["+10.0.0.0/9 (route on vpn0)", "+10.128.0.0/9 (route on vpn1)"]
    );
    let named = RouteChoice::Network("10.20.0.0/16".parse().unwrap());
    assert_eq!(reasons(vec![named]), ["+10.20.0.0/16 (--route 10.20.0.0/16)"]);
    let private = reasons(vec![RouteChoice::Auto, RouteChoice::Private]);
    assert_eq!(private[..2], ["+10.0.0.0/9 (route on vpn0)", "+10.128.0.0/9 (route on vpn1)"]);
    assert!(private[2..].iter().all(|line| line.ends_with("(--route private)")), "{private:?}");
}

#[test]
fn the_sidecar_gets_joined_prefixes() {
    let mut networks = networks(&[("10.0.0.0/9", 2)]);
    let update = update(&mut networks, &[("10.0.0.0/9", 2), ("10.128.0.0/9", 3)]).unwrap();
    let change = Routes::Change { add: prefixes(&["10.0.0.0/8"]), remove: prefixes(&["10.0.0.0/9"]) };
    assert_eq!(update.frames[0], Frame::Routes(change));
    let lines = crate::status::lines::route_changes(&update.changes);
    assert_eq!(lines, ["+10.128.0.0/9 (route on vpn1)"]);
}

#[test]
fn what_the_codespace_has_of_its_own_is_followed_and_said_once() {
    let mut networks = networks(&[("10.20.0.0/16", 2), ("192.168.1.0/24", 3)]);
    let codespace = |own: &[&str], resolvers: &[&str]| frame::Codespace {
        networks: prefixes(own),
        resolvers: resolvers.iter().map(|resolver| resolver.parse().unwrap()).collect(),
    };
    let mut line = |codespace| {
        let (update, change) = networks.follow_codespace(codespace);
        assert!(update.frames.is_empty() && update.notes.is_empty(), "{update:?}");
        assert_eq!(update.policy, None, "its networks are not judged by: no flow has to be judged again");
        let codes = networks.notes().iter().map(|note| note.code.clone()).collect::<Vec<_>>();
        (crate::status::lines::codespace_change(&change), codes)
    };
    let said = |text: &str| Some(format!("the codespace has changed: {text}"));
    let (own, resolvers) = (["172.17.0.0/16", "10.20.3.0/24"], ["172.16.5.1"]);
    // The overlapping one is in the status, and in a notice of the sidecar.
    assert_eq!(
        line(codespace(&own, &resolvers)),
        (
            said("its own networks +172.17.0.0/16; its resolvers are now 172.16.5.1"),
            vec!["overlap".to_owned()]
        )
    );
    assert_eq!(line(codespace(&own, &resolvers)).0, None);
    assert_eq!(line(codespace(&["172.17.0.0/16"], &resolvers)), (None, vec![]));
    assert_eq!(line(codespace(&[], &[])).0, said("its own networks -172.17.0.0/16; it has no resolvers now"));
    let many: Vec<String> = (0..20).map(|number| format!("10.{}.0.0/16", 100 + number)).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let text = line(codespace(&many, &[])).0.unwrap();
    assert!(text.ends_with("+10.107.0.0/16, and 12 more"), "{text}");
}

#[test]
fn a_network_overlaps_a_route_that_contains_it_or_that_it_contains() {
    let routes = prefixes(&["10.20.0.0/16", "10.40.0.0/16", "192.168.1.0/24", "fd20::/32"]);
    for network in
        ["10.20.3.0/24", "10.0.0.0/8", "10.20.0.0/16", "192.168.1.77/32", "fd20:0:1::/48", "0.0.0.0/0"]
    {
        assert!(overlaps(&routes, &network.parse().unwrap()), "{network}");
    }
    for network in ["10.21.0.0/16", "10.30.0.0/15", "9.0.0.0/8", "192.168.2.0/24", "fd21::/32", "fd00::/16"] {
        assert!(!overlaps(&routes, &network.parse().unwrap()), "{network}");
    }
    assert!(!overlaps(&[], &"10.0.0.0/8".parse().unwrap()));
}

#[test]
fn a_note_is_reported_once() {
    let mut networks = networks(&[("10.20.0.0/16", 2)]);
    let address = TunnelAddress {
        sidecar: "198.19.240.1/30".parse().unwrap(),
        gateway: "198.19.240.2".parse().unwrap(),
    };
    let opened = Opened {
        session: [1; 16],
        token: gh_net_common::frame::Token([2; 32]),
        resumed: false,
        mtu: 1500,
        addresses: vec![address],
        device: "ghnet0".into(),
        networks: prefixes(&["10.20.3.0/24"]),
        resolvers: Vec::new(),
    };
    let codes = |notes: &[Note]| notes.iter().map(|note| note.code.clone()).collect::<Vec<_>>();
    assert_eq!(codes(&networks.set_codespace(&opened).notes), ["overlap"]);
    assert!(networks.set_codespace(&opened).notes.is_empty());
    assert_eq!(codes(&update(&mut networks, &[]).unwrap().notes), ["no-routes"]);
    assert_eq!(codes(networks.notes()), ["no-routes"]);
}
