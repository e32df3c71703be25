use super::*;

fn route(prefix: &str, interface: &str) -> Route {
    let reason = RouteReason::Route { interface: Some(interface.into()) };
    Route { prefix: prefix.parse().unwrap(), reason }
}

fn status() -> Status {
    Status {
        schema: SCHEMA,
        version: "1.2.3",
        pid: 4711,
        session: Session {
            state: SessionState::Open,
            since: 1_700_000_000,
            target: "codespace big-fish".into(),
            dns: DnsMode::Split,
        },
        link: Link {
            state: LinkState::Up,
            since: 1_700_000_001,
            end: None,
            lost_since: None,
            next_attempt: None,
            round_trip_ms: Some(12.5),
            lanes: Some(3),
            tunnel: Some(Tunnel {
                device: "ghnet0".into(),
                mtu: 65_520,
                addresses: vec!["198.19.240.1/30".parse().unwrap()],
                gateways: vec!["198.19.240.2".parse().unwrap()],
            }),
        },
        routes: vec![route("10.20.0.0/16", "vpn0")],
        rules: vec!["--deny 10.20.0.64/26".into()],
        notes: vec![Note {
            code: "full-tunnel".into(),
            level: Level::Warning,
            sidecar: false,
            text: "vpn0 looks like a full-tunnel VPN".into(),
        }],
        flows: vec![Flow {
            protocol: FlowProtocol::Tcp,
            client: "198.19.240.1:40000".parse().unwrap(),
            server: Some("10.20.0.10:80".parse().unwrap()),
            name: None,
            state: "established".into(),
            uplink_bytes: 100,
            downlink_bytes: 2000,
            age: 3,
        }],
        denied: vec![Denied {
            protocol: FlowProtocol::Tcp,
            client: "198.19.240.1:40001".parse().unwrap(),
            server: "10.20.0.10:5432".parse().unwrap(),
            name: Some("db.corp.internal".into()),
            rule: "no route".into(),
            refusal: Refusal::NoRoute,
            remedy: Some("--route 10.20.0.10".into()),
            first: 1_700_000_000,
            last: 1_700_000_009,
            count: 7,
        }],
        names: vec![Lookup {
            name: "www.corp.internal.".into(),
            kind: "A".into(),
            source: Some("10.20.0.53".into()),
            outcome: Outcome::Found,
            took_ms: 3.25,
            age: 1,
        }],
        counters: Counters { uplink_packets: 1, ..Counters::default() },
        sidecar: None,
    }
}

#[test]
fn the_ready_line_names_the_target_its_networks_and_dns() {
    let mut status = status();
    assert_eq!(lines::ready(&status), "ready: codespace big-fish reaches 10.20.0.0/16; names by split DNS");
    status.routes.clear();
    status.session.dns = DnsMode::Off;
    assert_eq!(
        lines::ready(&status),
        "ready: codespace big-fish reaches no network of the laptop; names are resolved in the codespace only"
    );
    status.routes = (0..10).map(|n| route(&format!("10.{n}.0.0/16"), "vpn0")).collect();
    assert!(lines::ready(&status).contains("10.7.0.0/16, and 2 more;"), "{}", lines::ready(&status));
}

#[test]
fn each_change_of_a_network_has_its_reason() {
    let option = RouteReason::Option { value: "private".into() };
    let changes = [
        RouteChange::Added(route("10.30.0.0/16", "vpn0")),
        RouteChange::Removed(route("10.20.0.0/16", "vpn1")),
        RouteChange::Added(Route { prefix: "10.0.0.0/8".parse().unwrap(), reason: option }),
    ];
    assert_eq!(
        lines::route_changes(&changes),
        [
            "+10.30.0.0/16 (route on vpn0)",
            "-10.20.0.0/16 (was: route on vpn1)",
            "+10.0.0.0/8 (--route private)"
        ]
    );
}

#[test]
fn only_the_first_of_many_changes_are_listed() {
    let changes: Vec<_> =
        (0..100).map(|n| RouteChange::Added(route(&format!("10.{n}.0.0/16"), "vpn0"))).collect();
    let lines = lines::route_changes(&changes);
    assert_eq!(lines.len(), 9);
    assert_eq!(lines[8], "and 92 more changes of networks");
}

#[test]
fn a_lost_link_is_reported_with_its_reason() {
    let link = Link { end: Some("the connection was cut".into()), ..status().link };
    assert_eq!(lines::link_lost(&link), "link lost (the connection was cut); reconnecting");
}

#[test]
fn the_serialised_form_is_the_documented_one() {
    let json = serde_json::to_value(status()).unwrap();
    assert_eq!(json["schema"], 1);
    assert_eq!(json["session"]["state"], "open");
    assert_eq!(json["link"]["state"], "up");
    assert_eq!(json["link"]["tunnel"]["addresses"][0], "198.19.240.1/30");
    assert_eq!(
        json["routes"][0],
        serde_json::json!({
            "prefix": "10.20.0.0/16",
            "reason": { "kind": "route", "interface": "vpn0" },
        })
    );
    assert_eq!(json["notes"][0]["code"], "full-tunnel");
    assert_eq!(json["notes"][0]["level"], "warning");
    assert_eq!(json["flows"][0]["protocol"], "tcp");
    assert_eq!(json["flows"][0]["server"], "10.20.0.10:80");
    assert_eq!(json["names"][0]["outcome"], "found");
    assert_eq!(json["counters"]["uplink_packets"], 1);
    assert_eq!(json["sidecar"], serde_json::Value::Null);
}

#[test]
fn the_text_for_people_shows_the_essentials() {
    let mut status = status();
    status.notes.push(Note {
        code: "routes-refused".into(),
        level: Level::Warning,
        sidecar: true,
        text: "bad\x1b[2Jnews".into(),
    });
    let calm = text::text(&serde_json::to_value(&status).unwrap(), 1_700_000_754);
    assert!(!calm.contains("had to wait"), "{calm}");
    status.counters.connections = 1;
    status.counters.bounds = engine::Bounds { datagrams: 12, uplink_waits: 1, ..engine::Bounds::default() };
    let text = text::text(&serde_json::to_value(status).unwrap(), 1_700_000_754);
    for part in [
        "refused or had to wait: datagrams 12, uplink_waits 1",
        "codespace big-fish open for 12m 34s",
        "198.19.240.1/30",
        "10.20.0.0/16 (route on vpn0)",
        "established",
        "flows     0 now, 1 connection in all",
        "denied    0 packets in all",
        "bad\u{fffd}[2Jnews [routes-refused]",
        "tcp 198.19.240.1:40001 -> db.corp.internal (10.20.0.10:5432) 7x, last 12m 25s ago: no route; to allow \
         it: --route 10.20.0.10",
    ] {
        assert!(text.contains(part), "{part:?} is missing in:\n{text}");
    }
}

#[test]
fn a_lost_link_shows_for_how_long_why_and_when_the_next_attempt_is() {
    let mut status = status();
    let mut shown = |state, next_attempt, now: u64| {
        status.link = Link {
            state,
            end: Some("ssh was killed".into()),
            lost_since: Some(1_700_000_000),
            next_attempt,
            ..status.link.clone()
        };
        let text = text::text(&serde_json::to_value(&status).unwrap(), 1_700_000_000 + now);
        text.lines().find(|line| line.starts_with("link")).unwrap_or_default().to_owned()
    };
    assert_eq!(
        shown(LinkState::Down, Some(1_700_000_015), 12),
        "link      reconnecting for 12 s (ssh was killed); next attempt in 3 s"
    );
    assert_eq!(
        shown(LinkState::Connecting, None, 72),
        "link      reconnecting for 1m 12s (ssh was killed); connecting now"
    );
    // The attempt is due, but has not begun yet.
    assert_eq!(
        shown(LinkState::Down, Some(1_700_000_015), 16),
        "link      reconnecting for 16 s (ssh was killed); next attempt in 0 s"
    );
}

#[test]
fn a_status_of_another_version_is_shown_as_far_as_it_is_known() {
    assert!(text::text(&serde_json::json!({}), 0).contains("session"));
    assert!(text::text(&serde_json::json!([1, 2]), 0).contains("link"));
}

#[test]
fn without_rules_the_text_says_that_everything_is_allowed() {
    let shown = |rules: &[&str]| {
        let rules = rules.iter().map(|rule| (*rule).to_owned()).collect();
        let text = text::text(&serde_json::to_value(Status { rules, ..status() }).unwrap(), 1_700_000_754);
        text.lines().find(|line| line.starts_with("rules")).unwrap_or_default().to_owned()
    };
    assert_eq!(shown(&[]), "rules     none: everything in these networks is allowed");
    assert_eq!(shown(&["--deny 10.0.0.0/8"]), "rules     --deny 10.0.0.0/8");
}
