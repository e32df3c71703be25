//! Data in both directions, windows, and loss.

use std::time::Duration;

use gh_net_engine::Command;

use crate::harness::{Script, seg};

#[test]
fn bytes_up_reach_the_socket_and_are_acknowledged() {
    let (mut script, flow) = Script::established();
    script.send(seg("P", 1, 1, b"hello "));
    script.send(seg("P", 7, 1, b"world"));
    assert_eq!(script.command(), Some(Command::Service(flow)));
    script.expect(seg("", 1, 12, b""));
    assert_eq!(script.take(flow, 100), b"hello world");
    script.quiet();
}

#[test]
fn bytes_down_are_cut_by_the_mss_and_the_last_is_pushed() {
    let (mut script, flow) = Script::established();
    script.serve(flow, &[7; 2500]);
    script.expect(seg("", 1, 1, &[7; 1000]));
    script.expect(seg("", 1001, 1, &[7; 1000]));
    script.expect(seg("P", 2001, 1, &[7; 500]));
    script.quiet();
    script.send(seg("", 1, 2501, b""));
    script.quiet();
}

#[test]
fn small_pieces_are_sent_together() {
    let (mut script, flow) = Script::established();
    for _ in 0..30 {
        script.serve(flow, &[7; 50]);
    }
    script.expect(seg("", 1, 1, &[7; 1000]));
    script.expect(seg("P", 1001, 1, &[7; 500]));
    script.quiet();
}

#[test]
fn segments_out_of_order_wait_for_the_missing_one() {
    let (mut script, flow) = Script::established();
    script.send(seg("", 7, 1, b"third "));
    script.expect(seg("", 1, 1, b""));
    script.send(seg("F", 13, 1, b"last"));
    script.expect(seg("", 1, 1, b""));
    // It overlaps what is there already.
    script.send(seg("", 4, 1, b"nd third"));
    script.expect(seg("", 1, 1, b""));
    script.quiet();
    script.send(seg("", 1, 1, b"second"));
    script.expect(seg("", 1, 18, b""));
    assert_eq!(script.take(flow, 100), b"secondthird last");
    assert!(script.engine.uplink_ended(flow));
}

#[test]
fn repeated_bytes_are_acknowledged_again_and_not_delivered_twice() {
    let (mut script, flow) = Script::established();
    script.send(seg("", 1, 1, b"abc"));
    script.expect(seg("", 1, 4, b""));
    script.send(seg("", 1, 1, b"abc"));
    script.expect(seg("", 1, 4, b""));
    script.send(seg("", 1, 1, b"abcdef"));
    script.expect(seg("", 1, 7, b""));
    assert_eq!(script.take(flow, 100), b"abcdef");
}

#[test]
fn bytes_after_the_fin_are_not_part_of_the_stream() {
    let (mut script, flow) = Script::established();
    script.send(seg("", 3, 1, b"cdefghij"));
    script.expect(seg("", 1, 1, b""));
    script.send(seg("F", 4, 1, b"d"));
    script.expect(seg("", 1, 1, b""));
    script.send(seg("", 1, 1, b"ab"));
    script.expect(seg("", 1, 6, b""));
    assert_eq!(script.take(flow, 100), b"abcd");
    assert!(script.engine.uplink_ended(flow));
}

/// The client fills the window while the socket takes nothing. Returns how much that was.
fn fill(script: &mut Script) -> i64 {
    let mut next = 1;
    loop {
        let answer = {
            script.send(seg("", next, 1, &[1; 60_000]));
            script.recv().unwrap()
        };
        next = answer.ack.unwrap();
        if answer.window == 0 {
            return next - 1;
        }
    }
}

#[test]
fn a_server_that_does_not_read_closes_the_window() {
    let (mut script, flow) = Script::established();
    let filled = fill(&mut script);
    assert!((4 << 20..(4 << 20) + 32 * 1024).contains(&filled), "{filled} bytes");
    script.command();
    // A probe with a byte is answered, and its byte is dropped.
    script.send(seg("", filled + 1, 1, b"x"));
    assert_eq!(script.expect(seg("", 1, filled + 1, b"")).window, 0);
    // So is one without.
    script.send(seg("", filled, 1, b""));
    assert_eq!(script.expect(seg("", 1, filled + 1, b"")).window, 0);
    // Less than a segment is not announced (silly window syndrome).
    assert_eq!(script.take(flow, 100).len(), 100);
    script.quiet();
    assert_eq!(script.take(flow, 30_000).len(), 30_000);
    let opened = script.expect(seg("", 1, filled + 1, b""));
    assert!(opened.window > 0);
    // A reset is accepted although the window was closed.
    script.send(seg("R", filled + 1, None, b""));
    assert_eq!(script.command(), Some(Command::Abort(flow)));
}

#[test]
fn bytes_beyond_the_window_are_cut_off() {
    let (mut script, flow) = Script::new().connected(seg("S", 0, None, b"").mss(1000));
    script.send(seg("", 65_536, 1, b"outside"));
    script.expect(seg("", 1, 1, b""));
    script.send(seg("", 60_001, 1, &[2; 10_000]));
    script.expect(seg("", 1, 1, b""));
    script.send(seg("", 1, 1, &[2; 60_000]));
    script.expect(seg("", 1, 65_536, b""));
    assert_eq!(script.take(flow, 100_000).len(), 65_535);
}

#[test]
fn the_right_edge_stays_within_one_unit_for_odd_segment_sizes() {
    let (mut script, _) = Script::established();
    let (mut next, mut right) = (1, 0);
    for n in 0..3000 {
        script.send(seg("", next, 1, &vec![0; 1 + n % 1400]));
        let answer = script.recv().unwrap();
        next = answer.ack.unwrap();
        let edge = next + (i64::from(answer.window) << 7);
        assert!(edge > right - 128, "from {right} to {edge}");
        right = right.max(edge);
    }
}

#[test]
fn a_closed_window_is_probed() {
    let (mut script, flow) = Script::established();
    script.send(seg("", 1, 1, b"").window(0));
    script.serve(flow, b"waiting");
    script.quiet();
    for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
        script.wakes_after(Duration::from_secs(seconds));
        script.expect(seg("", 0, 1, b""));
        script.quiet();
        script.send(seg("", 1, 1, b"").window(0));
        script.quiet();
    }
    script.send(seg("", 1, 1, b"").window(4));
    script.expect(seg("", 1, 1, b"wait"));
    script.send(seg("", 1, 5, b"").window(100));
    script.expect(seg("P", 5, 1, b"ing"));
}

#[test]
fn a_window_closed_before_there_was_data_is_probed() {
    let (mut script, flow) = Script::established();
    script.serve(flow, &[1; 1000]);
    script.recv().unwrap();
    script.send(seg("", 1, 1001, b"").window(0));
    assert!(script.engine.downlink_room(flow) > 0, "one segment must be read to probe the window with");
    script.serve(flow, b"more");
    script.wakes_after(Duration::from_secs(1));
    script.expect(seg("", 1000, 1, b""));
    script.send(seg("", 1, 1001, b"").window(1000));
    script.expect(seg("P", 1001, 1, b"more"));
}

#[test]
fn a_peer_that_answers_no_probe_is_given_up() {
    let (mut script, flow) = Script::established();
    script.send(seg("", 1, 1, b"").window(0));
    script.serve(flow, b"waiting");
    script.pass(Duration::from_secs(900));
    let probes: Vec<_> = std::iter::from_fn(|| script.recv()).collect();
    assert_eq!(probes.last().unwrap().flags, "R");
    assert_eq!(script.command(), Some(Command::Abort(flow)));
    assert_eq!(script.engine.flow_count(), 0);
}

#[test]
fn small_openings_of_the_window_are_not_filled_with_small_segments() {
    let (mut script, flow) = Script::established();
    script.send(seg("", 1, 1, b"").window(1500));
    script.serve(flow, &[1; 1500]);
    script.expect(seg("", 1, 1, &[1; 1000]));
    // 500 more would fit, but are neither a segment nor the last, nor half of the largest window.
    script.serve_more(flow, &[1; 400]);
    script.quiet();
    script.send(seg("", 1, 1001, b"").window(1500));
    script.expect(seg("P", 1001, 1, &[1; 900]));
}

#[test]
fn a_fin_needs_no_window() {
    let (mut script, flow) = Script::established();
    script.send(seg("", 1, 1, b"").window(0));
    script.engine.handle_end(flow, script.now);
    script.expect(seg("FP", 1, 1, b""));
}

#[test]
fn an_acknowledgment_of_unsent_data_is_answered() {
    let (mut script, _) = Script::established();
    script.send(seg("", 1, 500, b"ignored"));
    script.expect(seg("", 1, 1, b""));
    script.quiet();
}

#[test]
fn an_old_acknowledgment_changes_nothing() {
    let (mut script, flow) = Script::established();
    script.serve(flow, &[1; 1000]);
    script.recv().unwrap();
    script.send(seg("", 1, 1001, b"").window(2000));
    script.send(seg("", 1, 1, b"").window(0));
    script.serve(flow, b"on");
    script.expect(seg("P", 1001, 1, b"on"));
}

#[test]
fn three_duplicate_acknowledgments_rewind_once() {
    let (mut script, flow) = Script::established();
    script.serve(flow, &[1; 5000]);
    assert_eq!(std::iter::from_fn(|| script.recv()).count(), 5);
    for _ in 0..2 {
        script.send(seg("", 1, 1, b""));
        script.quiet();
    }
    script.send(seg("", 1, 1, b""));
    for n in 0..5 {
        assert_eq!(script.recv().unwrap().seq, 1 + 1000 * n);
    }
    // The repeated segments cause more duplicates.
    for _ in 0..10 {
        script.send(seg("", 1, 1001, b""));
    }
    script.quiet();
    script.send(seg("", 1, 5001, b""));
    script.quiet();
}

#[test]
fn an_acknowledgment_beyond_the_retransmitted_data_is_accepted() {
    let (mut script, flow) = Script::established();
    script.serve(flow, &[1; 3000]);
    assert_eq!(std::iter::from_fn(|| script.recv()).count(), 3);
    script.wakes_after(Duration::from_secs(1));
    assert_eq!(script.recv().unwrap().seq, 1);
    script.send(seg("", 1, 2501, b""));
    script.expect(seg("P", 2501, 1, &[1; 500]));
    script.quiet();
}

#[test]
fn sequence_numbers_wrap() {
    // A secret that starts our side just before the wrap.
    let near = (0..).find(|secret| {
        let mut script = Script::with_secret(*secret);
        script.send(seg("S", 0, None, b"").mss(1000).scale(0));
        let Some(Command::Connect { flow, .. }) = script.command() else { panic!() };
        script.engine.handle_connected(flow, script.now);
        script.recv().unwrap();
        script.theirs > u32::MAX - 40_000
    });
    let mut script = Script::with_secret(near.unwrap());
    script.ours = u32::MAX - 20_000;
    let (mut script, flow) = script.connected(seg("S", 0, None, b"").mss(1000).scale(0));
    for n in 0..100 {
        script.send(seg("", 1 + 1000 * n, 1 + 1000 * n, &[n as u8; 1000]));
        script.expect(seg("", 1 + 1000 * n, 1001 + 1000 * n, b""));
        assert_eq!(script.take(flow, 2000), [n as u8; 1000]);
        script.serve(flow, &[n as u8; 1000]);
        script.expect(seg("P", 1 + 1000 * n, 1001 + 1000 * n, &[n as u8; 1000]));
        script.command();
    }
    assert!(
        script.theirs.wrapping_add(100_000) < script.theirs
            && script.ours.wrapping_add(100_000) < script.ours
    );
}
