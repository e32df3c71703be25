//! The effect of the policy's verdicts on flows, also after a change of the policy, and the orderly end.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use gh_net_engine::{
    Command, FlowId, FlowState, Loopback, Protocol, Target, TcpState, Unreachable, UnreachableKind,
};
use gh_net_testkit::policy::Rules;
use gh_net_testkit::{ip, socket};

use crate::harness::{Script, echo, rules, seg, udp};

const CLIENT: &str = "10.1.0.2:5000";

fn set(script: &mut Script, rules: Rules) {
    script.engine.set_policy(Box::new(rules), script.now);
}

/// The mapping or session that a packet opens.
fn opened(script: &mut Script, packet: &[u8]) -> FlowId {
    script.send_raw(packet);
    let flow = match script.command() {
        Some(Command::OpenUdp { flow, .. } | Command::OpenEcho { flow, .. }) => flow,
        other => panic!("{other:?}"),
    };
    script.command().expect("the datagram");
    flow
}

fn passes(script: &mut Script, flow: FlowId, from: &str) -> bool {
    script.engine.handle_datagram(flow, socket(from), Bytes::from_static(b"x"), script.now);
    script.sent().is_some()
}

#[test]
fn a_connection_may_be_forwarded_elsewhere_and_the_client_does_not_notice() {
    let mut script = Script::new();
    set(&mut script, rules().translate("10.20.0.10:80", "127.0.0.1:8080"));
    script.send(seg("S", 0, None, b""));
    let Some(Command::Connect { flow, target, .. }) = script.command() else { panic!() };
    assert_eq!(target, Target::Host { address: socket("127.0.0.1:8080"), interface: None });
    script.engine.handle_connected(flow, script.now);
    // `expect` asserts that it comes from the server that was asked.
    script.expect(seg("S", 0, 1, b""));
}

#[test]
fn datagrams_may_be_forwarded_elsewhere_and_answers_come_from_where_they_were_sent() {
    let mut script = Script::new();
    set(&mut script, rules().translate("10.1.0.9:53", "127.0.0.1:5353"));
    script.send_raw(&udp(CLIENT, "10.1.0.9:53", b"?"));
    let Some(Command::OpenUdp { flow, .. }) = script.command() else { panic!() };
    let Some(Command::SendUdp { destination, .. }) = script.command() else { panic!() };
    assert_eq!(destination, socket("127.0.0.1:5353"));
    script.engine.handle_datagram(flow, destination, Bytes::from_static(b"!"), script.now);
    let sent = script.sent().expect("the answer");
    assert_eq!(sent.udp(), (socket("10.1.0.9:53"), socket(CLIENT), &b"!"[..]));
    assert!(!passes(&mut script, flow, "127.0.0.1:22"), "another port of the laptop");
    let error = Unreachable { offender: None, destination, sequence: None, kind: UnreachableKind::Port };
    script.engine.handle_unreachable(flow, error);
    let sent = script.sent().expect("the error");
    assert_eq!((sent.from, sent.quotation().1), (ip("10.1.0.9"), ip("10.1.0.9")));
}

#[test]
fn an_open_port_of_the_laptop_leads_to_the_loopback_of_the_same_family() {
    let opened = rules().open("10.1.0.1:3000", 8000).open("[fd01::1]:3000", 8000);
    for (mut script, gateway) in [(Script::new(), "10.1.0.1:3000"), (Script::v6(), "[fd01::1]:3000")] {
        set(&mut script, opened.clone());
        script.server = socket(gateway);
        let loopback = Loopback { port: 8000, v6: script.server.is_ipv6() };
        assert!(loopback.address().ip().is_loopback());
        script.send(seg("S", 0, None, b""));
        let Some(Command::Connect { flow, target, .. }) = script.command() else { panic!() };
        assert_eq!(target, Target::Laptop(loopback));
        script.engine.handle_connected(flow, script.now);
        script.expect(seg("S", 0, 1, b""));
        // The port is closed again.
        set(&mut script, rules());
        assert_eq!(script.command(), Some(Command::Abort(flow)));
        while script.sent().is_some() {}

        set(&mut script, opened.clone());
        script.send_raw(&udp(&script.client.to_string(), gateway, b"?"));
        let Some(Command::OpenUdp { flow, .. }) = script.command() else { panic!() };
        let Some(Command::SendToLaptop { destination, .. }) = script.command() else { panic!() };
        assert_eq!(destination, loopback);
        let answer = Bytes::from_static(b"!");
        script.engine.handle_datagram(flow, loopback.address(), answer.clone(), script.now);
        assert_eq!(script.sent().expect("the answer").udp(), (script.server, script.client, &b"!"[..]));
        let other = SocketAddr::new(loopback.address().ip(), 22);
        script.engine.handle_datagram(flow, other, answer, script.now);
        script.quiet();
    }
}

#[test]
fn a_policy_opens_nothing_else_at_the_gateway() {
    let mut script = Script::new();
    set(&mut script, Rules::forward(&["0.0.0.0/0"]));
    script.server = socket("10.1.0.1:80");
    script.send(seg("S", 0, None, b""));
    script.expect(seg("R", 0, 1, b""));
    script.quiet();
}

#[test]
fn pings_may_be_forwarded_elsewhere() {
    let mut script = Script::new();
    set(&mut script, rules().translate("10.1.0.9:0", "127.0.0.1:0"));
    script.send_raw(&echo("10.1.0.2", "10.1.0.9", 7, 1, b""));
    let Some(Command::OpenEcho { flow, .. }) = script.command() else { panic!() };
    let Some(Command::SendEcho { destination, .. }) = script.command() else { panic!() };
    assert_eq!(destination, ip("127.0.0.1"));
    script.engine.handle_echo_reply(flow, destination, 1, Bytes::new(), script.now);
    assert_eq!(script.sent().expect("the reply").from, ip("10.1.0.9"));
}

#[test]
fn connections_that_a_new_policy_refuses_are_reset_on_both_sides() {
    let (mut script, flow) = Script::established();
    set(&mut script, rules());
    script.quiet();
    set(&mut script, rules().prohibit(&["10.20.0.0/24"]));
    script.expect(seg("R", 1, 1, b""));
    assert_eq!(script.command(), Some(Command::Abort(flow)));
    assert_eq!((script.engine.flow_count(), script.engine.counters().revoked), (0, 1));
    script.quiet();
}

#[test]
fn a_connection_attempt_that_a_new_policy_refuses_is_refused() {
    let mut script = Script::new();
    script.send(seg("S", 0, None, b""));
    let Some(Command::Connect { flow, .. }) = script.command() else { panic!() };
    set(&mut script, Rules::default());
    assert_eq!(script.command(), Some(Command::Abort(flow)));
    // In SYN-SENT the acknowledgment alone makes a reset acceptable (RFC 9293, 3.10.7.3).
    let reset = script.recv().expect("a reset");
    assert_eq!((reset.flags, reset.ack), ("R", Some(1)));
    script.quiet();
    assert_eq!(script.engine.flow_count(), 0);
}

#[test]
fn a_connection_that_a_new_policy_sends_elsewhere_is_reset() {
    let (mut script, flow) = Script::established();
    set(&mut script, rules().translate("10.20.0.10:80", "10.20.0.11:80"));
    script.expect(seg("R", 1, 1, b""));
    assert_eq!(script.command(), Some(Command::Abort(flow)));
}

#[test]
fn a_connection_that_is_over_is_not_judged_again() {
    let mut script = Script::in_time_wait();
    set(&mut script, Rules::default());
    script.quiet();
    assert_eq!((script.engine.flow_count(), script.engine.counters().revoked), (1, 0));
}

#[test]
fn connections_to_the_resolver_do_not_depend_on_the_policy() {
    let mut script = Script::new();
    script.server = socket("10.1.0.1:53");
    let (mut script, _) = script.connected(seg("S", 0, None, b""));
    set(&mut script, Rules::default());
    script.quiet();
    assert_eq!(script.engine.flow_count(), 1);
}

#[test]
fn a_mapping_keeps_the_destinations_that_are_still_admitted() {
    let mut script = Script::new();
    let flow = opened(&mut script, &udp(CLIENT, "10.20.1.1:7", b""));
    script.send_raw(&udp(CLIENT, "10.20.2.1:7", b""));
    script.command();
    set(&mut script, Rules::forward(&["10.20.2.0/24"]));
    script.quiet();
    assert!(!passes(&mut script, flow, "10.20.1.1:7"));
    assert!(passes(&mut script, flow, "10.20.2.1:7"));
    set(&mut script, rules().prohibit(&["10.20.0.0/16"]));
    assert_eq!(script.command(), Some(Command::Close(flow)));
    assert_eq!((script.engine.flow_count(), script.engine.poll_timeout()), (0, None));
}

#[test]
fn an_echo_session_ends_with_its_last_destination() {
    let mut script = Script::new();
    let flow = opened(&mut script, &echo("10.1.0.2", "10.20.1.1", 7, 1, b""));
    set(&mut script, rules());
    script.quiet();
    set(&mut script, rules().prohibit(&["10.20.0.0/16"]));
    assert_eq!(script.command(), Some(Command::Close(flow)));
    assert_eq!(script.engine.flow_count(), 0);
}

#[test]
fn an_unsolicited_echo_reply_is_dropped() {
    let mut script = Script::new();
    let flow = opened(&mut script, &echo("10.1.0.2", "10.20.1.1", 7, 1, b""));
    script.engine.handle_echo_reply(flow, ip("10.20.1.2"), 1, Bytes::new(), script.now);
    script.quiet();
}

#[test]
fn at_the_end_every_flow_is_reset_on_both_sides() {
    let (mut script, established) = Script::established();
    // Data that the client has not acknowledged, and data that has not been sent.
    script.serve(established, &[1; 500]);
    script.expect(seg("P", 1, 1, &[1; 500]));
    script.bulk = false;
    script.serve(established, b"never sent");
    let mapping = opened(&mut script, &udp(CLIENT, "10.20.0.1:7", b""));
    let session = opened(&mut script, &echo("10.1.0.2", "10.20.0.1", 7, 1, b""));
    script.engine.reset_all(script.now);
    assert_eq!(script.command(), Some(Command::Abort(established)));
    assert_eq!(script.command(), Some(Command::Close(mapping)));
    assert_eq!(script.command(), Some(Command::Close(session)));
    script.expect(seg("R", 501, 1, b""));
    script.quiet();
    assert_eq!((script.engine.flow_count(), script.engine.poll_timeout()), (0, None));
}

#[test]
fn at_the_end_a_connection_attempt_is_refused() {
    let mut script = Script::new();
    script.send(seg("S", 0, None, b""));
    let Some(Command::Connect { flow, .. }) = script.command() else { panic!() };
    script.engine.reset_all(script.now);
    assert_eq!(script.command(), Some(Command::Abort(flow)));
    // In SYN-SENT the acknowledgment alone makes a reset acceptable (RFC 9293, 3.10.7.3).
    let reset = script.recv().expect("a reset");
    assert_eq!((reset.flags, reset.ack), ("R", Some(1)));
    script.quiet();
}

#[test]
fn at_the_end_half_closed_connections_are_reset_and_closed_ones_are_not() {
    // The server has ended: FIN-WAIT-1, then FIN-WAIT-2.
    for acknowledged in [1, 2] {
        let (mut script, flow) = Script::established();
        script.engine.handle_end(flow, script.now);
        script.expect(seg("FP", 1, 1, b""));
        script.send(seg("", 1, acknowledged, b""));
        script.engine.reset_all(script.now);
        assert_eq!(script.command(), Some(Command::Abort(flow)));
        script.expect(seg("R", 2, 1, b""));
        script.quiet();
    }
    // Both have ended, and the client has not acknowledged it: LAST-ACK.
    let (mut script, flow) = Script::established();
    script.send(seg("F", 1, 1, b""));
    script.expect(seg("", 1, 2, b""));
    script.engine.handle_end(flow, script.now);
    script.expect(seg("FP", 1, 2, b""));
    while script.command().is_some() {}
    script.engine.reset_all(script.now);
    script.expect(seg("R", 2, 2, b""));
    script.quiet();
    // TIME-WAIT.
    let mut script = Script::in_time_wait();
    script.engine.reset_all(script.now);
    script.quiet();
    assert_eq!(script.engine.flow_count(), 0);
}

#[test]
fn at_the_end_a_reset_that_waits_is_sent() {
    let (mut script, flow) = Script::established();
    script.engine.handle_failed(flow, script.now);
    script.engine.reset_all(script.now);
    script.expect(seg("R", 1, 1, b""));
    script.quiet();
}

#[test]
fn after_the_end_everything_is_refused() {
    let mut script = Script::new();
    script.engine.reset_all(script.now);
    script.send(seg("S", 0, None, b""));
    script.expect(seg("R", 0, 1, b""));
    script.theirs = 5000;
    script.send(seg("", 100, 7, b"late"));
    script.expect(seg("R", 7, None, b""));
    for packet in [udp(CLIENT, "10.20.0.1:7", b""), udp(CLIENT, "10.1.0.1:53", b"?")] {
        script.send_raw(&packet);
        let sent = script.sent().expect("an error");
        assert_eq!((sent.icmp().0, sent.icmp().1), (3, 0));
    }
    script.send_raw(&echo("10.1.0.2", "10.20.0.1", 1, 1, b""));
    assert_eq!(script.sent().expect("an error").icmp().0, 3);
    script.quiet();
    assert_eq!((script.engine.flow_count(), script.engine.counters().refused), (0, 5));
}

#[test]
fn without_a_link_the_sockets_are_still_reset() {
    let (mut script, flow) = Script::established();
    script.engine.handle_link_down(script.now);
    script.engine.reset_all(script.now);
    assert_eq!(script.command(), Some(Command::Abort(flow)));
    script.quiet();
    script.engine.handle_link_up(script.now);
    script.quiet();
}

#[test]
fn all_connections_are_reset_even_beyond_the_bound_on_urgent_packets() {
    let mut script = Script::new();
    for n in 0..4096 {
        script.client = socket(&format!("10.1.0.2:{}", 10_000 + n));
        script.send(seg("S", 0, None, b""));
    }
    while script.command().is_some() {}
    // The room for urgent packets is used up.
    for _ in 0..2000 {
        script.send_raw(&echo("10.1.0.2", "10.1.0.1", 1, 1, &[0; 1000]));
    }
    script.engine.reset_all(script.now);
    let resets =
        std::iter::from_fn(|| script.sent()).filter(|sent| sent.protocol == etherparse::IpNumber::TCP);
    assert_eq!(resets.count(), 4096);
}

#[test]
fn flows_are_shown_with_what_passed() {
    let (mut script, flow) = Script::established();
    let opened_at = script.now;
    script.pass(Duration::from_secs(3));
    script.serve(flow, &[1; 500]);
    script.send(seg("", 1, 1, b"abc"));
    script.take(flow, 10);
    while script.command().is_some() {}
    while script.sent().is_some() {}
    let mapping = opened(&mut script, &udp(CLIENT, "10.20.0.1:7", b"12345"));
    let _ = opened(&mut script, &echo("10.1.0.2", "10.20.0.1", 7, 1, b"payload"));
    passes(&mut script, mapping, "10.20.0.1:7");
    let mut flows: Vec<_> = script.engine.flows().collect();
    flows.sort_by_key(|flow| flow.protocol as u8);
    let [tcp, udp, echo] = &flows[..] else { panic!("{flows:?}") };
    assert_eq!((tcp.client, tcp.destination), (script.client, Some(script.server)));
    assert_eq!(
        (tcp.state, tcp.uplink_bytes, tcp.downlink_bytes),
        (FlowState::Tcp(TcpState::Established), 3, 500)
    );
    assert_eq!((tcp.opened, tcp.last_active), (opened_at, script.now));
    assert_eq!(
        (udp.protocol, udp.client, udp.destination),
        (Protocol::Udp, socket(CLIENT), Some(socket("10.20.0.1:7")))
    );
    assert_eq!((udp.state, udp.uplink_bytes, udp.downlink_bytes), (FlowState::Replied, 5, 1));
    assert_eq!((echo.client, echo.destination), (socket("10.1.0.2:7"), Some(socket("10.20.0.1:0"))));
    assert_eq!((echo.state, echo.uplink_bytes, echo.downlink_bytes), (FlowState::Unreplied, 7, 0));
}
