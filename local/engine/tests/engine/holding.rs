//! Flows of a vanished network are held for 30 s, and nothing of a held flow leaves the laptop.

use std::time::Duration;

use bytes::Bytes;
use gh_net_engine::{Command, FlowId};
use gh_net_testkit::policy::Rules;
use gh_net_testkit::socket;

use crate::harness::{Script, rules, seg, udp};

const CLIENT: &str = "10.1.0.2:5000";
const SERVER: &str = "10.20.1.1:7";
const HOLD: Duration = Duration::from_secs(30);
const MOMENT: Duration = Duration::from_millis(1);

fn set(script: &mut Script, rules: Rules) {
    script.engine.set_policy(Box::new(rules), script.now);
}

fn vanish(script: &mut Script) {
    set(script, Rules::default());
}

fn is_held(script: &Script) -> bool {
    let flows: Vec<_> = script.engine.flows().collect();
    let [flow] = &flows[..] else { panic!("{flows:?}") };
    flow.held
}

/// The same, with a connection whose socket is confined to its interface then.
#[track_caller]
fn hold(script: &mut Script, flow: FlowId) {
    vanish(script);
    assert_eq!(script.command(), Some(Command::Hold(flow)));
}

fn is_over(script: &Script) -> bool {
    (script.engine.flow_count(), script.engine.poll_timeout()) == (0, None)
}

fn mapping(script: &mut Script) -> FlowId {
    script.send_raw(&udp(CLIENT, SERVER, b"x"));
    let Some(Command::OpenUdp { flow, .. }) = script.command() else { panic!("no socket is opened") };
    script.command().expect("the datagram");
    flow
}

fn passes(script: &mut Script, flow: FlowId, from: &str) -> bool {
    script.engine.handle_datagram(flow, socket(from), Bytes::from_static(b"x"), script.now);
    script.sent().is_some()
}

#[test]
fn a_connection_continues_when_its_network_returns() {
    let (mut script, flow) = Script::established();
    hold(&mut script, flow);
    script.quiet();
    assert!(is_held(&script));
    // The codespace's kernel is answered, so that it does not back off. The host gets nothing, not even the FIN.
    script.send(seg("F", 1, 1, b"request"));
    script.expect(seg("", 1, 9, b""));
    script.quiet_except_service();
    assert_eq!(script.take(flow, 100), b"");
    assert!(!script.engine.uplink_ended(flow));
    assert_eq!(script.engine.downlink_room(flow), 0);
    script.pass(HOLD - MOMENT);
    set(&mut script, rules());
    assert!(!is_held(&script));
    assert_eq!(script.command(), Some(Command::Service(flow)));
    assert_eq!(script.take(flow, 100), b"request");
    assert!(script.engine.uplink_ended(flow));
    script.serve(flow, b"answer");
    script.expect(seg("P", 1, 9, b"answer"));
    script.pass(HOLD);
    assert_eq!((script.engine.flow_count(), script.engine.counters().revoked), (1, 0));
}

#[test]
fn a_connection_whose_network_does_not_return_is_reset_on_both_sides() {
    let (mut script, flow) = Script::established();
    hold(&mut script, flow);
    script.pass(HOLD / 2);
    // Another change of the networks does not prolong it.
    set(&mut script, Rules::forward(&["10.30.0.0/16"]));
    script.pass(HOLD / 2 - MOMENT);
    script.quiet();
    script.pass(MOMENT);
    script.expect(seg("R", 1, 1, b""));
    assert_eq!(script.command(), Some(Command::Abort(flow)));
    assert!(is_over(&script));
    assert_eq!(script.engine.counters().revoked, 1);
}

#[test]
fn each_absence_has_its_own_holding_time() {
    let (mut script, flow) = Script::established();
    for _ in 0..5 {
        hold(&mut script, flow);
        script.pass(HOLD - MOMENT);
        set(&mut script, rules());
        assert_eq!(script.command(), Some(Command::Service(flow)));
        script.quiet();
    }
    assert!(!is_held(&script));
}

#[test]
fn what_the_host_sent_before_still_arrives() {
    let (mut script, flow) = Script::established();
    script.bulk = false;
    script.serve(flow, b"before");
    hold(&mut script, flow);
    script.bulk = true;
    script.expect(seg("P", 1, 1, b"before"));
    // A socket whose address is gone fails, and is not waited for.
    script.engine.handle_failed(flow, script.now);
    script.expect(seg("R", 7, 1, b""));
    assert!(is_over(&script));
}

#[test]
fn a_changed_verdict_on_return_resets_the_connection() {
    let changed = [
        rules().bind(3),
        rules().translate("10.20.0.10:80", "10.20.0.11:80"),
        rules().prohibit(&["10.20.0.0/16"]),
    ];
    for rules in changed {
        let (mut script, flow) = Script::established();
        hold(&mut script, flow);
        set(&mut script, rules);
        script.expect(seg("R", 1, 1, b""));
        assert_eq!(script.command(), Some(Command::Abort(flow)));
        assert!(is_over(&script));
    }
}

#[test]
fn another_interface_resets_a_connection_and_closes_a_mapping() {
    let (mut script, flow) = Script::established();
    set(&mut script, rules().bind(3));
    script.expect(seg("R", 1, 1, b""));
    assert_eq!(script.command(), Some(Command::Abort(flow)));
    let old = mapping(&mut script);
    set(&mut script, rules().bind(4));
    assert_eq!(script.command(), Some(Command::Close(old)));
    assert_ne!(mapping(&mut script), old);
}

#[test]
fn an_attempt_to_connect_is_not_held() {
    let mut script = Script::new();
    script.send(seg("S", 0, None, b""));
    let Some(Command::Connect { flow, .. }) = script.command() else { panic!() };
    vanish(&mut script);
    // The laptop's kernel would retransmit its SYN by another interface.
    assert_eq!(script.command(), Some(Command::Abort(flow)));
    assert_eq!(script.recv().expect("a reset").flags, "R");
    assert!(is_over(&script));
}

#[test]
fn a_mapping_keeps_its_socket_for_a_network_that_comes_back() {
    let mut script = Script::new();
    let flow = mapping(&mut script);
    vanish(&mut script);
    assert!(is_held(&script));
    assert!(!passes(&mut script, flow, SERVER));
    script.send_raw(&udp(CLIENT, SERVER, b"to nowhere"));
    assert_eq!(script.command(), None);
    let error = script.sent().expect("an error");
    assert_eq!((error.icmp().0, error.icmp().1), (3, 0));
    script.pass(HOLD - MOMENT);
    set(&mut script, rules());
    assert!(passes(&mut script, flow, SERVER));
    script.send_raw(&udp(CLIENT, SERVER, b"again"));
    assert!(matches!(script.command(), Some(Command::SendUdp { flow: again, .. }) if again == flow));
    script.pass(HOLD);
    assert_eq!(script.engine.flow_count(), 1);
}

#[test]
fn a_mapping_outlives_one_of_its_networks() {
    let mut script = Script::new();
    let flow = mapping(&mut script);
    script.send_raw(&udp(CLIENT, "10.20.2.1:7", b""));
    script.command();
    set(&mut script, Rules::forward(&["10.20.2.0/24"]));
    script.pass(HOLD);
    assert!(!is_held(&script));
    // The other network's hosts were forgotten, so they stay filtered when it returns.
    set(&mut script, rules());
    assert!(!passes(&mut script, flow, SERVER));
    assert!(passes(&mut script, flow, "10.20.2.1:7"));
}

#[test]
fn a_mapping_whose_networks_do_not_return_is_closed() {
    let mut script = Script::new();
    let flow = mapping(&mut script);
    vanish(&mut script);
    script.pass(HOLD);
    assert_eq!(script.command(), Some(Command::Close(flow)));
    assert!(is_over(&script));
}

#[test]
fn the_holding_time_is_paused_without_a_link() {
    // A laptop that moves loses both; its VPN returns some time after the link.
    for first in [true, false] {
        let (mut script, flow) = Script::established();
        if first {
            hold(&mut script, flow);
        }
        script.pass(HOLD / 3);
        script.engine.handle_link_down(script.now);
        if !first {
            hold(&mut script, flow);
        }
        script.pass(HOLD * 10);
        script.quiet();
        script.engine.handle_link_up(script.now);
        while script.recv().is_some() {}
        let left = if first { HOLD - HOLD / 3 } else { HOLD };
        script.pass(left - MOMENT);
        script.quiet();
        script.pass(MOMENT);
        script.expect(seg("R", 1, 1, b""));
        assert_eq!(script.command(), Some(Command::Abort(flow)));
    }
}
