//! The order in which flows send.

use bytes::Bytes;
use gh_net_engine::{Command, FlowId};
use gh_net_testkit::socket;

use crate::harness::{Script, Seg, seg, udp};

fn open(script: &mut Script, port: u16) -> FlowId {
    script.client.set_port(port);
    script.theirs = 0;
    script.send(seg("S", 0, None, b"").mss(1000).scale(14));
    let Some(Command::Connect { flow, .. }) = script.command() else { panic!() };
    script.engine.handle_connected(flow, script.now);
    script.recv().unwrap();
    script.send(seg("", 1, 1, b""));
    while script.command().is_some() {}
    flow
}

/// The ports of the packets that are sent next, with their sizes.
fn order(script: &mut Script, most: usize) -> Vec<(u16, usize)> {
    let sent = std::iter::from_fn(|| script.sent());
    let port = |transport: &[u8]| u16::from_be_bytes([transport[2], transport[3]]);
    sent.take(most).map(|sent| (port(&sent.transport), sent.transport.len())).collect()
}

fn fill(script: &mut Script, flow: FlowId) {
    while script.engine.downlink_room(flow) > 0 {
        script.serve(flow, &[0; 1000]);
    }
}

#[test]
fn a_keystroke_does_not_wait_behind_a_download() {
    let mut script = Script::new();
    let (bulk, keys) = (open(&mut script, 1111), open(&mut script, 2222));
    fill(&mut script, bulk);
    // The download has had its turn as a newcomer.
    assert!(order(&mut script, 70).iter().all(|(port, _)| *port == 1111));
    for stroke in 0..20 {
        fill(&mut script, bulk);
        script.serve(keys, b"k");
        let sent = order(&mut script, 70);
        let waited: usize = sent.iter().take_while(|(port, _)| *port == 1111).map(|(_, len)| len).sum();
        assert!(waited <= 66_000, "stroke {stroke} waited behind {waited} bytes");
        // The client acknowledges the download, so that it goes on.
        script.client.set_port(1111);
        script.send(Seg { ack: None, ..seg("", 1, None, b"") });
    }
}

#[test]
fn downloads_share_the_link_evenly() {
    let mut script = Script::new();
    let flows = [open(&mut script, 1), open(&mut script, 2), open(&mut script, 3)];
    for flow in flows {
        fill(&mut script, flow);
    }
    let sent = order(&mut script, 600);
    for port in 1..=3 {
        let bytes: usize = sent.iter().filter(|(to, _)| *to == port).map(|(_, len)| len).sum();
        assert!((150_000..260_000).contains(&bytes), "{bytes} bytes to {port}");
    }
}

#[test]
fn a_flood_of_datagrams_does_not_shut_out_a_connection() {
    let mut script = Script::new();
    let flow = open(&mut script, 1);
    script.send_raw(&udp("10.1.0.2:9", "10.20.0.1:7", b""));
    let Some(Command::OpenUdp { flow: mapping, .. }) = script.command() else { panic!() };
    for _ in 0..800 {
        script.engine.handle_datagram(mapping, socket("10.20.0.1:7"), Bytes::from(vec![0; 1200]), script.now);
    }
    fill(&mut script, flow);
    let sent = order(&mut script, 200);
    let to = |port| sent.iter().filter(|(to, _)| *to == port).map(|(_, len)| len).sum::<usize>();
    assert!(to(1) >= 60_000 && to(9) >= 60_000, "{} and {}", to(1), to(9));
}

#[test]
fn acknowledgments_overtake_data() {
    let mut script = Script::new();
    let bulk = open(&mut script, 1);
    let _upload = open(&mut script, 2);
    fill(&mut script, bulk);
    script.send(seg("", 1, 1, b"upload"));
    assert_eq!(order(&mut script, 1), [(2, 20)]);
}

#[test]
fn a_flow_that_ends_while_it_waits_leaves_the_others_alone() {
    let mut script = Script::new();
    let (first, second) = (open(&mut script, 1), open(&mut script, 2));
    fill(&mut script, first);
    fill(&mut script, second);
    script.client.set_port(1);
    script.send(seg("R", 1, None, b""));
    let sent = order(&mut script, 1000);
    assert!(sent.iter().all(|(port, _)| *port == 2));
    assert!(sent.iter().filter(|(port, _)| *port == 2).count() > 200);
}
