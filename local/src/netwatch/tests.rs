use std::process::Command;

use gh_net_common::netlink::MAX_ITEMS;

use super::*;

fn interface(index: u32, name: &str, up: bool) -> Interface {
    let flags = InterfaceFlags { up, running: up, point_to_point: false };
    Interface { index, name: name.to_owned(), kind: InterfaceKind::Hardware, flags, master: None }
}

fn route(prefix: &str, hops: &[u32]) -> Route {
    Route {
        table: MAIN_TABLE,
        prefix: prefix.parse().unwrap(),
        metric: 0,
        kind: RouteKind::Unicast,
        scope: 0,
        protocol: 4,
        hops: hops.iter().map(|interface| NextHop { interface: *interface, gateway: None }).collect(),
    }
}

fn said(before: &Snapshot, after: &Snapshot) -> String {
    before.delta(after).to_string()
}

#[test]
fn equal_snapshots_have_no_delta() {
    let one = Snapshot { interfaces: vec![interface(1, "eth0", true)], ..Snapshot::default() };
    assert!(one.delta(&one.clone()).is_empty());
}

#[test]
fn a_vpn_that_comes_up_is_described() {
    let before = Snapshot { interfaces: vec![interface(7, "wg0", false)], ..Snapshot::default() };
    let after = Snapshot {
        interfaces: vec![interface(7, "wg0", true)],
        addresses: vec![Address { interface: 7, address: "10.8.0.2/24".parse().unwrap(), peer: None }],
        routes: vec![route("10.0.0.0/8", &[7])],
        ..Snapshot::default()
    };
    assert_eq!(
        said(&before, &after),
        "interface wg0 came up, address 10.8.0.2/24 on wg0 added, route 10.0.0.0/8 via wg0 added"
    );
    assert_eq!(
        said(&after, &before),
        "interface wg0 went down, address 10.8.0.2/24 on wg0 removed, route 10.0.0.0/8 via wg0 removed"
    );
}

#[test]
fn a_removed_link_is_named_as_it_was() {
    let before = Snapshot {
        interfaces: vec![interface(7, "wg0", true)],
        routes: vec![route("0.0.0.0/0", &[7])],
        ..Snapshot::default()
    };
    assert_eq!(said(&before, &Snapshot::default()), "interface wg0 removed, route default via wg0 removed");
}

#[test]
fn a_route_that_moves_is_described_with_old_and_new_interfaces() {
    let interfaces = vec![interface(1, "eth0", true), interface(2, "wg0", true)];
    let before = Snapshot {
        interfaces: interfaces.clone(),
        routes: vec![route("10.0.0.0/8", &[1])],
        ..Snapshot::default()
    };
    let after = Snapshot { interfaces, routes: vec![route("10.0.0.0/8", &[1, 2])], ..Snapshot::default() };
    assert_eq!(
        said(&before, &after),
        "route 10.0.0.0/8 via eth0 removed, route 10.0.0.0/8 via eth0 and wg0 added"
    );
}

#[test]
fn the_text_of_a_long_delta_is_cut_short() {
    let routes = (0..50u8).map(|n| route(&format!("10.{n}.0.0/16"), &[])).collect();
    let after = Snapshot { routes, ..Snapshot::default() };
    assert!(said(&Snapshot::default(), &after).ends_with("route 10.4.0.0/16 added, and 45 more"));
}

#[test]
fn additions_keep_what_a_later_snapshot_lacks() {
    let rule = |priority, table| Rule {
        v6: false,
        priority,
        matches: true,
        destination: None,
        inverted: false,
        action: RuleAction::Table { table, suppress: None },
    };
    let before = Snapshot {
        interfaces: vec![interface(1, "eth0", true), interface(7, "wg0", true)],
        routes: vec![route("10.0.0.0/8", &[7]), route("192.168.0.0/16", &[1])],
        rules: vec![rule(5, 52), rule(32766, MAIN_TABLE)],
        ..Snapshot::default()
    };
    let later = Snapshot {
        interfaces: vec![interface(1, "eth0", false), interface(8, "wg1", true)],
        routes: vec![route("172.16.0.0/12", &[8]), route("192.168.0.0/16", &[1])],
        rules: vec![rule(6, 53), rule(32766, MAIN_TABLE)],
        ..Snapshot::default()
    };
    let joined = before.with_additions(&later);
    assert_eq!(
        joined.interfaces,
        [interface(1, "eth0", false), interface(7, "wg0", true), interface(8, "wg1", true)]
    );
    let expected = [route("10.0.0.0/8", &[7]), route("172.16.0.0/12", &[8]), route("192.168.0.0/16", &[1])];
    assert_eq!(joined.routes, expected);
    assert_eq!(joined.rules, [rule(5, 52), rule(6, 53), rule(32766, MAIN_TABLE)]);
    assert_eq!(later.with_additions(&later), later);
}

/// Runs the test of this name again in network and user namespaces of its own; true in that run.
fn in_a_namespace(test: &str) -> bool {
    const MARK: &str = "GH_NET_TEST_NAMESPACE";
    if std::env::var_os(MARK).is_some() {
        return true;
    }
    let isolated = ["--user", "--map-root-user", "--net"];
    let allowed = Command::new("unshare").args(isolated).arg("true").status().is_ok_and(|it| it.success());
    if !allowed {
        assert!(std::env::var_os("CI").is_none(), "this machine does not allow user namespaces");
        eprintln!("SKIPPED: {test} needs user namespaces, which this machine does not allow");
        return false;
    }
    let run = Command::new("unshare")
        .args(isolated)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(MARK, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stdout) + String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success() && said.contains("1 passed"), "{test}, in its namespace: {said}");
    false
}

fn ip(command: &str) {
    let status = Command::new("ip").args(command.split(' ')).status().unwrap();
    assert!(status.success(), "ip {command}");
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Waits for a change, far longer than the kernel takes to report one.
async fn changed(watch: &mut Netwatch) -> Changes {
    tokio::time::timeout(std::time::Duration::from_secs(10), watch.changed()).await.unwrap().unwrap()
}

#[test]
fn the_kernels_networks_are_read() {
    if !in_a_namespace("netwatch::tests::the_kernels_networks_are_read") {
        return;
    }
    for command in [
        "link set lo up",
        "link add lan type veth peer name far",
        "link set far up",
        "link set lan up",
        "address add 192.168.7.5/24 dev lan",
        "address add 2001:db8:7::5/64 dev lan nodad",
        "tuntap add mode tun vpn",
        "address add 10.8.0.6 peer 10.8.0.5/32 dev vpn",
        "link set vpn up",
        "link add br0 type bridge",
        "link add inside type veth peer name outside",
        "link set inside master br0",
        "route add default via 192.168.7.1",
        "route add 10.20.0.0/16 via 10.8.0.5 metric 50",
        "route add unreachable 10.20.9.0/24",
        "route add 10.30.0.0/16 table 51820 dev vpn",
        "route add 10.40.0.0/16 nexthop via 192.168.7.1 nexthop via 192.168.7.2",
        "-6 route add fd00:20::/32 via 2001:db8:7::1",
        "rule add not fwmark 51820 table 51820 priority 100",
        "rule add fwmark 7 table 7 priority 101",
        "rule add table main suppress_prefixlength 0 priority 99",
        "-6 rule add to fd00:30::/32 table 30 priority 98",
    ] {
        ip(command);
    }
    runtime().block_on(async {
        let snapshot = Netwatch::open().unwrap().snapshot().unwrap();
        assert!(!snapshot.truncated);
        let interface =
            |name: &str| snapshot.interfaces.iter().find(|interface| interface.name == name).unwrap();
        assert_eq!(interface("lo").kind, InterfaceKind::Loopback);
        assert_eq!(interface("br0").kind, InterfaceKind::Bridge);
        assert_eq!(interface("inside").kind, InterfaceKind::Veth);
        assert_eq!(interface("inside").master, Some(interface("br0").index));
        assert_eq!(
            (&interface("vpn").kind, interface("vpn").flags.point_to_point),
            (&InterfaceKind::Tun, true)
        );
        assert!(interface("lan").flags.up && !interface("inside").flags.up);

        let address =
            |text: &str| snapshot.addresses.iter().find(|it| it.address.addr().to_string() == text).unwrap();
        assert_eq!(address("192.168.7.5").network().to_string(), "192.168.7.0/24");
        assert_eq!(address("2001:db8:7::5").network().to_string(), "2001:db8:7::/64");
        assert_eq!(address("10.8.0.6").network().to_string(), "10.8.0.5/32", "the peer's");

        let route = |text: &str| snapshot.routes.iter().find(|it| it.prefix.to_string() == text).unwrap();
        let vpn = interface("vpn").index;
        assert_eq!(route("0.0.0.0/0").hops[0].gateway, Some("192.168.7.1".parse().unwrap()));
        assert_eq!((route("10.20.0.0/16").metric, route("10.20.0.0/16").hops[0].interface), (50, vpn));
        assert_eq!(route("10.20.9.0/24").kind, RouteKind::Blocked);
        assert_eq!(route("10.30.0.0/16").table, 51820);
        assert_eq!(route("10.40.0.0/16").hops.len(), 2);
        assert_eq!(route("192.168.7.5/32").kind, RouteKind::Local);
        assert_eq!(route("192.168.7.255/32").kind, RouteKind::Broadcast);
        assert_eq!(route("fd00:20::/32").hops[0].gateway, Some("2001:db8:7::1".parse().unwrap()));

        let rule = |priority| snapshot.rules.iter().find(|it| it.priority == priority).unwrap();
        assert_eq!(rule(99).action, RuleAction::Table { table: MAIN_TABLE, suppress: Some(0) });
        assert_eq!((rule(100).matches, rule(100).inverted), (false, true), "no mark, so not its mark");
        assert_eq!((rule(101).matches, rule(101).inverted), (false, false));
        assert_eq!(rule(98).destination, Some("fd00:30::/32".parse().unwrap()));
        assert_eq!(rule(32766).action, RuleAction::Table { table: MAIN_TABLE, suppress: None });
    });
}

#[test]
fn changes_are_noticed_and_described() {
    if !in_a_namespace("netwatch::tests::changes_are_noticed_and_described") {
        return;
    }
    ip("link add wg0 type veth peer name far");
    ip("link set far up");
    runtime().block_on(async {
        let mut watch = Netwatch::open().unwrap();
        let before = watch.snapshot().unwrap();
        let mut step = async |before: &Snapshot, commands: &[&str], expected: &str| {
            commands.iter().copied().for_each(ip);
            changed(&mut watch).await;
            let after = watch.snapshot().unwrap();
            let delta = before.delta(&after);
            let told: Vec<String> = delta.changes.iter().map(ToString::to_string).collect();
            assert!(told.iter().any(|change| change == expected), "{expected:?} is not in {told:?}");
            after
        };
        let up = step(&before, &["link set wg0 up"], "interface wg0 came up").await;
        let address = ["address add 10.8.0.2/24 dev wg0"];
        let addressed = step(&up, &address, "address 10.8.0.2/24 on wg0 added").await;
        let routed =
            step(&addressed, &["route add 10.0.0.0/8 dev wg0"], "route 10.0.0.0/8 via wg0 added").await;
        let six = ["-6 route add fd00:8::/32 dev wg0"];
        let routed = step(&routed, &six, "route fd00:8::/32 via wg0 added").await;
        let rule = ["rule add table 52 priority 5270"];
        let ruled = step(&routed, &rule, "IPv4 rule 5270 to table 52 added").await;
        step(&ruled, &["link del wg0"], "route 10.0.0.0/8 via wg0 removed").await;
    });
}

#[test]
fn a_flood_of_changes_neither_blocks_nor_breaks_the_watch() {
    if !in_a_namespace("netwatch::tests::a_flood_of_changes_neither_blocks_nor_breaks_the_watch") {
        return;
    }
    ip("link add lan type veth peer name far");
    ip("link set lan up");
    let directory = tempfile::tempdir().unwrap();
    let batch = directory.path().join("batch");
    // Enough to overflow the socket's buffer, and more than a snapshot holds.
    let count = MAX_ITEMS as u32 + 1000;
    let lines = (0..count).map(|n| {
        let prefix = std::net::Ipv4Addr::from_bits((10 << 24) + n);
        format!("route add {prefix}/32 dev lan\n")
    });
    std::fs::write(&batch, lines.collect::<String>()).unwrap();
    runtime().block_on(async {
        let mut watch = Netwatch::open().unwrap();
        let status = Command::new("ip").arg("-batch").arg(&batch).status().unwrap();
        assert!(status.success());
        let mut changes = changed(&mut watch).await;
        let snapshot = watch.snapshot().unwrap();
        assert!(snapshot.truncated);
        assert_eq!(snapshot.routes.len(), MAX_ITEMS);
        // The watch continues to work.
        while changes == Changes::Ongoing {
            changes = changed(&mut watch).await;
        }
        ip("link set lan down");
        changed(&mut watch).await;
    });
}
