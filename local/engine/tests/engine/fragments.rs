//! Fragments, options and extension headers.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use etherparse::{IpNumber, Ipv6Header};
use gh_net_engine::Command;
use gh_net_testkit::build::{packet, udp_segment};
use gh_net_testkit::{ip, socket};

use crate::harness::{Script, seg, udp};

const V4: (&str, &str) = ("10.1.0.2:5000", "10.20.0.1:7");
const V6: (&str, &str) = ("[fd01::2]:5000", "[fd20::1]:7");

fn set_checksum(packet: &mut [u8], header: usize) {
    packet[10..12].copy_from_slice(&[0, 0]);
    let sum = etherparse::checksum::Sum16BitWords::new().add_slice(&packet[..header]).ones_complement();
    packet[10..12].copy_from_slice(&sum.to_ne_bytes());
}

/// One fragment of a UDP datagram's bytes.
fn fragment(ends: (&str, &str), id: u16, offset: usize, more: bool, part: &[u8]) -> Vec<u8> {
    let (from, to) = (socket(ends.0).ip(), socket(ends.1).ip());
    let field = (offset as u16 / 8) << if from.is_ipv4() { 0 } else { 3 };
    if from.is_ipv4() {
        let mut packet = packet(from, to, IpNumber::UDP, 64, part);
        packet[4..6].copy_from_slice(&id.to_be_bytes());
        packet[6..8].copy_from_slice(&(field | if more { 0x2000 } else { 0 }).to_be_bytes());
        set_checksum(&mut packet, 20);
        packet
    } else {
        let mut header = vec![IpNumber::UDP.0, 0];
        header.extend_from_slice(&(field | u16::from(more)).to_be_bytes());
        header.extend_from_slice(&u32::from(id).to_be_bytes());
        packet(from, to, IpNumber::IPV6_FRAGMENTATION_HEADER, 64, &[&header[..], part].concat())
    }
}

/// The fragments of a datagram with this payload, each of `size` bytes at most.
fn fragments(ends: (&str, &str), id: u16, payload: &[u8], size: usize) -> Vec<Vec<u8>> {
    let whole = udp_segment(socket(ends.0), socket(ends.1), payload);
    let count = whole.len().div_ceil(size);
    let part = |(n, part): (usize, &[u8])| fragment(ends, id, n * size, n + 1 < count, part);
    whole.chunks(size).enumerate().map(part).collect()
}

/// The payloads of the datagrams that were forwarded.
fn all_forwarded(script: &mut Script) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| script.command())
        .filter_map(|command| {
            let Command::SendUdp { payload, .. } = command else { return None };
            Some(payload.to_vec())
        })
        .collect()
}

/// The payload of the datagram that was forwarded, if one was.
fn forwarded(script: &mut Script) -> Option<Vec<u8>> {
    all_forwarded(script).pop()
}

fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n / 7) as u8).collect()
}

#[test]
fn fragments_in_any_order_make_the_datagram() {
    for ends in [V4, V6] {
        let mut script = Script::new();
        for len in [2000, 20_000, 60_000] {
            let payload = payload(len);
            let mut parts = fragments(ends, 1, &payload, 1480);
            for turn in 0..3 {
                match turn {
                    0 => {}
                    1 => parts.reverse(),
                    _ => parts.rotate_left(1),
                }
                let (last, first) = parts.split_last().unwrap();
                for part in first {
                    script.send_raw(part);
                    script.quiet();
                }
                script.send_raw(last);
                assert!(forwarded(&mut script) == Some(payload.clone()), "{len} bytes, turn {turn}");
            }
        }
    }
}

#[test]
fn datagrams_under_construction_do_not_mix() {
    let mut script = Script::new();
    let (one, two) = (payload(3000), vec![9; 3000]);
    let ours = fragments(V4, 1, &one, 1480).into_iter().zip(fragments(V4, 2, &two, 1480));
    for (a, b) in ours {
        script.send_raw(&a);
        script.send_raw(&b);
    }
    assert_eq!(all_forwarded(&mut script), [one, two]);
}

#[test]
fn a_datagram_with_overlapping_fragments_is_given_up() {
    for ends in [V4, V6] {
        let mut script = Script::new();
        let parts = fragments(ends, 1, &payload(3000), 1480);
        script.send_raw(&parts[0]);
        script.send_raw(&fragment(ends, 1, 1472, true, &[6; 16]));
        script.send_raw(&parts[1]);
        script.send_raw(&parts[2]);
        assert_eq!(forwarded(&mut script), None);
        script.quiet();
    }
}

#[test]
fn an_incomplete_datagram_is_forgotten_after_a_while() {
    let mut script = Script::new();
    let parts = fragments(V4, 1, &payload(3000), 1480);
    script.send_raw(&parts[0]);
    script.pass(Duration::from_secs(15));
    script.send_raw(&parts[1]);
    script.send_raw(&parts[2]);
    assert_eq!(forwarded(&mut script), None);
    script.send_raw(&parts[0]);
    assert!(forwarded(&mut script).is_some());
}

#[test]
fn too_many_incomplete_datagrams_push_out_the_oldest() {
    let mut script = Script::new();
    let first = fragments(V4, 0, &payload(3000), 1480);
    script.send_raw(&first[0]);
    script.send_raw(&first[1]);
    for id in 1..=64 {
        script.send_raw(&fragments(V4, id, &payload(3000), 1480)[0]);
    }
    script.send_raw(&first[2]);
    assert_eq!(forwarded(&mut script), None);
    let last = fragments(V4, 64, &payload(3000), 1480);
    script.send_raw(&last[1]);
    script.send_raw(&last[2]);
    assert!(forwarded(&mut script).is_some());
}

#[test]
fn fragments_that_contradict_each_other_or_are_too_long_make_nothing() {
    for ends in [V4, V6] {
        let mut script = Script::new();
        // Two different ends.
        script.send_raw(&fragment(ends, 1, 1000, false, &[0; 40]));
        script.send_raw(&fragment(ends, 1, 2000, false, &[0; 40]));
        script.send_raw(&fragment(ends, 1, 0, true, &[0; 1000]));
        // Beyond 65535 (the ping of death).
        script.send_raw(&fragment(ends, 2, 65_528, false, &[0; 100]));
        // A middle one that is no multiple of eight.
        script.send_raw(&fragment(ends, 3, 0, true, &[0; 1001]));
        script.send_raw(&fragment(ends, 3, 1000, false, &[0; 8]));
        // Empty ones.
        script.send_raw(&fragment(ends, 4, 800, true, &[]));
        script.send_raw(&fragment(ends, 4, 0, false, &[]));
        script.quiet();
    }
}

#[test]
fn only_a_first_fragment_causes_an_error() {
    let mut script = Script::new();
    let ends = (V4.0, "10.20.0.1:7");
    for (offset, told) in [(0, true), (800, false)] {
        let mut part = fragment(ends, 1, offset, true, &[0; 800]);
        part[8] = 1;
        set_checksum(&mut part, 20);
        script.send_raw(&part);
        assert_eq!(script.sent().is_some(), told);
    }
}

#[test]
fn an_error_about_a_fragmented_datagram_quotes_its_first_fragment() {
    let mut script = Script::new();
    let ends = (V4.0, "192.0.2.1:7");
    let parts = fragments(ends, 1, &payload(3000), 1480);
    for part in parts.iter().rev() {
        script.quiet();
        script.send_raw(part);
    }
    let sent = script.sent().unwrap();
    assert_eq!(sent.icmp().2[..], parts[0][..576 - 28]);
}

#[test]
fn ipv4_options_do_not_matter() {
    let mut script = Script::new();
    let (from, to) = (socket(V4.0), socket(V4.1));
    let transport = udp_segment(from, to, b"with options");
    let mut packet = packet(from.ip(), to.ip(), IpNumber::UDP, 64, &transport);
    // Router alert, and padding to the next word.
    packet.splice(20..20, [0x94, 4, 0, 0, 1, 1, 1, 0]);
    packet[0] = 0x47;
    let len = packet.len() as u16;
    packet[2..4].copy_from_slice(&len.to_be_bytes());
    set_checksum(&mut packet, 28);
    script.send_raw(&packet);
    assert_eq!(forwarded(&mut script).as_deref(), Some(&b"with options"[..]));
}

/// An IPv6 packet with extension headers of these kinds, eight bytes each, before the transport header.
fn extended(from: IpAddr, to: IpAddr, kinds: &[u8], protocol: IpNumber, transport: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (n, kind) in kinds.iter().enumerate() {
        let next = kinds.get(n + 1).copied().unwrap_or(protocol.0);
        // A routing header with no segments left, others filled with a PadN option; an atomic fragment.
        match kind {
            43 | 44 => bytes.extend_from_slice(&[next, 0, 0, 0, 0, 0, 0, 0]),
            _ => bytes.extend_from_slice(&[next, 0, 1, 4, 0, 0, 0, 0]),
        }
    }
    bytes.extend_from_slice(transport);
    packet(from, to, kinds.first().copied().map_or(protocol, IpNumber), 64, &bytes)
}

#[test]
fn ipv6_extension_headers_do_not_matter() {
    let (from, to) = (socket(V6.0), socket(V6.1));
    let transport = udp_segment(from, to, b"extended");
    for kinds in [&[0][..], &[60], &[43], &[44], &[0, 60, 43, 44, 60]] {
        let mut script = Script::new();
        script.send_raw(&extended(from.ip(), to.ip(), kinds, IpNumber::UDP, &transport));
        assert_eq!(forwarded(&mut script).as_deref(), Some(&b"extended"[..]), "{kinds:?}");
    }
    let mut script = Script::v6();
    let syn = script.raw(&seg("S", 0, None, b""))[Ipv6Header::LEN..].to_vec();
    script.send_raw(&extended(script.client.ip(), script.server.ip(), &[0, 60], IpNumber::TCP, &syn));
    assert!(matches!(script.command(), Some(Command::Connect { .. })));
}

#[test]
fn extension_headers_without_end_are_malformed() {
    let mut script = Script::new();
    let (from, to) = (ip("fd01::2"), ip("fd20::1"));
    script.send_raw(&extended(from, to, &[60; 200], IpNumber(60), &[]));
    script.send_raw(&packet(from, to, IpNumber::IPV6_FRAGMENTATION_HEADER, 64, &[17, 0, 0]));
    script.quiet();
    assert_eq!(script.engine.counters().malformed, 2);
    script.send_raw(&udp("[fd01::2]:1", &SocketAddr::new(to, 2).to_string(), b"fine"));
    assert!(forwarded(&mut script).is_some());
}
