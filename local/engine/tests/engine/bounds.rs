//! Bounds on what a hostile peer can make the engine hold.

use std::time::Duration;

use bytes::Bytes;
use gh_net_engine::{Command, Event, FlowId};
use gh_net_testkit::socket;

use crate::harness::{Script, echo, seg, udp};

#[test]
fn finished_connections_that_are_remembered_are_bounded() {
    let mut script = Script::new();
    for n in 0..6000 {
        script.client = socket(&format!("10.1.0.2:{}", 10_000 + n));
        script.theirs = 0;
        script.send(seg("S", 0, None, b""));
        let Some(Command::Connect { flow, .. }) = script.command() else { panic!("connection {n}") };
        script.engine.handle_connected(flow, script.now);
        script.recv().unwrap();
        script.send(seg("", 1, 1, b""));
        script.engine.handle_end(flow, script.now);
        script.recv().unwrap();
        script.send(seg("F", 1, 2, b""));
        script.recv().unwrap();
        while script.command().is_some() {}
    }
    assert_eq!(script.engine.flow_count(), 4096);
    script.pass(Duration::from_secs(60));
    assert_eq!((script.engine.flow_count(), script.engine.poll_timeout()), (0, None));
}

#[test]
fn hosts_that_may_answer_one_endpoint_are_bounded() {
    let mut script = Script::new();
    let address = |n: u32| format!("10.20.{}.{}:7", n / 250, 1 + n % 250);
    for n in 0..1100 {
        script.send_raw(&udp("10.1.0.2:5000", &address(n), b""));
    }
    let Some(Command::OpenUdp { flow, .. }) = script.command() else { panic!() };
    let passes = |script: &mut Script, n| {
        script.engine.handle_datagram(flow, socket(&address(n)), Bytes::from_static(b"x"), script.now);
        script.sent().is_some()
    };
    assert!(!passes(&mut script, 0));
    assert!(passes(&mut script, 1099));
}

#[test]
fn hosts_that_may_answer_all_endpoints_are_bounded() {
    let mut script = Script::new();
    script.engine.tell_flows(true);
    let mut known = std::collections::BTreeMap::<u64, i32>::new();
    for client in 0..100 {
        for n in 0..1024_u32 {
            let host = format!("10.20.{}.{}:7", n / 250, 1 + n % 250);
            script.send_raw(&udp(&format!("10.1.0.2:{}", 5000 + client), &host, b""));
            while script.command().is_some() {}
            while let Some(event) = script.engine.poll_event() {
                match event {
                    Event::Opened(flow) => *known.entry(flow.flow.0).or_default() += 1,
                    Event::Closed { flow, .. } => *known.entry(flow.flow.0).or_default() -= 1,
                    Event::Denied(denied) => panic!("{denied:?}"),
                }
            }
        }
    }
    // 4 MiB at 192 bytes, and 16 for each in any case.
    let total: i32 = known.values().sum();
    assert!((15_000..=21_845 + 100 * 16).contains(&total), "{total}");
    assert!(known.values().all(|count| *count >= 16), "{known:?}");
}

#[test]
fn the_engines_own_answers_are_bounded() {
    let mut script = Script::new();
    for _ in 0..10_000 {
        script.send_raw(&echo("10.1.0.2", "10.1.0.1", 1, 1, &[0; 1000]));
        script.send_raw(&udp("10.1.0.2:1", "192.0.2.1:1", &[0; 1000]));
    }
    let bytes: usize = std::iter::from_fn(|| script.sent()).map(|sent| 20 + sent.transport.len()).sum();
    assert!(bytes <= 1024 * 1024, "{bytes} bytes waited");
}

#[test]
fn large_answers_of_the_engine_wait_for_room_on_the_link() {
    let mut script = Script::new();
    script.send_raw(&echo("10.1.0.2", "10.1.0.1", 1, 1, &[0; 8000]));
    assert!(script.engine.poll_transmit(false, script.now).is_none(), "the window is full");
    script.send_raw(&echo("10.1.0.2", "10.1.0.1", 1, 2, &[0; 56]));
    assert!(script.engine.poll_transmit(false, script.now).is_some_and(|packet| packet.len() < 100));
    assert!(script.engine.poll_transmit(true, script.now).is_some_and(|packet| packet.len() > 8000));
    assert!(script.engine.poll_transmit(true, script.now).is_none());
}

/// What goes ahead of the window before the sidecar reports anything.
const AHEAD: usize = 64 * 1024;

/// The lengths of the packets that are sent while the sidecar reports nothing.
fn lengths(script: &mut Script) -> Vec<usize> {
    let packets = std::iter::from_fn(|| script.engine.poll_transmit(script.bulk, script.now));
    packets.map(|packet| packet.len()).collect()
}

#[test]
fn a_flood_of_pings_to_the_gateway_waits_for_the_window_and_leaves_the_others_their_turn() {
    let (mut script, flow) = Script::new().connected(seg("S", 0, None, b"").mss(1000).scale(7));
    for sequence in 0..700 {
        script.send_raw(&echo("10.1.0.2", "10.1.0.1", 1, sequence, &[0; 1000]));
    }
    for _ in 0..20 {
        script.serve(flow, &[1; 1000]);
    }
    script.bulk = false;
    let ahead: usize = lengths(&mut script).iter().sum();
    assert!((1..=AHEAD + 1280).contains(&ahead), "{ahead} bytes went ahead");
    script.bulk = true;
    let (echoes, segments) = (1028, 1040);
    let rest = lengths(&mut script);
    assert!(rest[..40].iter().filter(|length| **length == segments).count() == 20, "{:?}", &rest[..40]);
    assert_eq!(rest.iter().filter(|length| **length == echoes).count(), 700 - ahead / echoes);
}

#[test]
fn pings_that_arrive_go_ahead_again() {
    let mut script = Script::new();
    script.bulk = false;
    for sequence in 0..1000 {
        script.send_raw(&echo("10.1.0.2", "10.1.0.1", 1, sequence, &[0; 1000]));
        assert!(script.sent().is_some(), "{sequence}");
    }
}

#[test]
fn acknowledgments_in_bulk_wait_for_the_window_and_none_is_lost() {
    let mut script = Script::new();
    let flows = open_connections(&mut script, 4000);
    script.bulk = false;
    for (port, (_, theirs)) in (10_000..).zip(&flows) {
        script.client.set_port(port);
        script.theirs = *theirs;
        script.send(seg("", 1, 1, b"x"));
    }
    let ahead = lengths(&mut script);
    assert!((1..=AHEAD + 40).contains(&ahead.iter().sum()), "{} went ahead", ahead.len());
    script.bulk = true;
    assert_eq!(ahead.len() + lengths(&mut script).len(), 4000);
}

#[test]
fn a_flood_of_segments_with_gaps_is_bounded() {
    let (mut script, flow) = Script::established();
    // Every other byte, as many as the window allows.
    for n in 0..200_000 {
        script.send(seg("", 2 + 2 * n, 1, b"x"));
    }
    let answers = std::iter::from_fn(|| script.recv()).count();
    assert!(answers <= 1, "acknowledgments are coalesced, here {answers}");
    assert_eq!(script.take(flow, 10), b"");
    // Dropped bytes stay unacknowledged, so the peer sends them again.
    let filler: Vec<u8> = vec![b'y'; 3000];
    script.send(seg("", 1, 1, &filler));
    let next = script.recv().unwrap().ack.unwrap();
    assert!(next >= 3001);
    assert_eq!(script.take(flow, 10_000).len() as i64, next - 1);
}

/// Connections that are open, with the largest segments and windows.
fn open_connections(script: &mut Script, count: u16) -> Vec<(FlowId, u32)> {
    let mut flows = Vec::new();
    for n in 0..count {
        script.client.set_port(10_000 + n);
        script.theirs = 0;
        script.send(seg("S", 0, None, b"").mss(65_000).scale(14));
        let Some(Command::Connect { flow, .. }) = script.command() else { panic!() };
        script.engine.handle_connected(flow, script.now);
        script.recv().unwrap();
        script.send(seg("", 1, 1, b""));
        while script.command().is_some() {}
        flows.push((flow, script.theirs));
    }
    flows
}

/// What a quarter of the budget, which one direction has, may hold, with the floor of each connection.
const DIRECTION: usize = (64 << 20) + 8192 * 3 * 1024;

#[test]
fn memory_for_a_codespace_that_acknowledges_nothing_is_bounded() {
    let zeros = Bytes::from(vec![0; 64 * 1024]);
    for count in [4, 1000, 8192] {
        let mut script = Script::new();
        let flows = open_connections(&mut script, count);
        let mut held = 0;
        for _ in 0..300 {
            let before = held;
            for (flow, _) in &flows {
                let room = script.engine.downlink_room(*flow).min(zeros.len());
                script.engine.handle_data(*flow, zeros.slice(..room), script.now);
                held += room;
            }
            while script.sent().is_some() {}
            if held == before {
                break;
            }
        }
        assert!(held <= DIRECTION, "{held} bytes of {count} connections");
        assert!(held >= 16 << 20, "{held} bytes of {count} connections");
        let waits = script.engine.counters().bounds.downlink_waits;
        assert_eq!(waits > 0, count == 8192, "{waits} waits of {count} connections");
    }
}

#[test]
fn what_hosts_that_take_nothing_are_sent_is_bounded() {
    let mut script = Script::new();
    let flows = open_connections(&mut script, 8192);
    let (mut held, payload) = (0, vec![0; 60_000]);
    for (n, (_, theirs)) in (10_000..).zip(&flows) {
        script.client.set_port(n);
        script.theirs = *theirs;
        let mut next = 1;
        loop {
            script.send(seg("", next, 1, &payload));
            let acknowledged = script.recv().and_then(|answer| answer.ack).unwrap();
            if acknowledged == next {
                break;
            }
            next = acknowledged;
        }
        held += next as usize - 1;
        while script.command().is_some() {}
    }
    assert!((16 << 20..DIRECTION).contains(&held), "{held} bytes");
    assert_eq!(script.engine.counters().bounds.uplink_waits, 1);
}

#[test]
fn large_segments_that_wait_pin_few_buffers_of_the_link() {
    let (mut script, flow) = Script::new().connected(seg("S", 0, None, b"").mss(65_000).scale(7));
    let mut packets = Vec::new();
    for n in 0..100 {
        let packet = Bytes::from(script.raw(&seg("", 1 + n * 20_000, 1, &[n as u8; 20_000])));
        script.engine.handle_packet(packet.clone(), script.now);
        packets.push(packet);
        while script.recv().is_some() {}
    }
    let pinned = packets.iter().filter(|packet| !packet.is_unique()).count();
    assert_eq!(pinned, 64);
    let taken = script.take(flow, usize::MAX);
    assert!(taken.chunks(20_000).enumerate().all(|(n, chunk)| chunk.iter().all(|byte| *byte == n as u8)));
    assert_eq!(taken.len(), 2_000_000);
    assert!(packets.iter().all(Bytes::is_unique));
}

#[test]
fn datagrams_for_a_link_without_room_are_bounded() {
    let mut script = Script::new();
    script.bulk = false;
    let (payload, mut flows) = (Bytes::from(vec![0; 1000]), Vec::new());
    for n in 0..4096 {
        script.send_raw(&udp(&format!("10.1.0.2:{}", 10_000 + n), "10.20.0.1:7", b"x"));
        while let Some(command) = script.command() {
            if let Command::OpenUdp { flow, .. } = command {
                flows.push(flow);
            }
        }
    }
    for flow in &flows {
        for _ in 0..30 {
            script.engine.handle_datagram(*flow, socket("10.20.0.1:7"), payload.clone(), script.now);
        }
    }
    script.bulk = true;
    let mut queues = std::collections::HashMap::new();
    while let Some(sent) = script.sent() {
        *queues.entry(sent.udp().1).or_insert(0) += 1;
    }
    assert_eq!(queues.len(), 4096, "each gets at least one through");
    let packets: usize = queues.values().sum();
    assert!((8 << 20..(16 << 20) + 4096 * 3 * 1024).contains(&(packets * 1000)), "{packets} packets");
}

#[test]
fn a_link_without_room_gets_no_payload() {
    let (mut script, flow) = Script::new().connected(seg("S", 0, None, b"").mss(60_000).scale(14));
    script.bulk = false;
    script.serve(flow, &[1; 1000]);
    script.send_raw(&udp("10.1.0.2:9", "10.20.0.1:7", b""));
    let Some(Command::OpenUdp { flow: mapping, .. }) = script.command() else { panic!() };
    script.engine.handle_datagram(mapping, socket("10.20.0.1:7"), Bytes::from_static(b"x"), script.now);
    assert!(script.sent().is_none());
    // Small packets do not wait for room: answers of the engine itself, and acknowledgments.
    script.send_raw(&echo("10.1.0.2", "10.1.0.1", 1, 1, b""));
    assert!(script.sent().is_some());
    script.send(seg("", 1, 1, b"upload"));
    script.expect(seg("", 1, 7, b""));
    assert!(script.sent().is_none());
    script.bulk = true;
    script.expect(seg("P", 1, 7, &[1; 1000]));
    assert_eq!(script.sent().expect("the datagram").udp().2, b"x");
}

#[test]
fn what_waits_pins_no_buffer_of_the_link() {
    let mut script = Script::new();
    let question = udp("10.1.0.2:9", "10.1.0.1:53", &[0; 64]);
    for packet in [question, echo("10.1.0.2", "10.1.0.1", 1, 1, &[0; 1000])] {
        let packet = Bytes::from(packet);
        script.engine.handle_packet(packet.clone(), script.now);
        let _waits = script.command();
        assert!(packet.is_unique());
    }
    // Two headers, the echo and nothing for the question.
    assert_eq!(script.sent().expect("the echo").transport.len(), 1008);
}

#[test]
fn a_question_that_is_too_long_is_dropped() {
    let mut script = Script::new();
    script.send_raw(&udp("10.1.0.2:9", "10.1.0.1:53", &[0; 4097]));
    script.quiet();
    assert_eq!(script.engine.counters().dropped, 1);
}
