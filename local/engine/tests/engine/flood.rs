//! Who makes room when the tables of flows are full.

use std::time::Duration;

use bytes::Bytes;
use gh_net_engine::{Command, Config, ConnectError, Engine, FlowId, Resources};
use gh_net_testkit::socket;

use crate::harness::{Script, config, echo, seg, udp};

/// Connections that may be half open, and open.
const OPENING: u32 = 4096;
const OPEN: u32 = 8192;

/// The nth client sends a SYN to `server`; returns the new flow, if there is one, and the one that was given up.
fn open(script: &mut Script, n: u32, server: &str) -> (Option<FlowId>, Option<FlowId>) {
    script.client = socket(&format!("10.1.{}.2:{}", n / 50_000, 10_000 + n % 50_000));
    script.server = socket(server);
    script.theirs = 0;
    script.send(seg("S", 0, None, b""));
    let (mut opened, mut given_up) = (None, None);
    while let Some(command) = script.command() {
        if let Command::Connect { flow, .. } = command {
            opened = Some(flow);
        } else if let Command::Abort(flow) = command {
            given_up = Some(flow);
        }
    }
    (opened, given_up)
}

/// The nth client's connection to `server` is established.
fn establish(script: &mut Script, n: u32, server: &str) -> FlowId {
    let (Some(flow), None) = open(script, n, server) else { panic!("connection {n}") };
    script.engine.handle_connected(flow, script.now);
    script.expect(seg("S", 0, 1, b""));
    script.send(seg("", 1, 1, b""));
    while script.command().is_some() {}
    flow
}

#[test]
fn the_oldest_half_open_connection_of_the_busiest_network_makes_room_silently() {
    let mut script = Script::new();
    let (Some(victim), None) = open(&mut script, 0, "10.20.1.1:80") else { panic!() };
    let mut scan = Vec::new();
    for n in 1..OPENING {
        let (flow, None) = open(&mut script, n, &format!("10.20.2.{}:80", n % 250)) else { panic!("{n}") };
        scan.push(flow.unwrap());
    }
    let (Some(_), given_up) = open(&mut script, OPENING, "10.20.3.1:80") else { panic!() };
    assert_eq!(given_up, Some(scan[0]));
    script.quiet();
    // The scan goes on for long: only its own attempts are given up.
    for n in 0..2 * OPENING {
        let (Some(_), Some(given_up)) = open(&mut script, OPENING + 1 + n, "10.20.2.7:80") else { panic!() };
        assert_ne!(given_up, victim);
    }
    assert_eq!(script.engine.counters().evicted, u64::from(2 * OPENING + 1));
    assert_eq!(script.engine.counters().full, 0);
    (script.client, script.server) = (socket("10.1.0.2:10000"), socket("10.20.1.1:80"));
    script.engine.handle_connected(victim, script.now);
    script.expect(seg("S", 0, 1, b""));
}

#[test]
fn a_connection_that_was_given_up_is_opened_by_the_next_syn() {
    let mut script = Script::new();
    for n in 0..=OPENING {
        open(&mut script, n, "10.20.2.1:80");
    }
    assert_eq!(script.engine.counters().evicted, 1);
    script.quiet();
    let (Some(flow), Some(_)) = open(&mut script, 0, "10.20.2.1:80") else { panic!() };
    script.engine.handle_connected(flow, script.now);
    script.expect(seg("S", 0, 1, b""));
}

#[test]
fn whoever_believes_to_be_connected_is_told() {
    let mut script = Script::new();
    let (Some(first), None) = open(&mut script, 0, "10.20.2.1:80") else { panic!() };
    script.engine.handle_connected(first, script.now);
    script.expect(seg("S", 0, 1, b""));
    let (client, theirs) = (script.client, script.theirs);
    for n in 1..OPENING {
        open(&mut script, n, "10.20.2.1:80");
    }
    let (Some(_), Some(given_up)) = open(&mut script, OPENING, "10.20.2.1:80") else { panic!() };
    assert_eq!(given_up, first);
    (script.client, script.theirs) = (client, theirs);
    script.expect(seg("R", 1, 1, b""));
    script.quiet();
}

#[test]
fn established_connections_make_no_room_for_others() {
    let mut script = Script::new();
    for n in 0..OPEN {
        establish(&mut script, n, "10.20.1.1:80");
    }
    assert_eq!(open(&mut script, OPEN, "10.20.2.1:80"), (None, None));
    let counters = script.engine.counters();
    assert_eq!((counters.full, counters.dropped, counters.evicted), (1, 1, 0));
    script.quiet();
    // One that is reset makes room.
    (script.client, script.server) = (socket("10.1.0.2:10017"), socket("10.20.1.1:80"));
    script.send(seg("R", 1, None, b""));
    assert!(matches!(script.command(), Some(Command::Abort(_))));
    establish(&mut script, OPEN, "10.20.2.1:80");
}

#[test]
fn half_open_connections_end_after_their_own_time() {
    let mut script = Script::new();
    let (Some(flow), None) = open(&mut script, 0, "10.20.1.1:80") else { panic!() };
    script.wakes_after(Duration::from_secs(75));
    assert_eq!(script.command(), Some(Command::Abort(flow)));
    script.quiet();
    assert_eq!((script.engine.flow_count(), script.engine.poll_timeout()), (0, None));
    script.engine.handle_connect_failed(flow, ConnectError::Refused, script.now);
    script.quiet();
}

#[test]
fn time_without_a_link_does_not_count_for_half_open_connections() {
    let mut script = Script::new();
    let (Some(flow), None) = open(&mut script, 0, "10.20.1.1:80") else { panic!() };
    script.pass(Duration::from_secs(70));
    script.engine.handle_link_down(script.now);
    script.pass(Duration::from_secs(600));
    script.engine.handle_link_up(script.now);
    script.wakes_after(Duration::from_secs(5));
    assert_eq!(script.command(), Some(Command::Abort(flow)));
}

/// The commands that open a flow, and those that close one.
fn opened_and_closed(script: &mut Script) -> (Vec<FlowId>, Vec<FlowId>) {
    let (mut opened, mut closed) = (Vec::new(), Vec::new());
    while let Some(command) = script.command() {
        if let Command::OpenUdp { flow, .. } | Command::OpenEcho { flow, .. } = command {
            opened.push(flow);
        } else if let Command::Close(flow) = command {
            closed.push(flow);
        }
    }
    (opened, closed)
}

#[test]
fn unanswered_mappings_make_room_and_answered_ones_do_not() {
    let mut script = Script::new();
    script.send_raw(&udp("10.1.0.2:9", "10.20.0.1:7", b"x"));
    let (answered, _) = opened_and_closed(&mut script);
    let reply = Bytes::from_static(b"y");
    script.engine.handle_datagram(answered[0], socket("10.20.0.1:7"), reply, script.now);
    assert!(script.sent().is_some());
    for n in 0..5000 {
        script.send_raw(&udp(&format!("10.1.0.2:{}", 10_000 + n), "10.20.2.1:7", b"x"));
    }
    let (opened, closed) = opened_and_closed(&mut script);
    assert_eq!((opened.len(), closed.len()), (5000, 5000 - 4095));
    assert_eq!(closed, opened[..closed.len()], "the oldest, and not the answered one");
    assert_eq!(script.engine.flow_count(), 4096);
    assert_eq!(script.engine.counters().evicted, closed.len() as u64);
}

#[test]
fn answered_mappings_alone_leave_no_room() {
    let mut script = Script::new();
    for n in 0..4096 {
        script.send_raw(&udp(&format!("10.1.0.2:{}", 10_000 + n), "10.20.0.1:7", b"x"));
        let (opened, _) = opened_and_closed(&mut script);
        let reply = Bytes::from_static(b"y");
        script.engine.handle_datagram(opened[0], socket("10.20.0.1:7"), reply, script.now);
    }
    script.send_raw(&udp("10.1.0.2:9", "10.20.2.1:7", b"x"));
    assert_eq!(opened_and_closed(&mut script), (vec![], vec![]));
    assert_eq!(script.engine.counters().full, 1);
}

#[test]
fn unanswered_echo_sessions_make_room() {
    let mut script = Script::new();
    script.send_raw(&echo("10.1.0.2", "10.20.9.1", 9999, 1, b""));
    for n in 0..1000 {
        script.send_raw(&echo("10.1.0.2", "10.20.0.1", n, 1, b""));
    }
    let (opened, closed) = opened_and_closed(&mut script);
    assert_eq!((opened.len(), closed.len()), (1001, 1001 - 512));
    assert!(!closed.contains(&opened[0]), "another network is not the busiest");
}

#[test]
fn the_tables_fit_into_the_drivers_sockets() {
    let resources = Resources { sockets: 1536, ..Resources::default() };
    let mut script = Script::new();
    script.engine = Engine::new(Config { resources, ..config(7) });
    for n in 0..2000 {
        let server = format!("10.20.{}.1:80", n % 200);
        open(&mut script, n, &server);
        script.send_raw(&udp(&format!("10.1.0.2:{}", 10_000 + n), "10.20.2.1:7", b"x"));
        script.send_raw(&echo("10.1.0.2", "10.20.0.1", n as u16, 1, b""));
        opened_and_closed(&mut script);
    }
    for n in 2000..3000 {
        let (Some(flow), _) = open(&mut script, n, "10.20.250.1:80") else { break };
        script.engine.handle_connected(flow, script.now);
        script.recv().unwrap();
        script.send(seg("", 1, 1, b""));
        while script.command().is_some() {}
    }
    assert!(script.engine.counters().full > 0);
    assert!((800..=1024).contains(&script.engine.flow_count()), "{}", script.engine.flow_count());
}
