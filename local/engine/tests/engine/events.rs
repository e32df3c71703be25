//! What the engine tells of flows.

use std::time::Duration;

use bytes::Bytes;
use gh_net_engine::{Command, ConnectError, Denied, Event, FlowEvent, FlowId, Protocol, Refusal};
use gh_net_testkit::policy::Rules;
use gh_net_testkit::socket;

use crate::harness::{Script, Seg, echo, rules, seg, udp};

/// A script whose engine tells of flows.
fn telling() -> Script {
    let mut script = Script::new();
    script.engine.tell_flows(true);
    script
}

/// All events as text, without what all of them share.
fn told(script: &mut Script) -> Vec<String> {
    let flow = |flow: FlowEvent| format!("{:?} {} -> {}", flow.protocol, flow.client, flow.destination);
    let text = |event| match event {
        Event::Opened(opened) => format!("opened {}", flow(opened)),
        Event::Closed { flow: closed, uplink_bytes, downlink_bytes, ending } => {
            format!("closed {} {uplink_bytes} up {downlink_bytes} down {ending:?}", flow(closed))
        }
        Event::Denied(Denied { protocol, client, destination, refusal, count, .. }) => {
            format!("denied {protocol:?} {client} -> {destination} {refusal:?} {count}")
        }
    };
    std::iter::from_fn(|| script.engine.poll_event()).map(text).collect()
}

const TUPLE: &str = "Tcp 10.1.0.2:40000 -> 10.20.0.10:80";

/// A connection on which 5 bytes went up and 2 down.
fn used() -> (Script, FlowId) {
    let (mut script, flow) = telling().connected(seg("S", 0, None, b"").mss(1000).scale(0));
    script.send(seg("P", 1, 1, b"hello"));
    assert_eq!(script.take(flow, 100), b"hello");
    script.serve(flow, b"ok");
    while script.recv().is_some() {}
    script.send(seg("", 6, 3, b""));
    while script.command().is_some() {}
    assert_eq!(told(&mut script), [format!("opened {TUPLE}")]);
    (script, flow)
}

/// The end of that connection, told once; later events tell nothing.
#[track_caller]
fn ends(mut script: Script, ending: &str) {
    assert_eq!(told(&mut script), [format!("closed {TUPLE} 5 up 2 down {ending}")]);
    script.pass(Duration::from_secs(600));
    script.engine.reset_all(script.now);
    assert_eq!(told(&mut script), [""; 0]);
}

#[test]
fn a_connection_is_told_of_once_with_its_bytes_and_how_it_ended() {
    let (mut script, flow) = used();
    script.engine.handle_end(flow, script.now);
    while script.recv().is_some() {}
    script.send(seg("F", 6, 4, b""));
    while script.recv().is_some() {}
    ends(script, "Finished");

    let (mut script, _) = used();
    script.send(seg("R", 6, None, b""));
    ends(script, "ResetByCodespace");

    let (mut script, flow) = used();
    script.engine.handle_failed(flow, script.now);
    while script.recv().is_some() {}
    ends(script, "ResetByHost");

    let (mut script, _) = used();
    script.engine.set_policy(Box::new(rules().prohibit(&["10.20.0.10/32"])), script.now);
    script.recv();
    ends(script, "Revoked");

    let (mut script, _) = used();
    script.engine.set_policy(Box::new(Rules::default()), script.now);
    script.pass(Duration::from_secs(31));
    script.recv();
    ends(script, "Revoked");

    let (mut script, _) = used();
    script.engine.reset_all(script.now);
    ends(script, "SessionEnd");

    let (mut script, flow) = used();
    script.serve(flow, b"nobody acknowledges this");
    while script.engine.flow_count() > 0 {
        while script.recv().is_some() {}
        script.pass(Duration::from_secs(60));
    }
    assert_eq!(told(&mut script), [format!("closed {TUPLE} 5 up 26 down TimedOut")]);
}

#[test]
fn a_connection_that_fails_says_why() {
    for error in [ConnectError::Refused, ConnectError::HostUnreachable, ConnectError::TimedOut] {
        let mut script = telling();
        script.send(seg("S", 0, None, b""));
        let Some(Command::Connect { flow, .. }) = script.command() else { panic!() };
        script.engine.handle_connect_failed(flow, error, script.now);
        while script.sent().is_some() {}
        let closed = format!("closed {TUPLE} 0 up 0 down ConnectFailed({error:?})");
        assert_eq!(told(&mut script), [format!("opened {TUPLE}"), closed]);
    }
}

#[test]
fn each_destination_of_a_socket_is_a_flow_of_its_own() {
    let mut script = telling();
    for (to, payload) in [("10.20.0.1:9", "one"), ("10.20.0.2:9", "two"), ("10.20.0.1:9", "three")] {
        script.send_raw(&udp("10.1.0.2:5000", to, payload.as_bytes()));
    }
    let Some(Command::OpenUdp { flow, .. }) = script.command() else { panic!() };
    script.engine.handle_datagram(flow, socket("10.20.0.2:9"), Bytes::from_static(b"answer"), script.now);
    script.send_raw(&echo("10.1.0.2", "10.20.0.1", 7, 1, b"ping"));
    assert_eq!(
        told(&mut script),
        [
            "opened Udp 10.1.0.2:5000 -> 10.20.0.1:9",
            "opened Udp 10.1.0.2:5000 -> 10.20.0.2:9",
            "opened Echo 10.1.0.2:7 -> 10.20.0.1:0"
        ]
    );
    script.engine.set_policy(Box::new(rules().prohibit(&["10.20.0.2/32"])), script.now);
    assert_eq!(told(&mut script), ["closed Udp 10.1.0.2:5000 -> 10.20.0.2:9 3 up 6 down Revoked"]);
    script.pass(Duration::from_secs(300));
    assert_eq!(
        told(&mut script),
        [
            "closed Echo 10.1.0.2:7 -> 10.20.0.1:0 4 up 0 down TimedOut",
            "closed Udp 10.1.0.2:5000 -> 10.20.0.1:9 8 up 0 down TimedOut"
        ]
    );
}

#[test]
fn a_translated_destination_is_told_with_the_actual_one() {
    let mut script = telling();
    script.engine.set_policy(Box::new(rules().translate("10.20.0.10:80", "10.20.0.11:81")), script.now);
    script.send(seg("S", 0, None, b""));
    let Some(Event::Opened(flow)) = script.engine.poll_event() else { panic!() };
    assert_eq!((flow.destination, flow.actual), (script.server, Some(socket("10.20.0.11:81"))));
}

#[test]
fn a_spray_of_refused_datagrams_is_told_in_two_events() {
    let mut script = Script::new();
    script.engine.set_policy(Box::new(rules().prohibit(&["10.20.0.1/32"])), script.now);
    for _ in 0..1000 {
        script.send_raw(&udp("10.1.0.2:5000", "10.20.0.1:9", b"x"));
    }
    let denied = |count| format!("denied Udp 10.1.0.2:5000 -> 10.20.0.1:9 Prohibited {count}");
    assert_eq!(told(&mut script), [denied(1)]);
    script.pass(Duration::from_secs(60));
    assert_eq!(told(&mut script), [denied(999)]);
    assert_eq!((script.engine.counters().refused, script.engine.poll_timeout()), (1000, None));
}

#[test]
fn a_denial_carries_the_refusal_and_its_five_tuple() {
    let mut script = Script::new();
    script.send_raw(&udp("10.1.0.2:5000", "192.0.2.1:9", b"x"));
    let Some(Event::Denied(denied)) = script.engine.poll_event() else { panic!() };
    assert_eq!((denied.protocol, denied.refusal), (Protocol::Udp, Refusal::NoRoute));
    assert_eq!((denied.client, denied.destination), (socket("10.1.0.2:5000"), socket("192.0.2.1:9")));
}

#[test]
fn nothing_is_told_of_flows_that_nobody_asked_for_and_what_is_not_polled_is_counted() {
    let mut script = Script::new();
    script.send(seg("S", 0, None, b""));
    assert_eq!(script.engine.poll_event(), None);
    let mut script = telling();
    for port in 1..40_000 {
        script.client.set_port(port);
        script.send(Seg { flags: "S", ..Seg::default() });
        let Some(Command::Connect { flow, .. }) = script.command() else { panic!() };
        script.engine.handle_connect_failed(flow, ConnectError::TimedOut, script.now);
    }
    let polled = told(&mut script).len() as u64;
    assert_eq!(polled + script.engine.lost_events(), 2 * 39_999);
}
