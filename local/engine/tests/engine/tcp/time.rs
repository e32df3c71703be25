//! Time-outs, idle connections, and cuts of the link.

use std::time::Duration;

use gh_net_engine::Command;

use crate::harness::{Script, echo, seg, udp};

const IDLE: Duration = Duration::from_secs(2 * 3600 + 4 * 60);

#[test]
fn unacknowledged_data_is_retransmitted_and_given_up_after_15_minutes() {
    let (mut script, flow) = Script::established();
    script.serve(flow, b"anybody?");
    script.expect(seg("P", 1, 1, b"anybody?"));
    for attempt in 0..15 {
        script.wakes_after(Duration::from_secs((1 << attempt).min(60)));
        script.expect(seg("P", 1, 1, b"anybody?"));
        script.quiet();
    }
    script.wakes_after(Duration::from_secs(60));
    assert_eq!(script.command(), Some(Command::Abort(flow)));
    script.expect(seg("R", 9, 1, b""));
    assert_eq!((script.engine.flow_count(), script.engine.poll_timeout()), (0, None));
}

#[test]
fn an_acknowledgment_of_a_second_sending_does_not_shorten_the_time_out() {
    let (mut script, flow) = Script::established();
    script.serve(flow, b"a");
    script.recv().unwrap();
    script.wakes_after(Duration::from_secs(1));
    script.expect(seg("P", 1, 1, b"a"));
    script.send(seg("", 1, 2, b""));
    // Karn's algorithm: it may have been for the first.
    script.serve(flow, b"b");
    script.expect(seg("P", 2, 1, b"b"));
    script.pass(Duration::from_millis(1999));
    script.quiet();
    script.pass(Duration::from_millis(1));
    script.expect(seg("P", 2, 1, b"b"));
    script.send(seg("", 1, 3, b""));
    // What is sent once is measured, and the time-out is short again.
    script.serve(flow, b"c");
    script.expect(seg("P", 3, 1, b"c"));
    script.pass(Duration::from_millis(5));
    script.send(seg("", 1, 4, b""));
    script.serve(flow, b"d");
    script.expect(seg("P", 4, 1, b"d"));
    script.pass(Duration::from_millis(999));
    script.quiet();
    script.pass(Duration::from_millis(1));
    script.expect(seg("P", 4, 1, b"d"));
}

#[test]
fn the_time_out_follows_the_round_trip() {
    let (mut script, flow) = Script::established();
    script.reports = false;
    for n in 0..20 {
        script.serve(flow, b"x");
        script.expect(seg("P", 1 + n, 1, b"x"));
        script.pass(Duration::from_millis(900));
        script.send(seg("", 1, 2 + n, b""));
        script.command();
    }
    script.reports = true;
    script.serve(flow, b"x");
    script.recv().unwrap();
    script.pass(Duration::from_millis(850));
    script.quiet();
}

#[test]
fn data_that_the_link_has_not_delivered_is_not_retransmitted() {
    let (mut script, flow) = Script::established();
    script.reports = false;
    script.serve(flow, b"slow");
    script.expect(seg("P", 1, 1, b"slow"));
    script.pass(Duration::from_secs(120));
    script.quiet();
    script.engine.handle_delivered(u64::MAX);
    script.pass(Duration::from_secs(1));
    script.expect(seg("P", 1, 1, b"slow"));
}

#[test]
fn an_idle_connection_is_probed_after_two_hours() {
    let (mut script, flow) = Script::established();
    script.pass(IDLE - Duration::from_secs(1));
    script.quiet();
    script.pass(Duration::from_secs(1));
    script.expect(seg("", 0, 1, b""));
    script.send(seg("", 1, 1, b""));
    script.pass(IDLE - Duration::from_secs(1));
    script.quiet();
    script.pass(Duration::from_secs(1));
    for _ in 0..9 {
        script.expect(seg("", 0, 1, b""));
        script.quiet();
        script.pass(Duration::from_secs(75));
    }
    assert_eq!(script.command(), Some(Command::Abort(flow)));
    script.expect(seg("R", 1, 1, b""));
    assert_eq!((script.engine.flow_count(), script.engine.poll_timeout()), (0, None));
}

#[test]
fn a_half_closed_connection_whose_program_is_gone_ends_after_a_probe() {
    for server_first in [false, true] {
        let (mut script, flow) = Script::established();
        let (ours, theirs) = if server_first {
            script.engine.handle_end(flow, script.now);
            script.expect(seg("FP", 1, 1, b""));
            script.send(seg("", 1, 2, b""));
            (1, 2)
        } else {
            script.send(seg("F", 1, 1, b""));
            script.expect(seg("", 1, 2, b""));
            (2, 1)
        };
        while script.command().is_some() {}
        // A program that still reads answers, and nothing changes.
        for _ in 0..100 {
            script.pass(Duration::from_secs(75));
            script.expect(seg("", theirs - 1, ours, b""));
            script.send(seg("", ours, theirs, b""));
        }
        script.quiet();
        script.pass(Duration::from_secs(75));
        script.expect(seg("", theirs - 1, ours, b""));
        script.send(seg("R", ours, None, b""));
        assert_eq!(script.command(), Some(Command::Abort(flow)));
        script.quiet();
        assert_eq!((script.engine.flow_count(), script.engine.poll_timeout()), (0, None));
    }
}

#[test]
fn a_half_closed_connection_does_not_disturb_a_quiet_link() {
    let (mut script, flow) = Script::established();
    script.send(seg("F", 1, 1, b""));
    script.expect(seg("", 1, 2, b""));
    while script.command().is_some() {}
    script.engine.set_quiet(true, script.now);
    script.pass(Duration::from_secs(3600));
    script.quiet();
    script.engine.set_quiet(false, script.now);
    script.pass(Duration::ZERO);
    script.expect(seg("", 0, 2, b""));
    script.send(seg("R", 2, None, b""));
    assert_eq!(script.command(), Some(Command::Abort(flow)));
}

#[test]
fn a_connection_with_traffic_either_way_is_not_idle() {
    let (mut script, flow) = Script::established();
    let (mut up, mut down) = (1, 1);
    for n in 0..6 {
        script.pass(IDLE - Duration::from_secs(60));
        if n % 2 == 0 {
            script.send(seg("", up, down, b"x"));
            up += 1;
            script.expect(seg("", down, up, b""));
            script.take(flow, 10);
        } else {
            script.serve(flow, b"y");
            script.expect(seg("P", down, up, b"y"));
            down += 1;
            script.send(seg("", up, down, b""));
        }
        script.command();
        script.quiet();
    }
}

#[test]
fn a_probe_of_the_client_is_answered() {
    let (mut script, _) = Script::established();
    script.send(seg("", 0, 1, b""));
    script.expect(seg("", 1, 1, b""));
    script.quiet();
}

#[test]
fn nothing_is_lost_when_the_link_is_cut() {
    let (mut script, flow) = Script::established();
    script.serve(flow, &[1; 2500]);
    assert_eq!(std::iter::from_fn(|| script.recv()).count(), 3);
    script.send(seg("", 1, 1001, b"up"));
    script.command();
    script.engine.handle_link_down(script.now);
    script.quiet();
    // Nothing times out during the cut, however long it lasts, and bytes of the server wait.
    script.pass(Duration::from_secs(24 * 3600));
    script.quiet();
    script.serve(flow, &[2; 100]);
    script.quiet();
    script.engine.handle_link_up(script.now);
    // First the current acknowledgment, then the data that may be lost.
    script.expect(seg("", 2501, 3, b""));
    script.expect(seg("", 1001, 3, &[1; 1000]));
    script.expect(seg("P", 2001, 3, &[[1; 500].as_slice(), &[2; 100]].concat()));
}

#[test]
fn a_syn_ack_without_a_link_is_sent_on_the_next() {
    let mut script = Script::new();
    script.send(seg("S", 0, None, b""));
    let Some(Command::Connect { flow, .. }) = script.command() else { panic!() };
    script.engine.handle_link_down(script.now);
    script.engine.handle_connected(flow, script.now);
    script.pass(Duration::from_secs(100));
    script.quiet();
    script.engine.handle_link_up(script.now);
    script.expect(seg("S", 0, 1, b""));
    script.wakes_after(Duration::from_secs(1));
    script.expect(seg("S", 0, 1, b""));
}

#[test]
fn acknowledgments_during_a_retransmission_are_within_the_clients_window() {
    let (mut script, flow) = Script::established();
    script.serve(flow, &[1; 3000]);
    assert_eq!(std::iter::from_fn(|| script.recv()).count(), 3);
    script.wakes_after(Duration::from_secs(1));
    // The client has it all, its acknowledgment was lost, and it sends.
    script.send(seg("", 1, 1, b"up"));
    script.expect(seg("", 3001, 3, b""));
}

#[test]
fn on_a_quiet_link_keepalives_and_window_probes_wait_for_its_end() {
    // An idle connection, whose peer is gone: a link that is woken now and then finds out, too.
    let (mut script, flow) = Script::established();
    for _ in 0..9 {
        script.engine.set_quiet(true, script.now);
        script.pass(2 * IDLE);
        script.quiet();
        script.engine.set_quiet(false, script.now);
        script.pass(Duration::ZERO);
        script.expect(seg("", 0, 1, b""));
    }
    script.pass(Duration::from_secs(75));
    assert_eq!(script.command(), Some(Command::Abort(flow)));

    // A closed window.
    let (mut script, flow) = Script::established();
    script.send(seg("", 1, 1, b"").window(0));
    script.serve(flow, b"data");
    script.engine.set_quiet(true, script.now);
    script.pass(Duration::from_secs(3600));
    script.quiet();
    script.engine.set_quiet(false, script.now);
    script.pass(Duration::ZERO);
    script.expect(seg("", 0, 1, b""));
    script.send(seg("", 1, 1, b""));
    script.expect(seg("P", 1, 1, b"data"));
}

#[test]
fn a_standby_acknowledgment_is_the_answer_to_a_keepalive() {
    let (mut script, flow) = Script::established();
    script.send(seg("P", 1, 1, b"hello"));
    script.serve(flow, b"world");
    while script.recv().is_some() {}
    script.send(seg("", 6, 6, b""));
    let standby: Vec<_> = script.engine.standby(9).map(|it| it.headers.as_slice().to_vec()).collect();
    // The keepalive has the sequence number before the next one.
    script.send(seg("", 5, 6, b""));
    let (answer, _) =
        script.engine.poll_transmit(true, script.now).map(|it| (it.headers, it.payload)).unwrap();
    assert_eq!(standby, [answer.as_slice().to_vec()]);
}

#[test]
fn payload_makes_the_engine_active_and_nothing_else_does() {
    let (mut script, flow) = Script::established();
    script.engine.handle_link_up(script.now);
    let up = Some(script.now);
    script.pass(Duration::from_secs(10));
    script.send(seg("", 0, 1, b""));
    script.send(seg("", 1, 1, b""));
    while script.recv().is_some() {}
    assert_eq!(
        (script.engine.last_active(), script.engine.last_exchange()),
        (up, up),
        "bare acknowledgments"
    );
    for packet in [
        echo("10.1.0.2", "10.20.0.1", 7, 1, b"ping"),
        udp("10.1.0.2:5000", "10.20.0.1:53", b"?"),
        udp("10.1.0.2:5000", "198.19.240.2:53", b"?"),
    ] {
        script.pass(Duration::from_secs(1));
        script.send_raw(&packet);
        assert_eq!((script.engine.last_active(), script.engine.last_exchange()), (up, Some(script.now)));
    }
    script.pass(Duration::from_secs(1));
    script.serve(flow, b"x");
    assert_eq!(script.engine.last_active(), Some(script.now));
    script.pass(Duration::from_secs(1));
    script.send_raw(&udp("10.1.0.2:5000", "10.20.0.1:7", b"x"));
    assert_eq!(script.engine.last_active(), Some(script.now));
    // An end of the server is an exchange.
    script.pass(Duration::from_secs(1));
    script.engine.handle_failed(flow, script.now);
    while script.sent().is_some() {}
    assert_eq!(script.engine.last_exchange(), Some(script.now));
}
