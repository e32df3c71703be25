//! Names: which flows they admit, for how long, and that flows which stand go on.

use std::time::Duration;

use bytes::Bytes;
use gh_net_engine::{Command, FlowId};
use gh_net_testkit::policy::Rules;
use gh_net_testkit::{ip, socket};

use crate::harness::{Script, echo, rules, seg, udp};

const CLIENT: &str = "10.1.0.2:5000";
const TTL: Duration = Duration::from_secs(300);

/// An engine with a policy that forwards db.example only.
fn script() -> Script {
    let mut script = Script::new();
    set(&mut script, rules().only("db.example"));
    script
}

fn set(script: &mut Script, rules: Rules) {
    script.engine.set_policy(Box::new(rules), script.now);
}

/// The resolver gives an answer.
fn learn(script: &mut Script, names: &[&str], address: &str, ttl: Duration) {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    script.engine.handle_names(&names, &[(ip(address), ttl)], script.now);
}

/// Whether a new connection is admitted.
fn connects(script: &mut Script, port: u16) -> bool {
    script.client.set_port(port);
    script.send(seg("S", 0, None, b""));
    while script.sent().is_some() {}
    std::iter::from_fn(|| script.command()).any(|command| matches!(command, Command::Connect { .. }))
}

/// The flow of a datagram or echo request that is forwarded.
fn forwarded(script: &mut Script, packet: &[u8]) -> Option<FlowId> {
    script.send_raw(packet);
    while script.sent().is_some() {}
    let sent = |command| {
        if let Command::SendUdp { flow, .. } | Command::SendEcho { flow, .. } = command {
            Some(flow)
        } else {
            None
        }
    };
    std::iter::from_fn(|| script.command()).find_map(sent)
}

#[test]
fn an_address_is_admitted_for_as_long_as_its_answer_lives_and_a_minute() {
    let mut script = script();
    assert!(!connects(&mut script, 1), "without a lookup");
    learn(&mut script, &["other.example"], "10.20.0.10", TTL);
    assert!(!connects(&mut script, 2), "by another name");
    learn(&mut script, &["db.example"], "10.20.0.11", TTL);
    assert!(!connects(&mut script, 3), "another address");
    learn(&mut script, &["db.example"], "10.20.0.10", TTL);
    script.pass(TTL + Duration::from_secs(59));
    assert!(connects(&mut script, 4), "a program may have got the answer again at the end of its TTL");
    script.pass(Duration::from_secs(1));
    assert!(!connects(&mut script, 5), "the answer has expired");
}

#[test]
fn a_short_answer_counts_for_a_minute() {
    let mut script = script();
    learn(&mut script, &["db.example"], "10.20.0.10", Duration::ZERO);
    script.pass(Duration::from_secs(59));
    assert!(connects(&mut script, 1));
    script.pass(Duration::from_secs(1));
    assert!(!connects(&mut script, 2));
}

#[test]
fn each_of_several_names_and_aliases_admits_the_address() {
    let mut script = script();
    learn(&mut script, &["www.example", "db.example"], "10.20.0.10", TTL);
    learn(&mut script, &["other.example"], "10.20.0.10", TTL);
    assert!(connects(&mut script, 1));
}

#[test]
fn a_connection_goes_on_when_its_name_is_forgotten_also_under_new_rules() {
    let mut script = script();
    learn(&mut script, &["db.example"], "10.20.0.10", TTL);
    let (mut script, flow) = script.connected(seg("S", 0, None, b"").mss(1000));
    script.pass(TTL);
    set(&mut script, rules().only("db.example"));
    script.serve(flow, b"still here");
    script.expect(seg("P", 1, 1, b"still here"));
    set(&mut script, rules().only("other.example"));
    script.expect(seg("R", 11, 1, b""));
}

#[test]
fn datagrams_go_on_when_their_name_is_forgotten_but_only_to_where_they_went() {
    let datagram = |to: &str| udp(CLIENT, to, b"x");
    let mut script = script();
    learn(&mut script, &["db.example"], "10.20.0.10", TTL);
    let flow = forwarded(&mut script, &datagram("10.20.0.10:7")).expect("it is forwarded");
    for _ in 0..5 {
        script.pass(Duration::from_secs(100));
        assert_eq!(forwarded(&mut script, &datagram("10.20.0.10:7")), Some(flow));
    }
    assert_eq!(forwarded(&mut script, &datagram("10.20.0.10:8")), None, "another port");
    assert_eq!(forwarded(&mut script, &udp("10.1.0.2:5001", "10.20.0.10:7", b"x")), None, "another socket");
    learn(&mut script, &["other.example"], "10.20.0.10", TTL);
    assert_eq!(
        forwarded(&mut script, &datagram("10.20.0.10:7")),
        Some(flow),
        "the address has another name now"
    );
    set(&mut script, rules().only("db.example"));
    script.engine.handle_datagram(flow, socket("10.20.0.10:7"), Bytes::from_static(b"y"), script.now);
    assert!(script.sent().is_some(), "answers come back under new rules");
    set(&mut script, rules().only("other.example"));
    assert_eq!(script.engine.flow_count(), 0);
}

#[test]
fn pings_go_on_when_their_name_is_forgotten() {
    let mut script = script();
    learn(&mut script, &["db.example"], "10.20.0.10", TTL);
    let flow = forwarded(&mut script, &echo("10.1.0.2", "10.20.0.10", 7, 1, b""));
    assert!(flow.is_some());
    for sequence in 2..12 {
        script.pass(Duration::from_secs(50));
        assert_eq!(forwarded(&mut script, &echo("10.1.0.2", "10.20.0.10", 7, sequence, b"")), flow);
    }
    assert_eq!(forwarded(&mut script, &echo("10.1.0.2", "10.20.0.10", 8, 1, b"")), None);
}

#[test]
fn a_time_without_a_link_does_not_shorten_an_answers_life() {
    let mut script = script();
    learn(&mut script, &["db.example"], "10.20.0.10", TTL);
    script.engine.handle_link_down(script.now);
    script.now += 10 * TTL;
    script.engine.handle_link_up(script.now);
    assert!(connects(&mut script, 1));
}

#[test]
fn the_status_shows_the_name_that_was_asked_for_last() {
    let mut script = Script::new();
    learn(&mut script, &["db.example"], "10.20.0.10", TTL);
    learn(&mut script, &["www.example", "pool.example"], "10.20.0.10", TTL);
    let shown = |script: &Script| script.engine.flows().map(|flow| flow.name).collect::<Vec<_>>();
    let (script, _) = script.connected(seg("S", 0, None, b""));
    assert_eq!(shown(&script), [Some("www.example".to_owned())]);
    let (script, _) = Script::new().connected(seg("S", 0, None, b""));
    assert_eq!(shown(&script), [None]);
}

#[test]
fn thousands_of_names_that_live_long_do_not_displace_the_name_of_a_rule() {
    let mut script = script();
    learn(&mut script, &["db.example"], "10.20.0.10", TTL);
    for n in 0..10_000 {
        let name = format!("{n}.hostile.example");
        learn(&mut script, &[&name], &format!("10.20.{}.{}", 1 + n / 250, n % 250), 1000 * TTL);
        // Of the address itself, too.
        learn(&mut script, &[&name], "10.20.0.10", 1000 * TTL);
    }
    assert!(connects(&mut script, 1));
}

#[test]
fn addresses_that_are_not_forwarded_get_no_names_but_those_of_rules() {
    let mut script = script();
    learn(&mut script, &["www.example"], "192.0.2.1", TTL);
    learn(&mut script, &["db.example"], "192.0.2.2", TTL);
    assert_eq!(script.engine.names_of(ip("192.0.2.1"), script.now), [""; 0]);
    assert_eq!(script.engine.names_of(ip("192.0.2.2"), script.now), ["db.example"]);
}

#[test]
fn a_name_that_new_rules_refer_to_is_kept_from_then_on() {
    let mut script = script();
    learn(&mut script, &["new.example"], "10.20.0.10", TTL);
    set(&mut script, rules().only("new.example"));
    for n in 0..5000 {
        learn(&mut script, &["hostile.example"], &format!("10.20.{}.{}", 1 + n / 250, n % 250), 1000 * TTL);
    }
    assert!(connects(&mut script, 1));
}
