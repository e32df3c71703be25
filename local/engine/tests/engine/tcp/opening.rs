//! The handshake.

use std::time::Duration;

use gh_net_engine::{Command, ConnectError, Target};

use crate::harness::{MTU, Script, Seg, seg};

fn syn() -> Seg {
    seg("S", 0, None, b"").mss(1460).scale(7)
}

#[test]
fn a_syn_is_answered_when_the_socket_is_connected() {
    for mut script in [Script::new(), Script::v6()] {
        script.send(syn());
        let Some(Command::Connect { flow, target, hop_limit: None }) = script.command() else { panic!() };
        assert_eq!(target, Target::Host { address: script.server, interface: None });
        script.quiet();
        script.engine.handle_connected(flow, script.now);
        let answer = script.expect(seg("S", 0, 1, b""));
        let overhead = if script.server.is_ipv4() { 40 } else { 60 };
        assert_eq!((answer.mss, answer.scale), (Some(MTU - overhead), Some(7)));
        assert_eq!(answer.window, 65_535);
        assert_eq!(script.engine.downlink_room(flow), 0, "nothing is read before the handshake is complete");
        script.send(seg("", 1, 1, b""));
        assert_eq!(script.command(), Some(Command::Service(flow)));
        assert!(script.engine.downlink_room(flow) > 0);
        script.quiet();
    }
}

#[test]
fn the_acknowledgment_of_the_syn_may_carry_data_and_fin() {
    let mut script = Script::new();
    script.send(syn());
    let Some(Command::Connect { flow, .. }) = script.command() else { panic!() };
    script.engine.handle_connected(flow, script.now);
    script.expect(seg("S", 0, 1, b""));
    script.send(seg("F", 1, 1, b"all at once"));
    script.expect(seg("", 1, 13, b""));
    assert_eq!(script.take(flow, 100), b"all at once");
    assert!(script.engine.uplink_ended(flow));
}

#[test]
fn a_syn_sent_again_while_the_socket_connects_changes_nothing() {
    let mut script = Script::new();
    script.send(syn());
    assert!(matches!(script.command(), Some(Command::Connect { .. })));
    script.send(syn());
    script.quiet();
    assert_eq!(script.engine.counters().connections, 1);
}

#[test]
fn another_syn_while_the_socket_connects_is_another_connection() {
    let mut script = Script::new();
    script.send(syn());
    let Some(Command::Connect { flow: old, .. }) = script.command() else { panic!() };
    script.ours += 5000;
    script.send(syn());
    assert_eq!(script.command(), Some(Command::Abort(old)));
    let Some(Command::Connect { flow, .. }) = script.command() else { panic!() };
    script.engine.handle_connected(old, script.now);
    script.quiet();
    script.engine.handle_connected(flow, script.now);
    script.expect(seg("S", 0, 1, b""));
}

#[test]
fn a_reset_while_the_socket_connects_ends_the_attempt() {
    let mut script = Script::new();
    script.send(syn());
    let Some(Command::Connect { flow, .. }) = script.command() else { panic!() };
    script.send(seg("R", 77, None, b""));
    script.quiet();
    script.send(seg("R", 1, None, b""));
    assert_eq!(script.command(), Some(Command::Abort(flow)));
    assert_eq!(script.engine.flow_count(), 0);
    script.engine.handle_connected(flow, script.now);
    script.quiet();
}

#[test]
fn the_syn_ack_is_sent_again_and_then_given_up() {
    let mut script = Script::new();
    script.send(syn());
    let Some(Command::Connect { flow, .. }) = script.command() else { panic!() };
    script.engine.handle_connected(flow, script.now);
    script.expect(seg("S", 0, 1, b""));
    for attempt in 0..5 {
        script.wakes_after(Duration::from_secs(1 << attempt));
        script.expect(seg("S", 0, 1, b""));
        script.quiet();
    }
    script.wakes_after(Duration::from_secs(32));
    assert_eq!(script.command(), Some(Command::Abort(flow)));
    script.expect(seg("R", 1, 1, b""));
    assert_eq!((script.engine.flow_count(), script.engine.poll_timeout()), (0, None));
}

#[test]
fn a_syn_sent_again_asks_for_the_syn_ack_again() {
    let mut script = Script::new();
    script.send(syn());
    let Some(Command::Connect { flow, .. }) = script.command() else { panic!() };
    script.engine.handle_connected(flow, script.now);
    let first = script.expect(seg("S", 0, 1, b""));
    script.send(syn());
    assert_eq!(script.recv(), Some(first));
    script.quiet();
}

#[test]
fn an_acknowledgment_of_unsent_data_does_not_complete_the_handshake() {
    let mut script = Script::new();
    script.send(syn());
    let Some(Command::Connect { flow, .. }) = script.command() else { panic!() };
    script.engine.handle_connected(flow, script.now);
    script.expect(seg("S", 0, 1, b""));
    script.send(seg("", 1, 500, b""));
    assert_eq!(script.expect(seg("R", 1, 1, b"")).flags, "R");
    assert_eq!(script.command(), Some(Command::Abort(flow)));
}

#[test]
fn a_segment_before_the_syn_ack_does_not_complete_the_handshake() {
    let mut script = Script::new();
    script.send(syn());
    let Some(Command::Connect { flow, .. }) = script.command() else { panic!() };
    script.send(seg("", 1, 1, b"eager"));
    script.quiet();
    script.engine.handle_connected(flow, script.now);
    script.expect(seg("S", 0, 1, b""));
}

#[test]
fn a_refused_connection_is_reset() {
    for mut script in [Script::new(), Script::v6()] {
        script.send(syn());
        let Some(Command::Connect { flow, .. }) = script.command() else { panic!() };
        script.engine.handle_connect_failed(flow, ConnectError::Refused, script.now);
        let reset = script.recv().unwrap();
        assert_eq!((reset.flags, reset.ack), ("R", Some(1)));
        assert_eq!((script.command(), script.engine.flow_count()), (None, 0));
    }
}

#[test]
fn window_and_segment_size_follow_the_syns_options() {
    // (MSS offered, largest segment sent)
    for (mss, largest) in [(None, 536), (Some(10), 48), (Some(1460), 1460), (Some(65_535), 65_480)] {
        let (mut script, flow) = Script::new().connected(Seg { mss, ..seg("S", 0, None, b"").scale(2) });
        script.send(seg("", 1, 1, b""));
        script.serve(flow, &vec![0; 100_000]);
        assert_eq!(script.recv().unwrap().data.len(), largest);
    }
}

#[test]
fn ipv6_has_a_larger_minimum_mss() {
    let (mut script, flow) = Script::v6().connected(seg("S", 0, None, b""));
    script.serve(flow, &[0; 5000]);
    assert_eq!(script.recv().unwrap().data.len(), 1220);
}

#[test]
fn without_the_scale_option_windows_are_unscaled() {
    let mut script = Script::new();
    script.send(seg("S", 0, None, b"").mss(1000));
    let Some(Command::Connect { flow, .. }) = script.command() else { panic!() };
    script.engine.handle_connected(flow, script.now);
    let answer = script.expect(seg("S", 0, 1, b""));
    assert_eq!((answer.scale, answer.window), (None, 65_535));
    script.send(seg("", 1, 1, b"x").window(10));
    assert_eq!(script.expect(seg("", 1, 2, b"")).window, 65_535);
    script.serve(flow, &[0; 500]);
    assert_eq!(script.recv().unwrap().data.len(), 10, "the client's window is not scaled either");
}

#[test]
fn a_scale_above_14_counts_as_14() {
    let (mut script, flow) = Script::new().connected(seg("S", 0, None, b"").mss(1024).scale(200));
    script.send(seg("", 1, 1, b"").window(4));
    script.serve(flow, &vec![0; 4 << 14]);
    script.serve_more(flow, &[0; 5000]);
    let sent: usize = std::iter::from_fn(|| script.recv()).map(|segment| segment.data.len()).sum();
    assert_eq!(sent, 4 << 14);
}

#[test]
fn a_broken_option_ends_the_list_and_not_the_connection() {
    let mut script = Script::new();
    let mut packet = script.raw(&seg("S", 0, None, b"").mss(1000));
    // The MSS option's length runs out of the header.
    packet[20 + 21] = 40;
    let header = packet[20..].to_vec();
    packet[20 + 16..20 + 18].copy_from_slice(&[0, 0]);
    let slice = etherparse::TcpSlice::from_slice(&header).unwrap();
    let sum = slice.calc_checksum_ipv4([10, 1, 0, 2], [10, 20, 0, 10]).unwrap();
    packet[20 + 16..20 + 18].copy_from_slice(&sum.to_be_bytes());
    script.send_raw(&packet);
    assert!(matches!(script.command(), Some(Command::Connect { .. })));
}

#[test]
fn the_initial_sequence_number_depends_on_connection_and_secret() {
    let first = |secret| {
        let mut script = Script::with_secret(secret);
        let mut numbers = Vec::new();
        for n in 0..3 {
            script.client.set_port(30_000 + n);
            script.send(syn());
            let Some(Command::Connect { flow, .. }) = script.command() else { panic!() };
            script.engine.handle_connected(flow, script.now);
            script.recv().unwrap();
            numbers.push(script.theirs);
        }
        numbers
    };
    let mut all = [first(1), first(2)].concat();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 6);
}
