//! Looks at every packet on the link, as a packet analyser would.
//!
//! It is written after RFC 9293 alone and asserts what the engine promises: packets that parse strictly and have correct
//! checksums, a right edge that does not move back, nothing sent beyond the peer's window or larger than its MSS.

use std::collections::BTreeMap;

use etherparse::{IpSlice, TcpOptionElement, TcpSlice};
use gh_net_testkit::packet::Packet;

use super::server_number;

/// One direction of one connection.
#[derive(Debug, Default, Clone, Copy)]
struct Half {
    initial: Option<u32>,
    mss: Option<u16>,
    shift: Option<u8>,
    /// The position behind the highest byte sent; the SYN is at 0.
    highest: u64,
    /// The highest right edge this half's receiver has offered to the other half.
    edge: u64,
}

impl Half {
    fn position(&self, sequence: u32, near: u64) -> Option<u64> {
        let distance = sequence.wrapping_sub(self.initial?.wrapping_add(near as u32)) as i32;
        near.checked_add_signed(distance.into())
    }
}

#[derive(Debug, Default, Clone, Copy)]
struct Track {
    uplink: Half,
    downlink: Half,
}

/// The state of all connections, and counts.
#[derive(Debug, Default, Clone)]
pub struct Inspector {
    tracks: BTreeMap<(usize, bool), Track>,
    /// The tunnel's MTU.
    mtu: usize,
    /// Packets to the codespace.
    pub downlink: u64,
    /// Of these: TCP segments without data, SYN, FIN and RST.
    pub pure_acks: u64,
    /// Of these: with data or FIN.
    pub segments: u64,
    /// Of these: resets.
    pub resets: u64,
    /// Of these: ICMP errors, by type and code.
    pub errors: Vec<(u8, u8)>,
    /// Packets from the codespace that reached the laptop.
    pub uplink: u64,
    /// Bytes of the codespace that came again, though they had reached the laptop.
    pub uplink_repeated: u64,
    /// Bytes to the codespace that were sent again.
    pub downlink_repeated: u64,
}

impl Inspector {
    /// An inspector of a tunnel with this MTU.
    pub fn new(mtu: usize) -> Self {
        Self { mtu, ..Self::default() }
    }

    /// How many bytes of a connection's uplink were offered room, and of its downlink sent at least once.
    pub fn progress(&self, number: usize, v6: bool) -> (u64, u64) {
        let track = self.tracks.get(&(number, v6)).copied().unwrap_or_default();
        (track.downlink.edge.saturating_sub(1), track.downlink.highest.saturating_sub(1))
    }

    /// A packet of the codespace that reaches the laptop.
    pub fn uplink(&mut self, packet: &[u8]) {
        self.uplink += 1;
        let ip = IpSlice::from_slice(packet).expect("smoltcp's packets parse");
        let tcp = TcpSlice::from_slice(ip.payload().payload).expect("smoltcp's segments parse");
        let to = std::net::SocketAddr::new(ip.destination_addr(), tcp.destination_port());
        let Some(number) = server_number(to) else { return };
        let track = self.tracks.entry((number, to.is_ipv6())).or_default();
        if tcp.syn() && track.uplink.initial != Some(tcp.sequence_number()) {
            *track = Track::default();
            open(&mut track.uplink, &tcp);
            track.uplink.edge = 1 + u64::from(tcp.window_size());
            return;
        }
        let Track { uplink, downlink } = track;
        self.uplink_repeated += advance(uplink, &tcp);
        if tcp.ack()
            && let Some(acknowledged) = downlink.position(tcp.acknowledgment_number(), downlink.highest)
        {
            let edge = acknowledged + (u64::from(tcp.window_size()) << shift(uplink, downlink));
            uplink.edge = uplink.edge.max(edge);
        }
    }

    /// A packet that the engine sends.
    pub fn downlink(&mut self, packet: &[u8]) {
        self.downlink += 1;
        assert!(packet.len() <= self.mtu, "{} bytes are more than the MTU", packet.len());
        let packet = Packet::verified(packet);
        match packet.tcp() {
            Some(tcp) => self.segment(&packet, &tcp),
            None => {
                let (kind, code, _) = packet.icmp();
                self.errors.push((kind, code));
            }
        }
    }

    fn segment(&mut self, packet: &Packet, tcp: &TcpSlice<'_>) {
        let from = std::net::SocketAddr::new(packet.from, tcp.source_port());
        let number = server_number(from).expect("from one of the servers");
        let track = self.tracks.entry((number, from.is_ipv6())).or_default();
        if tcp.rst() {
            self.resets += 1;
            return;
        }
        let Track { uplink, downlink } = track;
        if tcp.syn() {
            assert!(tcp.ack() && !tcp.fin() && tcp.payload().is_empty(), "an odd SYN: {:?}", tcp.to_header());
            if downlink.initial != Some(tcp.sequence_number()) {
                *downlink = Half::default();
                open(downlink, tcp);
                downlink.edge = 1 + u64::from(tcp.window_size());
            }
            return;
        }
        let carries = !tcp.payload().is_empty() || tcp.fin();
        if carries {
            self.segments += 1
        } else {
            self.pure_acks += 1
        }
        if let Some(mss) = uplink.mss {
            assert!(tcp.payload().len() <= mss.into(), "{} bytes, MSS {mss}", tcp.payload().len());
        }
        self.downlink_repeated += advance(downlink, tcp);
        // The FIN takes a number, but no room.
        assert!(
            downlink.highest <= uplink.edge + 1,
            "{} beyond the window {}",
            downlink.highest,
            uplink.edge
        );
        let acknowledged = uplink.position(tcp.acknowledgment_number(), uplink.highest);
        let acknowledged = acknowledged.expect("an acknowledgment after the client's SYN");
        assert!(acknowledged <= uplink.highest, "{acknowledged} acknowledged, {} sent", uplink.highest);
        let shift = shift(downlink, uplink);
        let edge = acknowledged + (u64::from(tcp.window_size()) << shift);
        // RFC 7323, 2.4: by less than one unit of the field it may, where no field can say it exactly.
        assert!(edge + (1 << shift) > downlink.edge, "the right edge went from {} to {edge}", downlink.edge);
        downlink.edge = downlink.edge.max(edge);
    }
}

fn open(half: &mut Half, tcp: &TcpSlice<'_>) {
    half.initial = Some(tcp.sequence_number());
    half.highest = 1;
    for option in tcp.options_iterator() {
        match option.expect("options that parse") {
            TcpOptionElement::MaximumSegmentSize(mss) => half.mss = Some(mss),
            TcpOptionElement::WindowScale(shift) => half.shift = Some(shift),
            TcpOptionElement::Noop
            | TcpOptionElement::SelectiveAcknowledgementPermitted
            | TcpOptionElement::SelectiveAcknowledgement(..)
            | TcpOptionElement::Timestamp(..) => {}
        }
    }
}

/// The shift of `from`'s window fields: scaling is on if both have offered it.
fn shift(from: &Half, other: &Half) -> u8 {
    other.shift.and(from.shift).unwrap_or(0)
}

/// Counts a segment as sent; returns how many of its bytes were sent before.
fn advance(half: &mut Half, tcp: &TcpSlice<'_>) -> u64 {
    let Some(position) = half.position(tcp.sequence_number(), half.highest) else { return 0 };
    let payload = tcp.payload().len() as u64;
    let repeated = half.highest.saturating_sub(position).min(payload);
    half.highest = half.highest.max(position + payload + u64::from(tcp.fin()));
    repeated
}
