//! Answers to keepalives of TCP while the link is quiet. Pure.
//!
//! A program that asks for keepalives, such as any in Go every 15 seconds, would wake the link for ever. So the laptop
//! leaves an acknowledgment for each connection with us before it asks to be quiet. It is the one that it would give
//! itself, so the codespace's kernel can't tell the difference.

use std::collections::HashMap;

use bytes::Bytes;
use gh_net_common::frame::MAX_STANDBY;

use super::segment::{self, Flow};

/// The longest headers of a segment without payload: IPv6 with extensions that nobody sends, and all of TCP's options.
const MAX_LEN: usize = 128;

/// Acknowledgments and their numbers, by the direction in which they are sent.
type Acknowledgments = HashMap<Flow, (u32, Bytes)>;

/// See the [module's documentation](self).
#[derive(Debug, Default)]
pub(super) struct Standby {
    /// Those for the quiet that the laptop is about to ask for.
    next: Acknowledgments,
    /// Those that are given now.
    current: Acknowledgments,
}

impl Standby {
    /// Keeps an acknowledgment for the next quiet, in place of an earlier one of its connection. Anything else is ignored.
    pub(super) fn add(&mut self, packet: &[u8]) {
        let Some((flow, tcp)) = segment::parse(packet) else { return };
        let is_acknowledgment =
            tcp.ack() && !tcp.syn() && !tcp.fin() && !tcp.rst() && tcp.payload().is_empty();
        let has_room = self.next.len() < MAX_STANDBY || self.next.contains_key(&flow);
        if is_acknowledgment && has_room && packet.len() <= MAX_LEN {
            // A copy, because the packet is a part of a much larger buffer.
            let answer = (tcp.acknowledgment_number(), Bytes::copy_from_slice(packet));
            self.next.insert(flow, answer);
        }
    }

    /// The answer to `packet`, if it is a keepalive: its sequence number is the one before the next expected, and it
    /// has at most one byte (RFC 9293, 3.8.4).
    pub(super) fn answer(&self, packet: &[u8]) -> Option<&Bytes> {
        let (flow, tcp) = segment::parse(packet)?;
        let (expected, answer) = self.current.get(&flow.reversed())?;
        let is_keepalive = tcp.sequence_number().wrapping_add(1) == *expected && tcp.payload().len() <= 1;
        (is_keepalive && !tcp.syn() && !tcp.fin() && !tcp.rst()).then_some(answer)
    }

    /// The laptop asks to be quiet: it has left all that it wants to leave.
    pub(super) fn begin(&mut self) {
        self.current = std::mem::take(&mut self.next);
    }

    /// The link is not quiet any more.
    pub(super) fn end(&mut self) {
        self.current = HashMap::new();
    }

    /// A packet of the laptop makes what it has left obsolete.
    pub(super) fn discard(&mut self) {
        if !self.next.is_empty() {
            self.next = HashMap::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;

    const CODESPACE: [u8; 4] = [198, 19, 240, 1];
    const SERVER: [u8; 4] = [10, 20, 0, 10];

    fn acknowledgment(port: u16, number: u32) -> Vec<u8> {
        let mut packet = Vec::new();
        let segment = PacketBuilder::ipv4(SERVER, CODESPACE, 64).tcp(80, port, 500, 1000).ack(number);
        segment.write(&mut packet, &[]).unwrap();
        packet
    }

    fn from_codespace(port: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
        let mut packet = Vec::new();
        let segment = PacketBuilder::ipv4(CODESPACE, SERVER, 64).tcp(port, 80, sequence, 1000).ack(500);
        segment.write(&mut packet, payload).unwrap();
        packet
    }

    #[test]
    fn a_keepalive_gets_its_connections_acknowledgment() {
        let mut standby = Standby::default();
        standby.add(&acknowledgment(5000, 700));
        standby.add(&acknowledgment(5001, 0));
        assert!(standby.answer(&from_codespace(5000, 699, b"")).is_none(), "the link is not quiet yet");
        standby.begin();
        assert_eq!(standby.answer(&from_codespace(5000, 699, b"")).unwrap()[..], acknowledgment(5000, 700));
        assert!(
            standby.answer(&from_codespace(5000, 699, b"x")).is_some(),
            "Linux sends none, others a byte"
        );
        assert!(
            standby.answer(&from_codespace(5001, u32::MAX, b"")).is_some(),
            "sequence numbers wrap around"
        );
        standby.add(&acknowledgment(5000, 710));
        standby.begin();
        assert!(standby.answer(&from_codespace(5000, 699, b"")).is_none(), "the later one counts");
        // The next ones may be there already when it is noticed that the link was woken.
        standby.add(&acknowledgment(5000, 720));
        standby.end();
        assert!(standby.answer(&from_codespace(5000, 709, b"")).is_none());
        standby.begin();
        assert!(standby.answer(&from_codespace(5000, 719, b"")).is_some());
        standby.add(&acknowledgment(5000, 730));
        standby.discard();
        standby.begin();
        assert!(standby.answer(&from_codespace(5000, 729, b"")).is_none(), "the question was void");
    }

    #[test]
    fn all_else_goes_to_the_laptop() {
        let mut standby = Standby::default();
        standby.add(&acknowledgment(5000, 700));
        standby.begin();
        for packet in [
            from_codespace(5000, 700, b""),
            from_codespace(5000, 700, b"data"),
            from_codespace(5000, 699, b"da"),
            from_codespace(5002, 699, b""),
            vec![],
            vec![0x45; 20],
        ] {
            assert!(standby.answer(&packet).is_none(), "{packet:?}");
        }
        let mut reset = Vec::new();
        let segment = PacketBuilder::ipv4(CODESPACE, SERVER, 64).tcp(5000, 80, 699, 1000).rst();
        segment.write(&mut reset, &[]).unwrap();
        assert!(standby.answer(&reset).is_none());
    }

    #[test]
    fn only_acknowledgments_are_kept_and_not_too_many() {
        let mut standby = Standby::default();
        standby.add(&from_codespace(5000, 700, b"data"));
        standby.add(b"nonsense");
        assert!(standby.next.is_empty());
        (0..u16::MAX).for_each(|port| standby.add(&acknowledgment(port, 1)));
        assert_eq!(standby.next.len(), MAX_STANDBY);
    }
}
