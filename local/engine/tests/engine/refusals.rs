//! Refused packets and the answers that the codespace gets.

use std::net::{IpAddr, SocketAddr};

use etherparse::IpNumber;
use gh_net_engine::{Command, Config, ConnectError, Engine, Target};
use gh_net_testkit::build::{icmp, packet, udp_segment};
use gh_net_testkit::{ip, socket};

use crate::harness::{Script, config, echo, seg, udp};

#[test]
fn an_unreachable_host_is_reported_with_the_syn_quoted() {
    let cases = [
        (ConnectError::NetworkUnreachable, (3, 0), (1, 0)),
        (ConnectError::HostUnreachable, (3, 1), (1, 3)),
        (ConnectError::Prohibited, (3, 13), (1, 1)),
    ];
    for (error, v4, v6) in cases {
        for (mut script, code, gateway) in [(Script::new(), v4, "10.1.0.1"), (Script::v6(), v6, "fd01::1")] {
            script.send(seg("S", 0, None, b""));
            let Some(Command::Connect { flow, .. }) = script.command() else { panic!() };
            script.engine.handle_connect_failed(flow, error, script.now);
            let sent = script.sent().expect("an error");
            assert_eq!((sent.from, sent.to), (ip(gateway), script.client.ip()));
            assert_eq!((sent.icmp().0, sent.icmp().1), code);
            let (from, to, protocol, transport) = sent.quotation();
            assert_eq!((from, to, protocol), (script.client.ip(), script.server.ip(), IpNumber::TCP));
            // Ports and sequence number, by which the codespace's kernel finds the socket.
            assert_eq!(
                transport,
                &script.raw(&seg("S", 0, None, b""))[if from.is_ipv4() { 20 } else { 40 }..][..8]
            );
            script.quiet();
            assert_eq!(script.engine.flow_count(), 0);
        }
    }
}

#[test]
fn silence_stays_silence() {
    for error in [ConnectError::TimedOut, ConnectError::Local] {
        let mut script = Script::new();
        script.send(seg("S", 0, None, b""));
        let Some(Command::Connect { flow, .. }) = script.command() else { panic!() };
        script.engine.handle_connect_failed(flow, error, script.now);
        script.quiet();
        // The next attempt is a new one.
        script.send(seg("S", 0, None, b""));
        assert!(matches!(script.command(), Some(Command::Connect { .. })));
    }
}

/// A UDP datagram to `to` is answered with this ICMP error about it, or with nothing.
fn answered(to: &str, expected: Option<(u8, u8)>) {
    let mut script = Script::new();
    let to = ip(to);
    let from = ip(if to.is_ipv4() { "10.1.0.2" } else { "fd01::2" });
    let transport = udp_segment(SocketAddr::new(from, 5000), SocketAddr::new(to, 5001), b"hello");
    script.send_raw(&packet(from, to, IpNumber::UDP, 64, &transport));
    let Some(code) = expected else { return script.quiet() };
    let sent = script.sent().unwrap_or_else(|| panic!("no error about {to}"));
    assert_eq!((sent.icmp().0, sent.icmp().1), code, "{to}");
    let (source, destination, protocol, quoted) = sent.quotation();
    assert_eq!((source, destination, protocol, quoted), (from, to, IpNumber::UDP, &transport[..]));
    assert_eq!(script.engine.counters().refused, 1);
    script.quiet();
}

#[test]
fn the_policys_refusals_are_answered() {
    answered("192.0.2.1", Some((3, 0)));
    answered("2001:db8::1", Some((1, 0)));
    answered("169.254.169.254", Some((3, 13)));
    answered("127.0.0.1", Some((3, 13)));
    answered("::1", Some((1, 1)));
    answered("224.0.0.251", None);
    answered("ff02::fb", None);
    answered("255.255.255.255", None);
}

#[test]
fn a_refused_connection_attempt_is_answered() {
    let mut script = Script::new();
    script.server = socket("192.0.2.1:443");
    script.send(seg("S", 0, None, b""));
    assert_eq!(script.sent().unwrap().icmp().0, 3);
    script.quiet();
    assert_eq!(script.engine.flow_count(), 0);
}

#[test]
fn the_gateway_answers_pings() {
    let mut script = Script::new();
    for (from, to, reply) in [("10.1.0.2", "10.1.0.1", 0), ("fd01::2", "fd01::1", 129)] {
        script.send_raw(&echo(from, to, 77, 3, b"payload"));
        let sent = script.sent().unwrap();
        assert_eq!((sent.from, sent.to), (ip(to), ip(from)));
        assert_eq!(sent.icmp(), (reply, 0, &b"payload"[..]));
        assert_eq!(sent.transport[4..8], [0, 77, 0, 3]);
        script.quiet();
    }
}

#[test]
fn the_gateway_serves_only_dns() {
    for mut script in [Script::new(), Script::v6()] {
        let gateway = ip(if script.client.is_ipv4() { "10.1.0.1" } else { "fd01::1" });
        script.server = SocketAddr::new(gateway, 80);
        script.send(seg("S", 0, None, b""));
        script.expect(seg("R", 0, 1, b""));
        script.server = SocketAddr::new(gateway, 53);
        script.send(seg("S", 0, None, b""));
        let Some(Command::Connect { target: Target::Resolver, .. }) = script.command() else { panic!() };
        let (client, server) = (script.client.to_string(), SocketAddr::new(gateway, 5353).to_string());
        script.send_raw(&udp(&client, &server, b"?"));
        let code = if gateway.is_ipv4() { (3, 3) } else { (1, 4) };
        let sent = script.sent().unwrap();
        assert_eq!((sent.icmp().0, sent.icmp().1), code);
        assert_eq!(sent.quotation().1, gateway);
        script.quiet();
    }
}

#[test]
fn the_last_hop_is_the_gateway() {
    let mut script = Script::new();
    for (from, to, code) in [("10.1.0.2", "10.20.0.1", (11, 0)), ("fd01::2", "fd20::1", (3, 0))] {
        let (from, to) = (ip(from), ip(to));
        let probe = udp_segment(SocketAddr::new(from, 5000), SocketAddr::new(to, 33_434), b"probe");
        for hops in [0, 1] {
            script.send_raw(&packet(from, to, IpNumber::UDP, hops, &probe));
            let sent = script.sent().unwrap();
            assert_eq!((sent.icmp().0, sent.icmp().1), code);
            assert_eq!(sent.quotation().3, probe);
            script.quiet();
        }
    }
    // To the gateway itself one hop is enough.
    let mut request = echo("10.1.0.2", "10.1.0.1", 1, 1, b"");
    request[8] = 1;
    request[10..12].copy_from_slice(&[0, 0]);
    let sum = etherparse::checksum::Sum16BitWords::new().add_slice(&request[..20]).ones_complement();
    request[10..12].copy_from_slice(&sum.to_ne_bytes());
    script.send_raw(&request);
    assert_eq!(script.sent().unwrap().icmp().0, 0);
}

#[test]
fn other_protocols_are_refused() {
    let mut script = Script::new();
    let sctp = IpNumber::SCTP;
    script.send_raw(&packet(ip("10.1.0.2"), ip("10.20.0.1"), sctp, 64, &[9; 30]));
    let sent = script.sent().unwrap();
    assert_eq!((sent.icmp().0, sent.icmp().1), (3, 2));
    assert_eq!(sent.quotation().3, [9; 30]);
    script.send_raw(&packet(ip("fd01::2"), ip("fd20::1"), sctp, 64, &[9; 30]));
    let sent = script.sent().unwrap();
    assert_eq!((sent.icmp().0, sent.icmp().1), (4, 1));
    assert_eq!(sent.transport[4..8], [0, 0, 0, 6], "the pointer to the next header field");
    assert_eq!(script.engine.counters().unsupported, 2);
    script.quiet();
}

#[test]
fn errors_quote_as_much_as_is_allowed() {
    let mut script = Script::new();
    for (from, to, most) in [("10.1.0.2", "192.0.2.1", 576), ("fd01::2", "2001:db8::1", 1280)] {
        let (from, to) = (ip(from), ip(to));
        let transport = udp_segment(SocketAddr::new(from, 1), SocketAddr::new(to, 2), &[5; 9000]);
        script.send_raw(&packet(from, to, IpNumber::UDP, 64, &transport));
        let sent = script.sent().unwrap();
        let header = if from.is_ipv4() { 20 } else { 40 };
        assert_eq!(header + sent.transport.len(), most);
        assert_eq!(sent.icmp().2[header..], transport[..sent.icmp().2.len() - header]);
    }
}

#[test]
fn errors_cause_no_errors() {
    let mut script = Script::new();
    let (v4, v6): ([IpAddr; 2], [IpAddr; 2]) =
        ([ip("10.1.0.2"), ip("192.0.2.1")], [ip("fd01::2"), ip("2001:db8::1")]);
    script.send_raw(&icmp(v4[0], v4[1], 3, 3, [0; 4], &[0x45; 28]));
    script.send_raw(&icmp(v6[0], v6[1], 1, 4, [0; 4], &[0x60; 48]));
    // Nor do packets without a usable source address.
    for from in ["0.0.0.0", "224.0.0.1", "255.255.255.255", "127.0.0.1"] {
        script.send_raw(&packet(ip(from), v4[1], IpNumber::SCTP, 64, &[0; 20]));
        script.send_raw(&packet(ip(from), v4[1], IpNumber::SCTP, 1, &[0; 20]));
    }
    for from in ["::", "::1", "ff02::1"] {
        script.send_raw(&packet(ip(from), v6[1], IpNumber::SCTP, 64, &[0; 20]));
    }
    script.quiet();
}

#[test]
fn malformed_packets_are_dropped_silently() {
    let mut script = Script::new();
    let good: Vec<Vec<u8>> = vec![
        script.raw(&seg("S", 0, None, b"").mss(1000)),
        udp("10.1.0.2:5000", "10.20.0.1:5001", b"hello"),
        udp("[fd01::2]:5000", "[fd20::1]:5001", b"hello"),
        echo("10.1.0.2", "10.20.0.1", 1, 1, b"hello"),
        echo("fd01::2", "fd20::1", 1, 1, b"hello"),
    ];
    let mut dropped = 0;
    for packet in &good {
        for len in 0..packet.len() {
            script.send_raw(&packet[..len]);
            dropped += 1;
        }
        // Any one bit in what a checksum covers: IPv4 header, addresses, transport header, payload.
        let from = if packet[0] >> 4 == 4 { 1 } else { 8 };
        for bit in from * 8..packet.len() * 8 {
            let mut wrong = packet.clone();
            wrong[bit / 8] ^= 1 << (bit % 8);
            script.send_raw(&wrong);
            dropped += 1;
        }
    }
    script.quiet();
    assert_eq!(script.engine.counters().malformed, dropped);
    // An IPv4 datagram may come without a checksum, an IPv6 one may not (RFC 8200, 8.1).
    for (packet, header) in [(&good[1], 20), (&good[2], 40)] {
        let mut unchecked = packet.clone();
        unchecked[header + 6..header + 8].copy_from_slice(&[0, 0]);
        script.send_raw(&unchecked);
    }
    let opened = std::iter::from_fn(|| script.command()).filter(|it| matches!(it, Command::OpenUdp { .. }));
    assert_eq!(opened.count(), 1);
}

#[test]
fn bytes_after_the_packet_are_ignored() {
    let mut script = Script::new();
    for mut packet in [
        udp("10.1.0.2:5000", "192.0.2.1:5001", b"hello"),
        udp("[fd01::2]:5000", "[2001:db8::1]:5001", b"hello"),
    ] {
        let whole = packet.clone();
        packet.extend_from_slice(b"padding");
        script.send_raw(&packet);
        assert_eq!(script.sent().expect("an error").icmp().2, whole);
    }
}

#[test]
fn an_engine_without_dns_has_no_resolver_at_its_addresses() {
    for (gateway, client, v6) in
        [("10.1.0.1:53", "10.1.0.2:5000", false), ("[fd01::1]:53", "[fd01::2]:5000", true)]
    {
        let mut script = if v6 { Script::v6() } else { Script::new() };
        script.engine = Engine::new(Config { dns: false, ..config(7) });
        script.send_raw(&udp(client, gateway, b"?"));
        let error = script.sent().expect("an error");
        assert_eq!((error.icmp().0, error.icmp().1), if v6 { (1, 4) } else { (3, 3) });
        script.server = socket(gateway);
        script.send(seg("S", 0, None, b""));
        script.expect(seg("R", 0, 1, b""));
        script.quiet();
    }
}
