//! The packets of the codespace that are kept while there is no link. Pure.
//!
//! A packet that waits for minutes in the device's queue is stale: a query's sender has given up, an acknowledgment is
//! superseded, and the kernel repeats TCP segments anyway. But its retransmission timer grows to minutes, so a
//! connection would stay still long after the link is back. One segment wakes it up at once: the laptop's answer tells
//! the kernel what is missing. So the latest segment that asks for an answer is kept of each connection; all else is
//! dropped. A reset is kept too, because the kernel does not repeat it.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use super::segment::{self, Flow};

/// Maximum number of connections of which a segment is kept.
const MAX_FLOWS: usize = 1024;
/// Maximum bytes of the segments kept.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// The packets kept, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Held {
    packets: BTreeMap<u64, (Flow, Bytes)>,
    /// The key of each connection's packet.
    keys: HashMap<Flow, u64>,
    bytes: usize,
    next: u64,
}

impl Held {
    /// Keeps a packet in place of an earlier one of its connection, or drops it.
    pub(crate) fn offer(&mut self, packet: &[u8]) {
        let Some(flow) = wakes_up(packet) else { return };
        if let Some(earlier) = self.keys.get(&flow).copied() {
            self.remove(earlier);
        }
        while self.packets.len() >= MAX_FLOWS || self.bytes + packet.len() > MAX_BYTES {
            if self.pop().is_none() {
                return;
            }
        }
        self.bytes += packet.len();
        self.keys.insert(flow, self.next);
        // A copy, because the packet is a part of a much larger buffer.
        self.packets.insert(self.next, (flow, Bytes::copy_from_slice(packet)));
        self.next += 1;
    }

    /// Takes the oldest packet.
    pub(crate) fn pop(&mut self) -> Option<Bytes> {
        let oldest = *self.packets.first_key_value()?.0;
        self.remove(oldest)
    }

    fn remove(&mut self, key: u64) -> Option<Bytes> {
        let (flow, packet) = self.packets.remove(&key)?;
        self.keys.remove(&flow);
        self.bytes -= packet.len();
        Some(packet)
    }
}

/// The connection of a TCP segment that the other end answers, or that ends it.
fn wakes_up(packet: &[u8]) -> Option<Flow> {
    let (flow, tcp) = segment::parse(packet)?;
    let matters = tcp.syn() || tcp.fin() || tcp.rst() || !tcp.payload().is_empty();
    matters.then_some(flow)
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;

    /// A segment of this connection; `S` is a SYN, and so on.
    fn tcp(port: u16, flag: char, payload: &[u8]) -> Vec<u8> {
        let segment = PacketBuilder::ipv4([198, 19, 240, 1], [10, 20, 0, 10], 64).tcp(port, 80, 1, 1000);
        let segment = match flag {
            'S' => segment.syn(),
            'F' => segment.fin(),
            'R' => segment.rst(),
            _ => segment.ack(1),
        };
        let mut packet = Vec::new();
        segment.write(&mut packet, payload).unwrap();
        packet
    }

    fn udp() -> Vec<u8> {
        let mut packet = Vec::new();
        let datagram = PacketBuilder::ipv4([198, 19, 240, 1], [10, 20, 0, 10], 64).udp(1, 53);
        datagram.write(&mut packet, b"question").unwrap();
        packet
    }

    fn all(mut held: Held) -> Vec<Bytes> {
        let packets: Vec<_> = std::iter::from_fn(|| held.pop()).collect();
        assert_eq!((held.bytes, held.keys.len()), (0, 0));
        packets
    }

    #[test]
    fn the_latest_segment_of_each_connection_is_kept_oldest_first() {
        let mut held = Held::default();
        let packets =
            [tcp(1, 'S', b""), tcp(2, '.', b"one"), tcp(1, '.', b"two"), tcp(3, 'F', b""), tcp(2, 'R', b"")];
        packets.iter().for_each(|packet| held.offer(packet));
        assert_eq!(all(held), packets[2..]);
    }

    #[test]
    fn what_needs_no_answer_or_is_no_tcp_is_dropped() {
        let mut held = Held::default();
        let mut fragment = tcp(1, '.', b"data");
        fragment[6] |= 0x20;
        for packet in [tcp(1, '.', b""), udp(), fragment, vec![], vec![0x45], vec![0xff; 60]] {
            held.offer(&packet);
        }
        assert!(held.pop().is_none());
        // A pure acknowledgment does not displace data.
        held.offer(&tcp(1, '.', b"data"));
        held.offer(&tcp(1, '.', b""));
        assert_eq!(all(held), [tcp(1, '.', b"data")]);
    }

    #[test]
    fn the_oldest_are_forgotten_beyond_the_bounds() {
        let mut held = Held::default();
        (0..1500).for_each(|port| held.offer(&tcp(port, 'S', b"")));
        assert_eq!(all(held).first(), Some(&tcp(1500 - 1024, 'S', b"").into()));
        let mut held = Held::default();
        (0..600).for_each(|port| held.offer(&tcp(port, '.', &[7; 60_000])));
        assert!(held.bytes <= MAX_BYTES && held.bytes > MAX_BYTES - 120_000);
        assert_eq!(all(held).last(), Some(&tcp(599, '.', &[7; 60_000]).into()));
    }
}
