//! The policy against a naive one, which repeats the kernel's documented lookup for each address.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;

/// Addresses are drawn from 10.0.0.0/24 and fd00::/120, routes from these and what contains them.
fn net() -> impl Strategy<Value = IpNet> {
    let v4 = (any::<u8>(), prop_oneof![20u8..=32, Just(8u8), Just(0)])
        .prop_map(|(host, length)| IpNet::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, host)), length).unwrap());
    let v6 = (any::<u8>(), prop_oneof![110u8..=128, Just(7u8), Just(0)]).prop_map(|(host, length)| {
        IpNet::new(IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, host.into())), length).unwrap()
    });
    prop_oneof![v4, v6].prop_map(|net: IpNet| net.trunc())
}

fn nets() -> impl Strategy<Value = Vec<IpNet>> {
    prop::collection::vec(net(), 0..4)
}

fn route() -> impl Strategy<Value = Route> {
    let kind = prop_oneof![
        6 => Just(RouteKind::Unicast),
        1 => Just(RouteKind::Blocked),
        1 => Just(RouteKind::Throw),
    ];
    (net(), kind, 1u32..5, 0u32..3, prop_oneof![Just(MAIN_TABLE), Just(52)]).prop_map(
        |(prefix, kind, interface, metric, table)| {
            let hops = if kind == RouteKind::Unicast {
                vec![NextHop { interface, gateway: None }]
            } else {
                Vec::new()
            };
            Route { table, prefix, metric, kind, scope: 0, protocol: 4, hops }
        },
    )
}

fn rule() -> impl Strategy<Value = Rule> {
    let table = (prop_oneof![Just(MAIN_TABLE), Just(52)], prop::option::of(0u8..30));
    let action = prop_oneof![
        8 => table.prop_map(|(table, suppress)| RuleAction::Table { table, suppress }),
        1 => Just(RuleAction::Blocked),
        1 => Just(RuleAction::Other),
    ];
    (any::<bool>(), 0u32..5, any::<bool>(), prop::option::of(net()), any::<bool>(), action).prop_map(
        |(v6, priority, matches, destination, inverted, action)| {
            let destination = destination.filter(|net| net.addr().is_ipv6() == v6);
            Rule { v6, priority, matches, destination, inverted, action }
        },
    )
}

fn snapshot() -> impl Strategy<Value = Snapshot> {
    let routes = prop::collection::vec(route(), 0..10);
    let rules = prop::collection::vec(rule(), 0..5);
    let own = prop::collection::vec(net(), 0..2);
    (routes, rules, own, any::<bool>()).prop_map(|(mut routes, rules, own, stock_rules)| {
        // One route for each prefix and metric of a table, as in the kernel.
        routes.sort();
        routes.dedup_by_key(|it| (it.table, it.prefix, it.metric));
        let addresses =
            own.into_iter().map(|address| Address { interface: 2, address, peer: None }).collect();
        let rules = if stock_rules { Vec::new() } else { rules };
        let interfaces = (1..5).map(|index| Interface {
            index,
            name: if index == 1 { "docker0".to_owned() } else { format!("eth{index}") },
            kind: if index == 1 { InterfaceKind::Bridge } else { InterfaceKind::Hardware },
            flags: InterfaceFlags::default(),
            master: None,
        });
        Snapshot { interfaces: interfaces.collect(), addresses, routes, rules, ..Snapshot::default() }
    })
}

/// The kernel's result: a route's kind, interface and prefix length. A rule for some destinations makes its result at
/// least as specific as the rule.
fn look_up(snapshot: &Snapshot, address: IpAddr) -> Option<(RouteKind, Option<u32>, u8)> {
    let mut rules: Vec<_> = snapshot.rules.iter().filter(|rule| rule.v6 == address.is_ipv6()).collect();
    rules.sort_by_key(|rule| rule.priority);
    let main = (RuleAction::Table { table: MAIN_TABLE, suppress: None }, true, 0);
    let stock = rules.is_empty().then_some(main);
    let actions = rules.into_iter().map(|rule| {
        let to = rule.destination.is_none_or(|net| net.contains(&address));
        let narrow = rule.destination.filter(|_| !rule.inverted).map_or(0, |net| net.prefix_len());
        (rule.action, (rule.matches && to) != rule.inverted, narrow)
    });
    for (action, hit, narrow) in actions.chain(stock) {
        match action {
            _ if !hit => {}
            RuleAction::Other => {}
            RuleAction::Blocked => return Some((RouteKind::Blocked, None, narrow)),
            RuleAction::Table { table, suppress } => {
                let routes =
                    snapshot.routes.iter().filter(|it| it.table == table && it.prefix.contains(&address));
                let best = routes.max_by_key(|it| (it.prefix.prefix_len(), std::cmp::Reverse(it.metric)));
                let kept = best.filter(|it| suppress.is_none_or(|most| it.prefix.prefix_len() > most));
                if let Some(route) = kept.filter(|it| it.kind != RouteKind::Throw) {
                    let interface = route.hops.first().map(|hop| hop.interface);
                    return Some((route.kind, interface, route.prefix.prefix_len().max(narrow)));
                }
            }
        }
    }
    None
}

fn expected(snapshot: &Snapshot, choice: &Choice, address: IpAddr) -> Option<Option<InterfaceIndex>> {
    if choice.excludes.iter().any(|net| net.contains(&address)) {
        return None;
    }
    let found = look_up(snapshot, address);
    if let Some((RouteKind::Unicast, Some(interface), length)) = found
        && choice.has_auto()
        && length > 0
        && interface != 1
    {
        return Some(InterfaceIndex::new(interface));
    }
    let mut named = choice.named().map(|(net, _)| net).filter(|net| net.contains(&address));
    let kept = match found {
        Some((RouteKind::Blocked, _, length)) => named.any(|net| net.prefix_len() >= length),
        _ => named.next().is_some(),
    };
    kept.then_some(None)
}

fn addresses() -> impl Iterator<Item = IpAddr> {
    let v4 = (0..=255).map(|host| IpAddr::V4(Ipv4Addr::new(10, 0, 0, host)));
    let v6 = (0..=255).map(|host| IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, host)));
    v4.chain(v6).chain(["10.200.0.1", "fdff::1", "9.9.9.9", "2606::1"].map(|it| it.parse().unwrap()))
}

proptest! {
    #[test]
    fn the_policy_agrees_with_the_naive_look_up(
        snapshot in snapshot(),
        auto in any::<bool>(),
        named in nets(),
        excludes in nets(),
    ) {
        let routes = auto.then_some(RouteChoice::Auto).into_iter().chain(named.into_iter().map(RouteChoice::Network));
        let choice = Choice { routes: routes.collect(), excludes, rules: Rules::default(), host_ports: Vec::new() };
        let policy = Policy::new(&choice, &snapshot, &Codespace::default());
        let report = Report::new(&choice, &snapshot, &Codespace::default());
        for address in addresses() {
            let expected = expected(&snapshot, &choice, address);
            let routed = policy.routes().iter().any(|net| net.contains(&address));
            prop_assert_eq!(routed, expected.is_some(), "{} in {:?}", address, policy.routes());
            let told = report.routes.iter().filter(|route| route.network.contains(&address)).count();
            prop_assert_eq!(told, usize::from(routed), "{} in {:?}", address, report.routes);
            let own = snapshot.addresses.iter().any(|it| it.address.addr() == address);
            match outcome(&policy, address) {
                Ok(interface) => prop_assert_eq!(Some(interface), expected, "{}", address),
                Err(Refusal::NoRoute) => prop_assert_eq!(None, expected, "{}", address),
                Err(Refusal::Prohibited) => prop_assert!(own, "{}", address),
                Err(Refusal::Closed) => prop_assert!(false, "{} is not in the tunnel", address),
                Err(Refusal::Silent) => {
                    let connected = snapshot.addresses.iter().map(Address::network);
                    prop_assert!(
                        connected.into_iter().any(|it| [it.network(), it.broadcast()].contains(&address)),
                        "{}", address
                    );
                }
            }
        }
    }
}
