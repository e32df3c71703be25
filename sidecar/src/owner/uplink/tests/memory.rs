//! What the uplink keeps when everything in it is full at once, by an allocator that counts.

#![allow(clippy::print_stdout, reason = "the figures are of interest")]

use super::*;
use crate::hook::Buffers;
use crate::sys::counting::allocated;

const MIB: usize = 1024 * 1024;

/// The address with this number, each in a network of its own.
fn address(number: u32) -> [u8; 4] {
    let [_, a, b, c] = number.to_be_bytes();
    [a + 1, b, c, 1]
}

fn datagram(protocol: u8, from: u16, to: [u8; 4], payload: usize) -> Vec<u8> {
    let mut packet = Vec::new();
    let ip = PacketBuilder::ipv4(CODESPACE, to, 64);
    let payload = vec![7; payload];
    match protocol {
        6 => ip.tcp(from, 80, 1, 1000).ack(1).write(&mut packet, &payload).unwrap(),
        17 => ip.udp(from, 53).write(&mut packet, &payload).unwrap(),
        _ => ip.icmpv4_echo_request(from, 1).write(&mut packet, &payload).unwrap(),
    }
    packet
}

/// The answer to it.
fn answer_to(packet: &[u8]) -> Vec<u8> {
    let mut answer = packet[..packet.len().min(40)].to_vec();
    answer[12..20].rotate_left(4);
    answer[20..24].rotate_left(2);
    answer
}

/// Fills everything with packets of this size, each of another flow to another network.
fn fill(payload: usize) -> (usize, usize) {
    let (mut buffers, before) = (Buffers::default(), allocated());
    let sockets = OwnSockets::default();
    let mut uplink = Uplink::new(sockets.clone());
    let count = (MOST_STREAMS / (payload + 400)) as u32;
    let mut push = |uplink: &mut Uplink, packet: Vec<u8>| uplink.push(buffers.read(&packet));
    let mut dropped = [0; 4];
    for number in 0..count {
        let to = address(number);
        let answered = [6, 17].map(|protocol| datagram(protocol, 7, to, payload));
        for (packet, dropped) in answered.into_iter().zip(&mut dropped) {
            uplink.heard(&answer_to(&packet));
            *dropped += push(&mut uplink, packet);
        }
    }
    for number in 0..count.min(20_000) {
        let to = address(number + (1 << 21));
        for protocol in [6, 17, 1] {
            dropped[2] += push(&mut uplink, datagram(protocol, 9, to, payload));
        }
    }
    let before_sockets = allocated();
    let open: Vec<_> = (1..8192).map(|port| own(&sockets, Transport::Udp, port)).collect();
    let of_sockets = allocated() - before_sockets;
    for port in 1..8192 {
        dropped[3] += push(&mut uplink, datagram(17, port, GATEWAY, payload.min(1232)));
    }
    assert!(dropped.iter().all(|dropped| *dropped > 0), "not all is full: {dropped:?}");
    let used = allocated() - before - of_sockets;
    drop(open);
    (used, uplink.waiting.cost())
}

#[test]
fn everything_that_waits_at_once_is_bounded_in_memory() {
    for payload in [1, 1400, 60_000] {
        let (used, counted) = fill(payload);
        println!("{payload}: {} KiB, by its own count {} KiB", used / 1024, counted / 1024);
        assert!(used <= BOUNDS.iter().sum::<usize>() + MIB, "{} MiB with packets of {payload}", used / MIB);
    }
}
