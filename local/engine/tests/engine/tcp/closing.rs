//! FINs in every order, TIME-WAIT, and servers that are slower than the end.

use std::time::Duration;

use gh_net_engine::{Command, FlowId};

use crate::harness::{Script, seg};

/// All commands that are not about serving.
fn commands(script: &mut Script) -> Vec<Command> {
    let all = std::iter::from_fn(|| script.command());
    all.filter(|command| !matches!(command, Command::Service(_))).collect()
}

/// The connection is over, and TIME-WAIT passes.
fn forgotten(script: &mut Script) {
    script.pass(Duration::from_secs(60));
    assert_eq!((script.engine.flow_count(), script.engine.poll_timeout()), (0, None));
    script.quiet();
}

/// The server ends and the client acknowledges: FIN-WAIT-2.
fn ended_by_server() -> (Script, FlowId) {
    let (mut script, flow) = Script::established();
    script.serve(flow, b"bye");
    script.engine.handle_end(flow, script.now);
    script.expect(seg("FP", 1, 1, b"bye"));
    script.send(seg("", 1, 5, b""));
    script.quiet();
    (script, flow)
}

#[test]
fn the_client_ends_first() {
    let (mut script, flow) = Script::established();
    script.send(seg("F", 1, 1, b"request"));
    script.expect(seg("", 1, 9, b""));
    assert_eq!(script.command(), Some(Command::Service(flow)));
    assert!(!script.engine.uplink_ended(flow), "the socket has yet to take the request");
    assert_eq!(script.take(flow, 100), b"request");
    assert!(script.engine.uplink_ended(flow));
    // CLOSE-WAIT: the server answers for as long as it likes.
    script.pass(Duration::from_secs(70));
    script.serve(flow, b"answer");
    script.expect(seg("P", 1, 9, b"answer"));
    script.send(seg("", 9, 7, b""));
    script.engine.handle_end(flow, script.now);
    assert_eq!(commands(&mut script), [Command::Close(flow)]);
    script.expect(seg("FP", 7, 9, b""));
    script.send(seg("", 9, 8, b""));
    assert_eq!(script.engine.flow_count(), 0);
    script.quiet();
}

#[test]
fn the_server_ends_first() {
    let (mut script, flow) = ended_by_server();
    // FIN-WAIT-2: the client may go on for as long as it likes.
    script.pass(Duration::from_secs(70));
    script.send(seg("", 1, 5, b"still here"));
    script.expect(seg("", 5, 11, b""));
    assert_eq!(script.take(flow, 100), b"still here");
    script.send(seg("F", 11, 5, b""));
    script.expect(seg("", 5, 12, b""));
    assert_eq!(commands(&mut script), [Command::Close(flow)]);
    assert_eq!(script.engine.flow_count(), 1, "TIME-WAIT");
    // Its last acknowledgment was lost.
    script.send(seg("F", 11, 5, b""));
    script.expect(seg("", 5, 12, b""));
    forgotten(&mut script);
}

#[test]
fn both_end_at_once() {
    let (mut script, flow) = Script::established();
    script.engine.handle_end(flow, script.now);
    script.expect(seg("FP", 1, 1, b""));
    // CLOSING: the client's FIN does not acknowledge ours.
    script.send(seg("F", 1, 1, b""));
    script.expect(seg("", 2, 2, b""));
    script.send(seg("", 2, 2, b""));
    assert_eq!(commands(&mut script), [Command::Close(flow)]);
    assert_eq!(script.engine.flow_count(), 1, "TIME-WAIT");
    forgotten(&mut script);
}

#[test]
fn one_segment_may_acknowledge_our_fin_and_bring_the_other() {
    let (mut script, flow) = Script::established();
    script.engine.handle_end(flow, script.now);
    script.expect(seg("FP", 1, 1, b""));
    script.send(seg("F", 1, 2, b"last words"));
    script.expect(seg("", 2, 12, b""));
    assert_eq!(script.take(flow, 100), b"last words");
    assert_eq!(commands(&mut script), [Command::Close(flow)]);
    forgotten(&mut script);
}

#[test]
fn our_fin_is_sent_again_with_its_data() {
    let (mut script, flow) = Script::established();
    script.serve(flow, b"bye");
    script.engine.handle_end(flow, script.now);
    script.expect(seg("FP", 1, 1, b"bye"));
    script.wakes_after(Duration::from_secs(1));
    script.expect(seg("FP", 1, 1, b"bye"));
    // The data came through, the FIN did not.
    script.send(seg("", 1, 4, b""));
    script.quiet();
    script.pass(Duration::from_secs(2));
    script.expect(seg("FP", 4, 1, b""));
}

#[test]
fn the_clients_fin_is_acknowledged_as_often_as_it_comes() {
    let (mut script, _) = Script::established();
    for _ in 0..3 {
        script.send(seg("F", 1, 1, b"bye"));
        script.expect(seg("", 1, 5, b""));
    }
}

#[test]
fn data_after_the_clients_fin_is_ignored() {
    let (mut script, flow) = Script::established();
    script.send(seg("F", 1, 1, b"end"));
    script.expect(seg("", 1, 5, b""));
    script.send(seg("", 5, 1, b"no, wait"));
    script.expect(seg("", 1, 5, b""));
    assert_eq!(script.take(flow, 100), b"end");
}

#[test]
fn a_later_syn_opens_a_new_connection_in_time_wait() {
    let (mut script, _) = ended_by_server();
    script.send(seg("F", 1, 5, b""));
    script.expect(seg("", 5, 2, b""));
    commands(&mut script);
    // An old duplicate does not.
    script.send(seg("S", -1000, None, b""));
    script.expect(seg("", 5, 2, b""));
    script.quiet();
    script.ours += 1000;
    script.send(seg("S", 0, None, b""));
    let [Command::Connect { flow, .. }] = commands(&mut script)[..] else { panic!() };
    script.engine.handle_connected(flow, script.now);
    script.expect(seg("S", 0, 1, b""));
    assert_eq!(script.engine.flow_count(), 1);
}

#[test]
fn a_reset_in_time_wait_ends_it() {
    let (mut script, _) = ended_by_server();
    script.send(seg("F", 1, 5, b""));
    script.expect(seg("", 5, 2, b""));
    commands(&mut script);
    script.send(seg("R", 2, None, b""));
    assert_eq!(script.engine.flow_count(), 0);
    script.quiet();
}

/// Both ends have closed the connection; the server has not read `"slowly"`.
fn undrained(client_first: bool) -> (Script, FlowId) {
    let (mut script, flow) = Script::established();
    if client_first {
        script.send(seg("F", 1, 1, b"slowly"));
        script.expect(seg("", 1, 8, b""));
        script.engine.handle_end(flow, script.now);
        script.expect(seg("FP", 1, 8, b""));
        script.send(seg("", 8, 2, b""));
    } else {
        script.engine.handle_end(flow, script.now);
        script.expect(seg("FP", 1, 1, b""));
        script.send(seg("F", 1, 2, b"slowly"));
        script.expect(seg("", 2, 8, b""));
    }
    assert_eq!(commands(&mut script), []);
    (script, flow)
}

#[test]
fn a_slow_server_gets_all_bytes_after_the_end() {
    for client_first in [true, false] {
        let (mut script, flow) = undrained(client_first);
        script.pass(Duration::from_secs(600));
        script.quiet();
        assert_eq!(script.take(flow, 3), b"slo");
        assert!(!script.engine.uplink_ended(flow));
        assert_eq!(script.take(flow, 100), b"wly");
        assert_eq!(commands(&mut script), [Command::Close(flow)]);
        assert_eq!((script.engine.flow_count(), script.engine.poll_timeout()), (0, None));
    }
}

#[test]
fn a_new_connection_does_not_cost_a_slow_server_its_bytes() {
    for client_first in [true, false] {
        let (mut script, old) = undrained(client_first);
        script.ours += 1000;
        script.send(seg("S", 0, None, b""));
        let [Command::Connect { flow, .. }] = commands(&mut script)[..] else { panic!() };
        script.engine.handle_connected(flow, script.now);
        script.expect(seg("S", 0, 1, b""));
        script.send(seg("", 1, 1, b"new"));
        script.expect(seg("", 1, 4, b""));
        // The finished connection sends nothing on a new link.
        script.engine.handle_link_down(script.now);
        script.engine.handle_link_up(script.now);
        script.expect(seg("", 1, 4, b""));
        script.expect(seg("", 0, 4, b""));
        script.quiet_except_service();
        assert_eq!(script.take(old, 100), b"slowly");
        assert_eq!(commands(&mut script), [Command::Close(old)]);
        assert_eq!(script.take(flow, 100), b"new");
        assert_eq!(script.engine.flow_count(), 1);
    }
}

#[test]
fn a_server_that_never_reads_the_rest_is_finally_reset() {
    for client_first in [true, false] {
        let (mut script, flow) = undrained(client_first);
        script.pass(Duration::from_secs(3 * 3600));
        assert_eq!(commands(&mut script), [Command::Abort(flow)]);
        assert_eq!((script.engine.flow_count(), script.engine.poll_timeout()), (0, None));
        script.quiet();
    }
}

#[test]
fn a_reset_after_the_fin_does_not_cost_a_slow_server_its_bytes() {
    // In TIME-WAIT.
    let (mut script, flow) = undrained(false);
    script.send(seg("R", 8, None, b""));
    assert_eq!(commands(&mut script), []);
    assert_eq!(script.take(flow, 100), b"slowly");
    assert_eq!(commands(&mut script), [Command::Close(flow)]);
    assert_eq!((script.engine.flow_count(), script.engine.poll_timeout()), (0, None));
    // In CLOSE-WAIT: the client can't receive the answer any more, so the server's connection is aborted.
    let (mut script, flow) = Script::established();
    script.send(seg("F", 1, 1, b"slowly"));
    script.expect(seg("", 1, 8, b""));
    script.serve(flow, b"answer");
    script.expect(seg("P", 1, 8, b"answer"));
    script.send(seg("R", 8, None, b""));
    assert_eq!(commands(&mut script), []);
    assert_eq!(script.engine.downlink_room(flow), 0);
    assert_eq!(script.take(flow, 100), b"slowly");
    assert_eq!(commands(&mut script), [Command::Abort(flow)]);
    assert_eq!((script.engine.flow_count(), script.engine.poll_timeout()), (0, None));
    script.quiet();
}

#[test]
fn a_new_link_provokes_no_reset_in_time_wait() {
    let (mut script, flow) = undrained(false);
    script.engine.handle_link_down(script.now);
    script.engine.handle_link_up(script.now);
    script.quiet();
    assert_eq!(script.take(flow, 100), b"slowly");
}

#[test]
fn a_segment_for_a_finished_connection_is_refused() {
    let (mut script, _) = undrained(true);
    script.send(seg("", 8, 2, b"late"));
    script.expect(seg("R", 2, None, b""));
}
