//! A session without a link: nothing times out, memory stays bounded, and on the next link every flow goes on.

use std::time::Duration;

use bytes::Bytes;
use gh_net_engine::{Command, FlowId};
use gh_net_testkit::{ip, socket};

use crate::harness::{Script, echo, seg, udp};

const CLIENT: &str = "10.1.0.2:5000";
const SERVER: &str = "10.20.0.1:7";
const DAY: Duration = Duration::from_secs(24 * 3600);

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn opened(script: &mut Script, packet: &[u8]) -> FlowId {
    script.send_raw(packet);
    let Some(Command::OpenUdp { flow, .. } | Command::OpenEcho { flow, .. }) = script.command() else {
        panic!("no socket is opened")
    };
    script.command().expect("the datagram");
    flow
}

/// A time without a link.
fn pause(script: &mut Script, time: Duration) {
    script.engine.handle_link_down(script.now);
    assert_eq!(script.engine.poll_timeout(), None, "nothing is due without a link");
    script.pass(time);
    script.quiet_except_service();
    script.engine.handle_link_up(script.now);
}

#[test]
fn mappings_and_echo_sessions_do_not_age_without_a_link() {
    let packets = [
        (udp(CLIENT, SERVER, b"x"), 120),
        (udp(CLIENT, "10.20.0.1:53", b"?"), 10),
        (echo("10.1.0.2", "10.20.0.1", 7, 1, b""), 60),
    ];
    for (packet, lifetime) in packets {
        let mut script = Script::new();
        let flow = opened(&mut script, &packet);
        for _ in 0..4 {
            script.pass(seconds(lifetime) / 5);
            pause(&mut script, DAY);
        }
        script.pass(seconds(lifetime) / 5 - Duration::from_millis(1));
        script.quiet();
        script.pass(Duration::from_millis(1));
        assert_eq!(script.command(), Some(Command::Close(flow)));
        assert_eq!((script.engine.flow_count(), script.engine.poll_timeout()), (0, None));
    }
}

#[test]
fn a_datagram_during_the_cut_extends_a_mapping_no_longer_than_one_after_it() {
    let mut script = Script::new();
    let flow = opened(&mut script, &udp(CLIENT, SERVER, b"x"));
    script.engine.handle_link_down(script.now);
    script.pass(DAY);
    script.engine.handle_datagram(flow, socket(SERVER), Bytes::from_static(b"y"), script.now);
    script.pass(DAY);
    script.engine.handle_link_up(script.now);
    script.pass(seconds(300));
    assert_eq!(script.command(), Some(Command::Close(flow)));
}

#[test]
fn datagrams_for_the_codespace_do_not_wait_for_the_next_link() {
    let mut script = Script::new();
    let mapping = opened(&mut script, &udp(CLIENT, SERVER, b"x"));
    let session = opened(&mut script, &echo("10.1.0.2", "10.20.0.1", 7, 1, b""));
    let arrive = |script: &mut Script| {
        script.engine.handle_datagram(mapping, socket(SERVER), Bytes::from_static(b"y"), script.now);
        script.engine.handle_echo_reply(session, ip("10.20.0.1"), 1, Bytes::new(), script.now);
    };
    // Two wait in a queue when the link is lost, and two come without one.
    arrive(&mut script);
    script.engine.handle_link_down(script.now);
    arrive(&mut script);
    script.engine.handle_link_up(script.now);
    script.quiet();
    assert_eq!(script.engine.counters().dropped, 4);
    arrive(&mut script);
    assert_eq!(std::iter::from_fn(|| script.sent()).count(), 2);
}

#[test]
fn an_idle_connection_does_not_age_without_a_link() {
    let (mut script, _) = Script::established();
    script.pass(seconds(2 * 3600));
    pause(&mut script, DAY);
    script.expect(seg("", 1, 1, b""));
    script.expect(seg("", 0, 1, b""));
    script.send(seg("", 1, 1, b""));
    script.quiet();
    script.wakes_after(seconds(4 * 60));
    script.expect(seg("", 0, 1, b""));
}

#[test]
fn a_cut_does_not_count_towards_unanswered_keepalive_probes() {
    let (mut script, _) = Script::established();
    script.pass(seconds(2 * 3600 + 4 * 60));
    script.expect(seg("", 0, 1, b""));
    script.pass(seconds(70));
    pause(&mut script, DAY);
    while script.recv().is_some() {}
    script.wakes_after(seconds(5));
    script.expect(seg("", 0, 1, b""));
}

#[test]
fn time_wait_counts_only_time_with_a_link() {
    let mut script = Script::in_time_wait();
    script.pass(seconds(50));
    pause(&mut script, DAY);
    script.quiet();
    script.pass(seconds(9));
    assert_eq!(script.engine.flow_count(), 1);
    script.pass(seconds(1));
    assert_eq!((script.engine.flow_count(), script.engine.poll_timeout()), (0, None));
}

#[test]
fn retransmissions_do_not_time_out_without_a_link_and_restart_on_the_next() {
    let (mut script, flow) = Script::established();
    script.serve(flow, b"anybody?");
    script.expect(seg("P", 1, 1, b"anybody?"));
    for attempt in 0..14 {
        script.wakes_after(seconds((1 << attempt).min(60)));
        script.expect(seg("P", 1, 1, b"anybody?"));
    }
    pause(&mut script, DAY);
    script.expect(seg("", 9, 1, b""));
    script.expect(seg("P", 1, 1, b"anybody?"));
    script.wakes_after(seconds(1));
    script.expect(seg("P", 1, 1, b"anybody?"));
}

#[test]
fn a_window_that_opened_during_the_cut_is_probed_at_once() {
    let (mut script, flow) = Script::established();
    script.send(seg("", 1, 1, b"").window(0));
    script.serve(flow, b"waiting");
    script.quiet();
    script.pass(seconds(200));
    while script.recv().is_some() {}
    pause(&mut script, seconds(600));
    script.expect(seg("", 1, 1, b""));
    script.expect(seg("", 0, 1, b""));
    script.send(seg("", 1, 1, b""));
    script.expect(seg("P", 1, 1, b"waiting"));
}

#[test]
fn our_own_window_is_announced_again() {
    // The window closed before the cut, and the server read during it.
    let (mut script, flow) = Script::established();
    let mut position = 1;
    loop {
        script.send(seg("", position, 1, &[7; 1000]));
        position += 1000;
        let answer = script.recv().expect("an acknowledgment");
        // In units of 128 bytes.
        if answer.window < 8 {
            break;
        }
    }
    script.engine.handle_link_down(script.now);
    let taken = script.take(flow, usize::MAX);
    assert!(taken.len() > 4_000_000, "{} bytes", taken.len());
    script.pass(seconds(600));
    script.quiet_except_service();
    script.engine.handle_link_up(script.now);
    assert!(script.recv().expect("an acknowledgment").window > 30_000);
}

#[test]
fn sockets_are_not_read_while_the_send_buffer_is_full() {
    let (mut script, flow) = Script::established();
    script.engine.handle_link_down(script.now);
    let mut read = 0;
    loop {
        let room = script.engine.downlink_room(flow);
        if room == 0 {
            break;
        }
        script.serve(flow, &vec![1; room]);
        read += room;
        assert!(read <= 256 * 1024, "{read} bytes are kept for a codespace that can't be reached");
    }
    // The peer's window, which no acknowledgment can move.
    assert_eq!(read, 60_000);
    script.engine.handle_link_up(script.now);
    let sent: usize = std::iter::from_fn(|| script.recv()).map(|segment| segment.data.len()).sum();
    assert_eq!(sent, read);
}

#[test]
fn a_connection_that_is_refused_during_the_cut_is_refused_on_the_next_link() {
    let mut script = Script::new();
    script.send(seg("S", 0, None, b""));
    let Some(Command::Connect { flow, .. }) = script.command() else { panic!() };
    script.engine.handle_link_down(script.now);
    script.engine.handle_connect_failed(flow, gh_net_engine::ConnectError::Refused, script.now);
    script.pass(seconds(20));
    script.quiet();
    script.engine.handle_link_up(script.now);
    let reset = script.recv().expect("a reset");
    assert_eq!((reset.flags, reset.ack), ("R", Some(1)));
    assert_eq!((script.engine.flow_count(), script.engine.poll_timeout()), (0, None));
}

#[test]
fn a_gap_left_by_the_old_link_is_reported_once_by_three_duplicate_acknowledgments() {
    for shows in [seg("", 1001, 1, b""), seg("", 1001, 1, b"later")] {
        let (mut script, _) = Script::established();
        script.engine.handle_link_down(script.now);
        script.engine.handle_link_up(script.now);
        script.expect(seg("", 1, 1, b""));
        script.expect(seg("", 0, 1, b""));
        // The answer to the probe, or new data: a thousand bytes before it are missing.
        script.send(shows.clone());
        let acks: Vec<_> = std::iter::from_fn(|| script.recv()).collect();
        assert_eq!(acks.len(), 4, "{acks:?}");
        assert!(acks.iter().all(|ack| *ack == acks[0] && ack.ack == Some(1) && ack.seq == 1), "{acks:?}");
        script.send(shows);
        assert!(std::iter::from_fn(|| script.recv()).count() <= 1);
    }
}
