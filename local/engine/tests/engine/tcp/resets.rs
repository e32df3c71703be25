//! Resets from either side, and blind reset attacks (RFC 5961).

use std::time::Duration;

use gh_net_engine::{Command, ConnectError};

use crate::harness::{Script, seg};

#[test]
fn a_reset_at_the_next_sequence_number_is_accepted() {
    let (mut script, flow) = Script::established();
    script.send(seg("", 1, 1, b"abc"));
    script.expect(seg("", 1, 4, b""));
    script.command();
    script.send(seg("R", 4, None, b""));
    assert_eq!(script.command(), Some(Command::Abort(flow)));
    assert_eq!((script.engine.flow_count(), script.engine.poll_timeout()), (0, None));
    script.quiet();
}

#[test]
fn a_reset_elsewhere_in_the_window_is_challenged() {
    let (mut script, _) = Script::established();
    script.send(seg("R", 2, None, b""));
    script.expect(seg("", 1, 1, b""));
    script.quiet();
    assert_eq!(script.engine.flow_count(), 1);
}

#[test]
fn a_reset_outside_the_window_is_ignored_with_its_acknowledgment() {
    let (mut script, flow) = Script::established();
    script.serve(flow, b"x");
    script.recv().unwrap();
    for position in [0, -70_000, 5_000_000] {
        script.send(seg("R", position, 2, b""));
        script.quiet();
    }
    assert!(
        script
            .engine
            .poll_timeout()
            .is_some_and(|at| at < script.now + Duration::from_secs(2 * 3600 + 4 * 60))
    );
}

#[test]
fn a_syn_in_an_open_connection_is_challenged() {
    let (mut script, _) = Script::established();
    for position in [0, 5, 1_000_000] {
        script.send(seg("S", position, None, b""));
        script.expect(seg("", 1, 1, b""));
        script.quiet();
        script.pass(Duration::from_secs(1));
    }
    assert_eq!(script.engine.flow_count(), 1);
}

#[test]
fn a_connection_challenges_twice_a_second_at_most() {
    // RFC 5961, 7.
    let (mut script, _) = Script::established();
    let challenges = |script: &mut Script| {
        for forged in [seg("R", 2, None, b""), seg("S", 5, None, b""), seg("", 1, 2, b"x")] {
            script.send(forged);
        }
        std::iter::from_fn(|| script.recv()).count()
    };
    assert_eq!(challenges(&mut script), 1);
    assert_eq!(challenges(&mut script), 0);
    script.pass(Duration::from_millis(499));
    assert_eq!(challenges(&mut script), 0);
    script.pass(Duration::from_millis(1));
    assert_eq!(challenges(&mut script), 1);
    script.send(seg("", 1, 1, b"genuine"));
    script.expect(seg("", 1, 8, b""));
}

#[test]
fn all_connections_challenge_a_thousand_times_a_second_at_most() {
    let mut script = Script::new();
    let mut clients = Vec::new();
    for port in 10_000..11_500 {
        script.client.set_port(port);
        script.theirs = 0;
        (script, _) = script.connected(seg("S", 0, None, b"").mss(1000));
        clients.push((port, script.theirs));
    }
    let challenges = |script: &mut Script| {
        let mut count = 0;
        for (port, theirs) in &clients {
            script.client.set_port(*port);
            script.theirs = *theirs;
            script.send(seg("R", 2, None, b""));
            count += std::iter::from_fn(|| script.recv()).count();
        }
        count
    };
    assert_eq!((challenges(&mut script), script.engine.counters().dropped), (1000, 500));
    script.pass(Duration::from_secs(1));
    assert_eq!(challenges(&mut script), 1000, "others may be challenged in the next second");
}

#[test]
fn a_segment_without_acknowledgment_is_ignored() {
    let (mut script, flow) = Script::established();
    script.send(seg("", 1, None, b"abc"));
    script.quiet();
    assert_eq!(script.take(flow, 10), b"");
}

#[test]
fn the_servers_reset_reaches_the_client() {
    let (mut script, flow) = Script::established();
    script.engine.handle_failed(flow, script.now);
    script.expect(seg("R", 1, 1, b""));
    assert_eq!((script.engine.flow_count(), script.engine.poll_timeout()), (0, None));
    script.quiet();
}

#[test]
fn data_before_the_servers_reset_reaches_the_client() {
    let (mut script, flow) = Script::established();
    script.send(seg("", 1, 1, b"").window(1000));
    script.serve(flow, &[1; 1000]);
    script.serve_more(flow, &[2; 500]);
    script.engine.handle_failed(flow, script.now);
    script.expect(seg("", 1, 1, &[1; 1000]));
    script.quiet();
    // Nothing is taken from or given to a socket that is gone.
    script.send(seg("", 1, 1001, b"for nobody").window(1000));
    script.expect(seg("", 1001, 11, b""));
    script.expect(seg("P", 1001, 11, &[2; 500]));
    script.expect(seg("R", 1501, 11, b""));
    assert_eq!((script.engine.flow_count(), script.engine.poll_timeout()), (0, None));
    script.quiet();
}

#[test]
fn a_client_that_does_not_acknowledge_data_before_the_reset_is_given_up() {
    let (mut script, flow) = Script::established();
    script.send(seg("", 1, 1, b"").window(0));
    script.serve(flow, b"last words");
    script.engine.handle_failed(flow, script.now);
    script.pass(Duration::from_secs(900));
    let last = std::iter::from_fn(|| script.recv()).last().expect("probes and a reset");
    assert_eq!(last.flags, "R");
    assert_eq!((script.engine.flow_count(), script.engine.poll_timeout()), (0, None));
    script.quiet();
}

#[test]
fn a_reset_waits_for_the_next_link() {
    let (mut script, flow) = Script::established();
    script.engine.handle_link_down(script.now);
    script.engine.handle_failed(flow, script.now);
    script.quiet();
    script.engine.handle_link_up(script.now);
    script.expect(seg("R", 1, 1, b""));
    assert_eq!((script.engine.flow_count(), script.engine.poll_timeout()), (0, None));
}

#[test]
fn an_unknown_connection_is_refused() {
    for mut script in [Script::new(), Script::v6()] {
        script.theirs = 5000;
        script.send(seg("", 100, 7, b"who?"));
        script.expect(seg("R", 7, None, b""));
        script.theirs = 0;
        // RFC 9293, 3.10.7.1: without an acknowledgment, 0 and all that was sent.
        script.send(seg("F", 100, None, b"who?"));
        script.expect(seg("R", 0, 105, b""));
        script.send(seg("SF", 100, 7, b"who?"));
        script.expect(seg("R", 7, None, b""));
        script.send(seg("R", 100, 7, b""));
        script.send(seg("SR", 100, None, b""));
        script.quiet();
    }
}

#[test]
fn events_of_a_removed_flow_are_ignored() {
    let (mut script, flow) = Script::established();
    script.send(seg("R", 1, None, b""));
    script.command();
    let now = script.now;
    script.engine.handle_connected(flow, now);
    script.engine.handle_connect_failed(flow, ConnectError::Refused, now);
    script.engine.handle_accepted(flow, 10, now);
    script.engine.handle_data(flow, b"x"[..].into(), now);
    script.engine.handle_end(flow, now);
    script.engine.handle_failed(flow, now);
    assert_eq!(script.engine.downlink_room(flow), 0);
    assert!(!script.engine.uplink_ended(flow));
    script.quiet();
}

#[test]
fn data_with_an_acknowledgment_that_is_too_old_is_challenged() {
    // The client's window is 60,000.
    let (mut script, flow) = Script::established();
    for n in 0..80 {
        script.serve(flow, &[1; 1000]);
        script.expect(seg("P", 1 + n * 1000, 1, &[1; 1000]));
        script.send(seg("", 1, 1001 + n * 1000, b""));
    }
    // RFC 5961, 5: what is older than the largest window can't be under way any more.
    script.send(seg("P", 1, 80_001 - 60_001, b"forged"));
    script.expect(seg("", 80_001, 1, b""));
    assert_eq!(script.take(flow, 100), b"");
    script.send(seg("P", 1, 80_001 - 60_000, b"late"));
    script.expect(seg("", 80_001, 5, b""));
    assert_eq!(script.take(flow, 100), b"late");
}
