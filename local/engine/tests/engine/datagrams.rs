//! UDP mappings, echo sessions and DNS.

use std::time::Duration;

use bytes::Bytes;
use gh_net_engine::{Command, FlowId, Unreachable, UnreachableKind};
use gh_net_testkit::{ip, socket};

use crate::harness::{Script, echo, udp};

/// A client's datagram is forwarded; returns the mapping, and whether it is new.
fn forwarded(script: &mut Script, from: &str, to: &str, payload: &[u8]) -> (FlowId, bool) {
    script.send_raw(&udp(from, to, payload));
    let mut command = script.command();
    let mut new = false;
    if let Some(Command::OpenUdp { v6, interface: None, .. }) = command {
        assert_eq!(v6, socket(from).is_ipv6());
        new = true;
        command = script.command();
    }
    let Some(Command::SendUdp { flow, destination, hop_limit: 64, payload: sent }) = command else {
        panic!("{command:?}")
    };
    assert_eq!((destination, &sent[..]), (socket(to), payload));
    (flow, new)
}

/// A host's datagram arrives and is passed on, or not.
fn answered(script: &mut Script, flow: FlowId, from: &str, to: &str, passes: bool) {
    script.engine.handle_datagram(flow, socket(from), Bytes::from_static(b"answer"), script.now);
    let Some(sent) = script.sent() else { return assert!(!passes, "dropped") };
    assert!(passes, "not dropped");
    assert_eq!(sent.udp(), (socket(from), socket(to), &b"answer"[..]));
}

const CLIENT: &str = "10.1.0.2:5000";

#[test]
fn one_endpoint_has_one_mapping_for_all_it_sends_to() {
    let mut script = Script::new();
    let (flow, new) = forwarded(&mut script, CLIENT, "10.20.0.1:7", b"one");
    assert!(new);
    assert_eq!(forwarded(&mut script, CLIENT, "10.20.0.2:9", b"two"), (flow, false));
    assert_ne!(forwarded(&mut script, "10.1.0.2:5001", "10.20.0.1:7", b"three"), (flow, true));
    assert!(forwarded(&mut script, "[fd01::2]:5000", "[fd20::1]:7", b"four").1);
    // RFC 4787, address-dependent filtering: any port of a host that was asked, no other host.
    answered(&mut script, flow, "10.20.0.1:7", CLIENT, true);
    answered(&mut script, flow, "10.20.0.2:1234", CLIENT, true);
    answered(&mut script, flow, "10.20.0.3:7", CLIENT, false);
    script.quiet();
}

#[test]
fn datagrams_of_any_size_pass() {
    let mut script = Script::new();
    for len in [0, 1, 1472, 9000, 65_507] {
        let payload = vec![3; len];
        let (flow, _) = forwarded(&mut script, CLIENT, "10.20.0.1:7", &payload);
        script.engine.handle_datagram(flow, socket("10.20.0.1:7"), payload.clone().into(), script.now);
        assert_eq!(script.sent().unwrap().udp().2, payload);
    }
    let (flow, _) = forwarded(&mut script, CLIENT, "10.20.0.1:7", b"");
    script.engine.handle_datagram(flow, socket("10.20.0.1:7"), vec![0; 65_508].into(), script.now);
    script.quiet();
    assert_eq!(script.engine.counters().dropped, 1);
}

#[test]
fn a_checksum_that_would_be_zero_is_written_as_ones() {
    let mut script = Script::new();
    let (flow, _) = forwarded(&mut script, CLIENT, "10.20.0.1:7", b"");
    let checksums = (0..=u16::MAX).map(|n| {
        script.engine.handle_datagram(
            flow,
            socket("10.20.0.1:7"),
            n.to_be_bytes().to_vec().into(),
            script.now,
        );
        // `udp` compares with etherparse's checksum.
        let sent = script.sent().unwrap();
        sent.udp();
        [sent.transport[6], sent.transport[7]]
    });
    let checksums: Vec<_> = checksums.collect();
    assert!(checksums.contains(&[0xff, 0xff]) && !checksums.contains(&[0, 0]));
}

#[test]
fn a_mapping_lives_two_minutes_after_the_last_datagram() {
    let mut script = Script::new();
    let (flow, _) = forwarded(&mut script, CLIENT, "10.20.0.1:7", b"");
    script.pass(Duration::from_secs(100));
    forwarded(&mut script, CLIENT, "10.20.0.1:7", b"");
    script.pass(Duration::from_secs(119));
    script.quiet();
    script.pass(Duration::from_secs(1));
    assert_eq!(script.command(), Some(Command::Close(flow)));
    assert_eq!((script.engine.flow_count(), script.engine.poll_timeout()), (0, None));
    answered(&mut script, flow, "10.20.0.1:7", CLIENT, false);
}

#[test]
fn a_mapping_used_both_ways_lives_five_minutes() {
    let mut script = Script::new();
    let (flow, _) = forwarded(&mut script, CLIENT, "10.20.0.1:7", b"");
    script.pass(Duration::from_secs(100));
    answered(&mut script, flow, "10.20.0.1:7", CLIENT, true);
    script.pass(Duration::from_secs(299));
    // Filtered datagrams do not extend the lifetime.
    answered(&mut script, flow, "10.20.0.9:7", CLIENT, false);
    script.quiet();
    script.pass(Duration::from_secs(1));
    assert_eq!(script.command(), Some(Command::Close(flow)));
}

#[test]
fn a_mapping_for_dns_lives_ten_seconds() {
    let mut script = Script::new();
    let (flow, _) = forwarded(&mut script, CLIENT, "10.20.0.53:53", b"");
    answered(&mut script, flow, "10.20.0.53:53", CLIENT, true);
    script.pass(Duration::from_secs(10));
    assert_eq!(script.command(), Some(Command::Close(flow)));
}

fn unreachable(destination: &str, kind: UnreachableKind) -> Unreachable {
    Unreachable { offender: None, destination: socket(destination), sequence: None, kind }
}

#[test]
fn errors_of_a_datagram_come_back_as_icmp() {
    let cases = [
        (UnreachableKind::Port, (3, 3), (1, 4)),
        (UnreachableKind::Host, (3, 1), (1, 3)),
        (UnreachableKind::Network, (3, 0), (1, 0)),
        (UnreachableKind::Prohibited, (3, 13), (1, 1)),
        (UnreachableKind::TimeExceeded, (11, 0), (3, 0)),
        (UnreachableKind::TooBig { mtu: 1400 }, (3, 4), (2, 0)),
    ];
    let ends = [(CLIENT, "10.20.0.1:7", "10.1.0.1"), ("[fd01::2]:5000", "[fd20::1]:7", "fd01::1")];
    for (kind, v4, v6) in cases {
        for ((from, to, gateway), code) in ends.into_iter().zip([v4, v6]) {
            let mut script = Script::new();
            let (flow, _) = forwarded(&mut script, from, to, b"");
            script.engine.handle_unreachable(flow, unreachable(to, kind));
            let sent = script.sent().unwrap();
            let offender = if kind == UnreachableKind::Port { socket(to).ip() } else { ip(gateway) };
            assert_eq!((sent.from, sent.to), (offender, socket(from).ip()));
            assert_eq!((sent.icmp().0, sent.icmp().1), code);
            if let UnreachableKind::TooBig { mtu } = kind {
                assert_eq!(sent.transport[4..8], mtu.to_be_bytes());
            }
            let (source, destination, _, transport) = sent.quotation();
            assert_eq!((source, destination), (socket(from).ip(), socket(to).ip()));
            let ports = [socket(from).port().to_be_bytes(), socket(to).port().to_be_bytes()].concat();
            assert_eq!(transport[..4], ports);
            script.quiet();
        }
    }
}

#[test]
fn an_error_names_the_router_that_sent_it() {
    let mut script = Script::new();
    let (flow, _) = forwarded(&mut script, CLIENT, "10.20.0.1:7", b"");
    let error = unreachable("10.20.0.1:7", UnreachableKind::TimeExceeded);
    script.engine.handle_unreachable(flow, Unreachable { offender: Some(ip("10.20.0.254")), ..error });
    assert_eq!(script.sent().unwrap().from, ip("10.20.0.254"));
}

#[test]
fn the_probes_of_a_traceroute_lose_one_hop() {
    let mut script = Script::new();
    for (hops, left) in [(2, 1), (32, 31), (33, 64), (64, 64), (255, 64)] {
        let mut packet = udp(CLIENT, "10.20.0.1:33434", b"");
        packet[8] = hops;
        packet[10..12].copy_from_slice(&[0, 0]);
        let sum = etherparse::checksum::Sum16BitWords::new().add_slice(&packet[..20]).ones_complement();
        packet[10..12].copy_from_slice(&sum.to_ne_bytes());
        script.send_raw(&packet);
        let sent = std::iter::from_fn(|| script.command()).find_map(|command| {
            let Command::SendUdp { hop_limit, .. } = command else { return None };
            Some(hop_limit)
        });
        assert_eq!(sent, Some(left));
    }
}

#[test]
fn a_slow_client_loses_datagrams_within_bounded_memory() {
    let mut script = Script::new();
    let (flow, _) = forwarded(&mut script, CLIENT, "10.20.0.1:7", b"");
    for _ in 0..100 {
        script.engine.handle_datagram(flow, socket("10.20.0.1:7"), vec![0; 60_000].into(), script.now);
    }
    let kept = std::iter::from_fn(|| script.sent()).count();
    assert!((10..20).contains(&kept), "{kept} datagrams kept");
    assert_eq!(script.engine.counters().dropped, 100 - kept as u64);
}

#[test]
fn pings_go_out_and_come_back() {
    let mut script = Script::new();
    for (from, to, reply) in [("10.1.0.2", "10.20.0.1", 0), ("fd01::2", "fd20::1", 129)] {
        script.send_raw(&echo(from, to, 4321, 7, b"ping"));
        let Some(Command::OpenEcho { flow, v6, .. }) = script.command() else { panic!() };
        assert_eq!(v6, ip(from).is_ipv6());
        let expected = Command::SendEcho {
            flow,
            destination: ip(to),
            sequence: 7,
            hop_limit: 64,
            payload: b"ping"[..].into(),
        };
        assert_eq!(script.command(), Some(expected));
        script.engine.handle_echo_reply(flow, ip(to), 7, b"ping"[..].into(), script.now);
        let sent = script.sent().unwrap();
        assert_eq!((sent.from, sent.to), (ip(to), ip(from)));
        assert_eq!(sent.icmp(), (reply, 0, &b"ping"[..]));
        assert_eq!(sent.transport[4..8], [4321u16.to_be_bytes(), [0, 7]].concat());
        // The same program goes on in the same session.
        script.send_raw(&echo(from, to, 4321, 8, b"ping"));
        assert!(matches!(script.command(), Some(Command::SendEcho { sequence: 8, .. })));
        script.quiet();
        script.pass(Duration::from_secs(60));
        assert_eq!(script.command(), Some(Command::Close(flow)));
    }
}

#[test]
fn errors_of_a_ping_quote_the_ping() {
    let mut script = Script::new();
    for (from, to, request, code) in
        [("10.1.0.2", "10.20.0.1", 8, (11, 0)), ("fd01::2", "fd20::1", 128, (3, 0))]
    {
        script.send_raw(&echo(from, to, 4321, 7, b"ping"));
        let Some(Command::OpenEcho { flow, .. }) = script.command() else { panic!() };
        script.command();
        script.engine.handle_unreachable(
            flow,
            Unreachable {
                offender: None,
                destination: std::net::SocketAddr::new(ip(to), 0),
                sequence: Some(7),
                kind: UnreachableKind::TimeExceeded,
            },
        );
        let sent = script.sent().unwrap();
        assert_eq!((sent.icmp().0, sent.icmp().1), code);
        let (source, destination, _, transport) = sent.quotation();
        assert_eq!((source, destination), (ip(from), ip(to)));
        assert_eq!(
            (transport[0], &transport[4..8]),
            (request, &[4321u16.to_be_bytes(), [0, 7]].concat()[..])
        );
    }
}

#[test]
fn dns_answers_come_from_where_the_query_went() {
    let mut script = Script::new();
    let mut queries = Vec::new();
    for (from, to) in [(CLIENT, "10.1.0.1:53"), ("[fd01::2]:5000", "[fd01::1]:53"), (CLIENT, "10.1.0.1:53")] {
        script.send_raw(&udp(from, to, b"query"));
        let Some(Command::Resolve { query, message }) = script.command() else { panic!() };
        assert_eq!(&message[..], b"query");
        queries.push((query, from, to));
    }
    // In any order.
    for (query, from, to) in queries.into_iter().rev() {
        script.engine.handle_dns_answer(query, b"answer"[..].into());
        assert_eq!(script.sent().unwrap().udp(), (socket(to), socket(from), &b"answer"[..]));
        script.engine.handle_dns_answer(query, b"again"[..].into());
        script.quiet();
    }
}
