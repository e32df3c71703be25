use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::*;
use crate::engine::{self, NewFlow};
use crate::netwatch::{
    Address, Interface, InterfaceFlags, InterfaceKind, LOCAL_TABLE, MAIN_TABLE, NextHop, Route, RouteKind,
    Rule, RuleAction, Snapshot,
};

mod host;
mod host_port;
mod oracle;
mod report;
mod rules;

/// A laptop's networks, line by line as `ip` would show them.
#[derive(Default)]
pub(super) struct Laptop(Snapshot);

impl Laptop {
    /// A laptop at home: its LAN, the default route by the LAN's router, an address of its own.
    fn at_home() -> Self {
        Self::default()
            .interface(1, "lo", InterfaceKind::Loopback)
            .interface(2, "wlan0", InterfaceKind::Hardware)
            .address(1, "127.0.0.1/8")
            .address(2, "192.168.1.5/24")
            .address(2, "2001:db8:1::5/64")
            .address(2, "fe80::5/64")
            .via("default", 2, "192.168.1.1")
            .via("::/0", 2, "fe80::1")
            .route("192.168.1.0/24", 2)
            .route("2001:db8:1::/64", 2)
            .route("fe80::/64", 2)
            .route("169.254.0.0/16", 2)
    }

    fn interface(mut self, index: u32, name: &str, kind: InterfaceKind) -> Self {
        let flags = InterfaceFlags { up: true, running: true, point_to_point: kind == InterfaceKind::Tun };
        self.0.interfaces.push(Interface { index, name: name.to_owned(), kind, flags, master: None });
        self
    }

    fn master(mut self, index: u32) -> Self {
        self.0.interfaces.last_mut().unwrap().master = Some(index);
        self
    }

    fn address(mut self, interface: u32, address: &str) -> Self {
        self.0.addresses.push(Address { interface, address: address.parse().unwrap(), peer: None });
        self
    }

    fn add(mut self, prefix: &str, kind: RouteKind, hops: Vec<NextHop>) -> Self {
        let prefix = if prefix == "default" { "0.0.0.0/0" } else { prefix };
        let prefix = prefix.parse().unwrap();
        let route = Route { table: MAIN_TABLE, prefix, metric: 0, kind, scope: 0, protocol: 4, hops };
        self.0.routes.push(route);
        self
    }

    fn route(self, prefix: &str, interface: u32) -> Self {
        self.add(prefix, RouteKind::Unicast, vec![NextHop { interface, gateway: None }])
    }

    fn via(self, prefix: &str, interface: u32, gateway: &str) -> Self {
        self.add(prefix, RouteKind::Unicast, vec![NextHop { interface, gateway: gateway.parse().ok() }])
    }

    fn blocked(self, prefix: &str) -> Self {
        self.add(prefix, RouteKind::Blocked, Vec::new())
    }

    fn throw(self, prefix: &str) -> Self {
        self.add(prefix, RouteKind::Throw, Vec::new())
    }

    /// Puts the last route into this table.
    fn table(mut self, table: u32) -> Self {
        self.0.routes.last_mut().unwrap().table = table;
        self
    }

    fn metric(mut self, metric: u32) -> Self {
        self.0.routes.last_mut().unwrap().metric = metric;
        self
    }

    /// Adds a rule of IPv4 that looks into a table.
    fn rule(mut self, priority: u32, table: u32, change: impl FnOnce(&mut Rule)) -> Self {
        let action = RuleAction::Table { table, suppress: None };
        let mut rule =
            Rule { v6: false, priority, matches: true, destination: None, inverted: false, action };
        change(&mut rule);
        self.0.rules.push(rule);
        self
    }

    fn policy(&self, choice: &Choice) -> Made {
        let codespace = Codespace::default();
        Made {
            policy: Policy::new(choice, &self.0, &codespace),
            report: Report::new(choice, &self.0, &codespace),
        }
    }

    fn auto(&self) -> Made {
        self.policy(&Choice::default())
    }
}

/// A policy and the report on it.
struct Made {
    policy: Policy,
    report: Report,
}

impl Made {
    fn hints(&self) -> &[Hint] {
        &self.report.hints
    }
}

impl std::ops::Deref for Made {
    type Target = Policy;

    fn deref(&self) -> &Policy {
        &self.policy
    }
}

fn choice(routes: &[&str], excludes: &[&str]) -> Choice {
    Choice {
        routes: routes.iter().map(|text| text.parse().unwrap()).collect(),
        excludes: excludes.iter().map(|text| text.parse().unwrap()).collect(),
        rules: Rules::default(),
        host_ports: Vec::new(),
    }
}

fn routes(policy: &Policy) -> Vec<String> {
    policy.routes().iter().map(ToString::to_string).collect()
}

/// The interface of a flow that is forwarded, or how it is refused.
type Outcome = Result<Option<InterfaceIndex>, Refusal>;

fn outcome(policy: &Policy, address: IpAddr) -> Outcome {
    let client = SocketAddr::from(([10, 1, 0, 2], 40_000));
    let asked = SocketAddr::new(address, 443);
    let flow = NewFlow { protocol: Protocol::Tcp, client, destination: asked, names: &[] };
    match engine::Policy::verdict(policy, &flow) {
        Verdict::Forward { destination, interface, .. } => {
            assert_eq!(destination, asked, "forwarded elsewhere");
            Ok(interface)
        }
        Verdict::Laptop { .. } => panic!("{address} leads to the laptop"),
        Verdict::Refuse { refusal, .. } => Err(refusal),
    }
}

fn verdict(policy: &Policy, address: &str) -> Outcome {
    outcome(policy, address.parse().unwrap())
}

fn by(interface: u32) -> Outcome {
    Ok(InterfaceIndex::new(interface))
}

const ANY_WAY: Outcome = Ok(None);
const NO_ROUTE: Outcome = Err(Refusal::NoRoute);
const PROHIBITED: Outcome = Err(Refusal::Prohibited);
const SILENT: Outcome = Err(Refusal::Silent);

#[test]
fn a_laptop_at_home_forwards_its_lan_and_nothing_else() {
    let policy = Laptop::at_home().auto();
    assert_eq!(routes(&policy), ["192.168.1.0/24", "2001:db8:1::/64"]);
    assert_eq!(verdict(&policy, "192.168.1.9"), by(2));
    assert_eq!(verdict(&policy, "2001:db8:1::9"), by(2));
    assert_eq!(verdict(&policy, "1.1.1.1"), NO_ROUTE);
    assert_eq!(verdict(&policy, "2606:4700::1111"), NO_ROUTE);
    assert!(policy.hints().is_empty());
}

#[test]
fn a_split_tunnel_vpn_is_forwarded_by_its_interface() {
    let laptop = Laptop::at_home()
        .interface(7, "wg0", InterfaceKind::WireGuard)
        .route("10.0.0.0/8", 7)
        .route("10.1.0.0/16", 2)
        .blocked("10.66.0.0/16");
    let policy = laptop.auto();
    assert_eq!(verdict(&policy, "10.20.0.10"), by(7));
    assert_eq!(verdict(&policy, "10.1.0.10"), by(2), "the longest prefix wins");
    assert_eq!(verdict(&policy, "10.66.0.10"), NO_ROUTE, "what the laptop blocks is not forwarded");
    assert!(policy.hints().is_empty());
}

#[test]
fn the_lowest_metric_wins_and_several_next_hops_name_no_interface() {
    let laptop = Laptop::at_home().route("10.0.0.0/8", 7).metric(200).route("10.0.0.0/8", 8).metric(100).add(
        "10.9.0.0/16",
        RouteKind::Unicast,
        [7, 8].map(|interface| NextHop { interface, gateway: None }).into(),
    );
    let policy = laptop.auto();
    assert_eq!(verdict(&policy, "10.1.0.1"), by(8));
    assert_eq!(verdict(&policy, "10.9.0.1"), ANY_WAY);
}

#[test]
fn the_laptop_itself_is_never_reached() {
    let laptop = Laptop::at_home().interface(9, "docker0", InterfaceKind::Bridge).address(9, "172.17.0.1/16");
    let policy = laptop.policy(&choice(&["auto", "0.0.0.0/0", "::/0"], &[]));
    let own = ["192.168.1.5", "2001:db8:1::5", "fe80::5", "172.17.0.1", "127.0.0.1", "127.9.9.9", "::1"];
    let disguised = ["0.0.0.0", "0.1.2.3", "::", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1"];
    for address in own.into_iter().chain(disguised) {
        assert_eq!(verdict(&policy, address), PROHIBITED, "{address}");
    }
    assert_eq!(verdict(&policy, "192.168.1.6"), by(2));
    assert_eq!(verdict(&policy, "172.17.0.2"), ANY_WAY);
}

#[test]
fn metadata_services_are_never_reached() {
    let policy = Laptop::at_home().policy(&choice(&["0.0.0.0/0", "::/0"], &[]));
    let metadata = ["169.254.169.254", "168.63.129.16", "100.100.100.200", "fd00:ec2::254", "fd20:ce::254"];
    let translated =
        ["64:ff9b::169.254.169.254", "64:ff9b::127.0.0.1", "2002:a9fe:a9fe::1", "64:ff9b:1::127.0.0.1"];
    for address in metadata.into_iter().chain(translated) {
        assert_eq!(verdict(&policy, address), PROHIBITED, "{address}");
    }
    assert_eq!(verdict(&policy, "64:ff9b::10.1.2.3"), ANY_WAY);
}

#[test]
fn multicast_broadcast_and_link_local_get_no_answer() {
    let laptop = Laptop::at_home()
        .address(2, "10.8.0.0/31")
        .add("198.51.100.99/32", RouteKind::Broadcast, Vec::new())
        .table(LOCAL_TABLE);
    let policy = laptop.policy(&choice(&["0.0.0.0/0", "::/0"], &[]));
    let local = ["224.0.0.251", "ff02::fb", "169.254.1.1", "fe80::1"];
    let broadcast = ["255.255.255.255", "192.168.1.255", "192.168.1.0", "198.51.100.99"];
    for address in local.into_iter().chain(broadcast) {
        assert_eq!(verdict(&policy, address), SILENT, "{address}");
    }
    assert_eq!(verdict(&policy, "10.8.0.1"), ANY_WAY, "a network of two has no broadcast address (RFC 3021)");
    assert_eq!(verdict(&policy, "10.8.0.0"), PROHIBITED);
}

#[test]
fn whole_networks_in_the_local_table_are_not_reached() {
    // What `ip route add local 10.9.0.0/16 dev lo` leaves.
    let laptop = Laptop::at_home().add("10.9.0.0/16", RouteKind::Local, Vec::new()).table(LOCAL_TABLE);
    assert_eq!(verdict(&laptop.policy(&choice(&["10.0.0.0/8"], &[])), "10.9.1.1"), PROHIBITED);
}

#[test]
fn blocks_that_are_never_forwarded_are_not_in_the_routes() {
    let policy = Laptop::at_home().policy(&choice(&["0.0.0.0/0", "::/0"], &[]));
    for never in
        ["0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "fe80::/10", "ff00::/8", "::/96"]
    {
        let never: IpNet = never.parse().unwrap();
        let overlapping = policy.routes().iter().find(|it| it.contains(&never) || never.contains(*it));
        assert_eq!(overlapping, None, "{never}");
    }
    assert!(policy.routes().len() < 60, "{}", policy.routes().len());
}

#[test]
fn networks_inside_the_laptop_are_not_forwarded() {
    let laptop = Laptop::at_home()
        .interface(9, "docker0", InterfaceKind::Bridge)
        .route("172.17.0.0/16", 9)
        .interface(10, "br-0a1b2c3d4e5f", InterfaceKind::Bridge)
        .route("172.18.0.0/16", 10)
        .interface(11, "virbr0", InterfaceKind::Bridge)
        .route("192.168.122.0/24", 11)
        .interface(12, "cali0123456789a", InterfaceKind::Veth)
        .route("10.244.0.7/32", 12)
        .route("10.99.0.0/16", 1);
    assert_eq!(routes(&laptop.auto()), ["192.168.1.0/24", "2001:db8:1::/64"]);
}

#[test]
fn a_bridge_with_hardware_in_it_is_a_real_lan() {
    let laptop = Laptop::default()
        .interface(9, "virbr1", InterfaceKind::Bridge)
        .interface(3, "enp3s0", InterfaceKind::Hardware)
        .master(9)
        .route("192.168.7.0/24", 9)
        .interface(10, "br-lan", InterfaceKind::Bridge)
        .route("192.168.8.0/24", 10)
        .interface(11, "corp", InterfaceKind::Veth)
        .route("192.168.16.0/24", 11);
    assert_eq!(routes(&laptop.auto()), ["192.168.7.0/24", "192.168.8.0/24", "192.168.16.0/24"]);
}

#[test]
fn a_full_tunnel_is_not_forwarded_but_causes_a_hint() {
    let tunnel = || Laptop::at_home().interface(7, "tun0", InterfaceKind::Tun);
    let def1 = tunnel().route("0.0.0.0/1", 7).route("128.0.0.0/1", 7).route("::/1", 7).route("8000::/1", 7);
    let six = tunnel().route("2000::/3", 7);
    let plain = tunnel().route("default", 7).metric(0);
    // What wg-quick sets for "all but the private ranges".
    let complement = [
        "0.0.0.0/5",
        "8.0.0.0/7",
        "11.0.0.0/8",
        "12.0.0.0/6",
        "16.0.0.0/4",
        "32.0.0.0/3",
        "64.0.0.0/2",
        "128.0.0.0/3",
        "160.0.0.0/5",
        "168.0.0.0/6",
        "172.0.0.0/12",
        "172.32.0.0/11",
        "172.64.0.0/10",
        "172.128.0.0/9",
        "173.0.0.0/8",
        "174.0.0.0/7",
        "176.0.0.0/4",
        "192.0.0.0/9",
        "192.128.0.0/11",
        "192.160.0.0/13",
        "192.169.0.0/16",
        "192.170.0.0/15",
        "192.172.0.0/14",
        "192.176.0.0/12",
        "192.192.0.0/10",
        "193.0.0.0/8",
        "194.0.0.0/7",
        "196.0.0.0/6",
        "200.0.0.0/5",
        "208.0.0.0/4",
    ];
    let complement = complement.into_iter().fold(tunnel(), |laptop, prefix| laptop.route(prefix, 7));
    for (name, mut laptop) in [("def1", def1), ("2000::/3", six), ("plain", plain), ("list", complement)] {
        if name == "plain" {
            // The VPN's default route stands before the LAN's.
            laptop.0.routes.iter_mut().filter(|it| it.hops.iter().any(|hop| hop.interface == 2)).for_each(
                |it| {
                    it.metric = 600;
                },
            );
        }
        let policy = laptop.auto();
        assert_eq!(routes(&policy), ["192.168.1.0/24", "2001:db8:1::/64"], "{name}");
        assert_eq!(policy.hints(), [Hint::FullTunnel { interface: "tun0".to_owned() }], "{name}");
        let said = policy.hints()[0].to_string();
        assert!(said.contains("tun0") && said.contains("--route private"), "{said}");
    }
}

#[test]
fn a_full_tunnels_specific_networks_are_forwarded() {
    let laptop = Laptop::at_home()
        .interface(7, "tun0", InterfaceKind::Tun)
        .route("0.0.0.0/1", 7)
        .route("128.0.0.0/1", 7)
        .route("10.0.0.0/8", 7)
        .route("198.51.100.0/24", 7)
        .via("203.0.113.9/32", 2, "192.168.1.1");
    let policy = laptop.auto();
    assert_eq!(verdict(&policy, "10.1.2.3"), by(7));
    assert_eq!(verdict(&policy, "198.51.100.7"), by(7));
    assert_eq!(verdict(&policy, "203.0.113.9"), NO_ROUTE, "the way to the VPN's own server is no network");
}

#[test]
fn an_ordinary_default_route_is_no_vpn() {
    let policy =
        Laptop::default().interface(2, "eth0", InterfaceKind::Hardware).via("default", 2, "10.0.0.1").auto();
    assert_eq!(policy.hints(), [Hint::NoRoutes]);
    assert!(policy.routes().is_empty());
}

#[test]
fn the_private_ranges_need_no_route() {
    let laptop = Laptop::default().interface(7, "wg0", InterfaceKind::WireGuard).route("default", 7);
    let policy = laptop.policy(&choice(&["private"], &[]));
    assert_eq!(
        routes(&policy),
        ["10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"]
    );
    assert_eq!(verdict(&policy, "10.1.2.3"), ANY_WAY);
    assert_eq!(verdict(&policy, "8.8.8.8"), NO_ROUTE);
    assert!(policy.hints().is_empty());
}

/// The laptop may have a way to a translator, which then would reach what the user excludes.
#[test]
fn what_is_excluded_is_excluded_for_translators_too() {
    let laptop = Laptop::at_home().route("64:ff9b::/32", 2).route("2002::/16", 2).route("2001::/32", 2);
    let policy = laptop.policy(&choice(&["auto"], &["10.20.0.0/16"]));
    for (address, outcome) in [
        ("64:ff9b::10.20.0.10", Err(Refusal::Prohibited)),
        ("64:ff9b:1::10.20.0.10", Err(Refusal::Prohibited)),
        ("64:ff9b:1:a14:0:a00::", Err(Refusal::Prohibited)),
        ("2002:a14:a::1", Err(Refusal::Prohibited)),
        ("2001:0:c000:201::f5eb:fff5", Err(Refusal::Prohibited)),
        ("64:ff9b::10.21.0.10", by(2)),
        ("64:ff9b:1::10.21.0.10", by(2)),
        ("2002:a15:a::1", by(2)),
    ] {
        assert_eq!(verdict(&policy, address), outcome, "{address}");
    }
    assert_eq!(verdict(&policy, "::ffff:10.20.0.10"), Err(Refusal::Prohibited), "mapped ones always");
    let private = Laptop::at_home().policy(&choice(&["private"], &[]));
    assert_eq!(verdict(&private, "100.100.100.100"), Err(Refusal::Prohibited), "Tailscale's own service");
    assert_eq!(verdict(&private, "100.100.100.101"), ANY_WAY);
}

#[test]
fn excludes_are_taken_out_exactly() {
    let policy = Laptop::at_home().policy(&choice(&["10.0.0.0/8"], &["10.128.0.0/10", "192.168.0.0/16"]));
    assert_eq!(routes(&policy), ["10.0.0.0/9", "10.192.0.0/10"]);
    assert_eq!(verdict(&policy, "10.127.255.255"), ANY_WAY);
    assert_eq!(verdict(&policy, "10.128.0.0"), NO_ROUTE);
    assert_eq!(verdict(&policy, "10.191.255.255"), NO_ROUTE);
    assert_eq!(verdict(&policy, "10.192.0.0"), ANY_WAY);
}

#[test]
fn choices_add_up_and_autos_interface_stays() {
    let laptop = Laptop::at_home()
        .interface(7, "wg0", InterfaceKind::WireGuard)
        .route("10.1.0.0/16", 7)
        .blocked("10.2.0.0/16");
    let policy = laptop.policy(&choice(&["auto", "10.0.0.0/8"], &[]));
    assert_eq!(verdict(&policy, "10.1.0.1"), by(7));
    assert_eq!(verdict(&policy, "10.2.0.1"), NO_ROUTE);
    assert_eq!(verdict(&policy, "10.3.0.1"), ANY_WAY);
    let named = Laptop::at_home().blocked("10.0.0.0/8").policy(&choice(&["10.0.0.0/8"], &[]));
    assert_eq!(routes(&named), ["10.0.0.0/8"], "the user's word counts for the network as a whole");
}

#[test]
fn tailscales_table_counts() {
    let laptop = Laptop::at_home()
        .interface(7, "tailscale0", InterfaceKind::Tun)
        .route("100.100.0.0/16", 7)
        .table(52)
        .route("10.5.0.0/16", 7)
        .table(52)
        .throw("127.0.0.0/8")
        .table(52)
        .rule(5210, MAIN_TABLE, |rule| rule.matches = false)
        .rule(5250, 0, |rule| (rule.matches, rule.action) = (false, RuleAction::Blocked))
        .rule(5270, 52, |_| {})
        .rule(32766, MAIN_TABLE, |_| {});
    let policy = laptop.auto();
    assert_eq!(verdict(&policy, "10.5.0.1"), by(7));
    assert_eq!(verdict(&policy, "192.168.1.9"), by(2));
    assert!(policy.hints().is_empty());
}

#[test]
fn a_table_without_a_rule_for_our_packets_is_ignored() {
    let laptop = Laptop::at_home()
        .route("10.5.0.0/16", 7)
        .table(100)
        .rule(100, 100, |rule| rule.matches = false)
        .rule(32766, MAIN_TABLE, |_| {});
    assert_eq!(verdict(&laptop.auto(), "10.5.0.1"), NO_ROUTE);
}

#[test]
fn a_default_that_stays_on_the_machine_is_no_network_by_a_rule_for_some_destinations() {
    let laptop = Laptop::at_home()
        .interface(4, "docker0", InterfaceKind::Bridge)
        .route("default", 4)
        .table(52)
        .rule(100, 52, |rule| rule.destination = "10.5.0.0/16".parse().ok())
        .rule(32766, MAIN_TABLE, |_| {});
    assert_eq!(verdict(&laptop.auto(), "10.5.0.1"), NO_ROUTE);
    assert_eq!(verdict(&laptop.auto(), "192.168.1.9"), by(2));
}

#[test]
fn wg_quicks_default_is_a_full_tunnel_and_the_lan_stays() {
    let laptop = Laptop::at_home()
        .interface(7, "wg0", InterfaceKind::WireGuard)
        .route("default", 7)
        .table(51820)
        .route("10.0.0.0/8", 7)
        .rule(32764, 0, |rule| rule.action = RuleAction::Table { table: MAIN_TABLE, suppress: Some(0) })
        .rule(32765, 51820, |rule| (rule.matches, rule.inverted) = (false, true))
        .rule(32766, MAIN_TABLE, |_| {});
    let policy = laptop.auto();
    assert_eq!(routes(&policy), ["10.0.0.0/8", "192.168.1.0/24", "2001:db8:1::/64"]);
    assert_eq!(policy.hints(), [Hint::FullTunnel { interface: "wg0".to_owned() }]);
}

#[test]
fn a_default_in_an_earlier_table_hides_later_routes_except_its_throw_routes() {
    let laptop = Laptop::at_home()
        .interface(7, "tailscale0", InterfaceKind::Tun)
        .route("10.9.0.0/16", 2)
        .route("default", 7)
        .table(52)
        .throw("192.168.1.0/24")
        .table(52)
        .rule(5270, 52, |_| {})
        .rule(32766, MAIN_TABLE, |_| {});
    let policy = laptop.auto();
    assert_eq!(verdict(&policy, "192.168.1.9"), by(2));
    assert_eq!(verdict(&policy, "10.9.0.1"), NO_ROUTE, "the kernel would send it into the VPN's default");
}

#[test]
fn a_default_for_some_destinations_is_a_network() {
    let to = "10.0.0.0/8".parse().ok();
    let laptop = Laptop::at_home()
        .interface(7, "wg0", InterfaceKind::WireGuard)
        .route("default", 7)
        .table(100)
        .rule(100, 100, |rule| rule.destination = to)
        .rule(32766, MAIN_TABLE, |_| {});
    let policy = laptop.auto();
    assert_eq!(verdict(&policy, "10.1.2.3"), by(7));
    assert_eq!(verdict(&policy, "8.8.8.8"), NO_ROUTE);
    assert!(policy.hints().is_empty());
}

#[test]
fn the_tunnels_own_network_is_no_destination() {
    let codespace = Codespace {
        networks: Vec::new(),
        tunnel: vec!["100.64.7.1/30".parse().unwrap()],
        gateways: Vec::new(),
    };
    let policy = Policy::new(&choice(&["private"], &[]), &Snapshot::default(), &codespace);
    assert_eq!(verdict(&policy, "100.64.7.3"), NO_ROUTE);
    assert_eq!(verdict(&policy, "100.64.7.4"), ANY_WAY);
}

#[test]
fn the_default_policy_forwards_nothing() {
    assert_eq!(verdict(&Policy::default(), "10.0.0.1"), NO_ROUTE);
    assert_eq!(verdict(&Policy::default(), "127.0.0.1"), NO_ROUTE);
}

#[test]
fn route_choices_are_read_as_written() {
    assert_eq!("auto".parse(), Ok(RouteChoice::Auto));
    assert_eq!("private".parse(), Ok(RouteChoice::Private));
    assert_eq!("10.1.2.3/8".parse::<RouteChoice>().unwrap().to_string(), "10.0.0.0/8");
    assert_eq!("fd00::1".parse::<RouteChoice>().unwrap().to_string(), "fd00::1/128");
    let error = "10.0.0.0/33".parse::<RouteChoice>().unwrap_err().to_string();
    assert_eq!(
        error,
        "\"10.0.0.0/33\" is neither auto, nor private, nor a network such as 10.0.0.0/8 or fd00::/8"
    );
}
