//! Large packets are cut, because what is urgent waits behind a packet that has just been sent.
//!
//! A TCP segment becomes several, as a network card does it (TSO): each has the headers of the whole one with a sequence
//! number, length and checksum of its own; FIN and PSH are on the last one, CWR on the first (RFC 3168, 6.1.2). A UDP
//! datagram or echo request becomes IP fragments, which the laptop's engine puts together.
//!
//! A piece is cut off when it is sent, so its size follows the link, and the rest of the packet is not copied.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use gh_net_common::checksum;
use gh_net_common::link::MAX_FRAGMENTED;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const FRAGMENT: u8 = 44;
const ICMP_V6: u8 = 58;

const FIN_PSH: u8 = 0x09;
const SYN_RST_URG: u8 = 0x26;
const CWR: u8 = 0x80;
/// More fragments follow.
const MORE: u16 = 0x2000;

/// A datagram is cut if it is this many times as large as a packet should be. The loss of one fragment is the loss of
/// all, so those of ordinary links are not cut.
const MUCH_LARGER: usize = 2;

/// What is sent at once: a packet, as headers of its own and a part of another's payload.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) headers: BytesMut,
    pub(crate) payload: Bytes,
}

impl Piece {
    pub(super) fn whole(packet: Bytes) -> Self {
        Self { headers: BytesMut::new(), payload: packet }
    }

    pub(crate) fn len(&self) -> usize {
        self.headers.len() + self.payload.len()
    }
}

/// How packets are cut now.
#[derive(Debug)]
pub(super) struct Cutter {
    /// The largest packet, in bytes.
    pub(super) largest: usize,
    /// The identification of the latest fragments.
    identification: u16,
    /// Cloned for each datagram whose fragments are being sent.
    fragmented: Arc<()>,
}

impl Cutter {
    /// One whose fragments are identified by numbers after `identification`.
    pub(super) fn new(identification: u16) -> Self {
        Self { largest: usize::MAX, identification, fragmented: Arc::default() }
    }
}

/// A packet that waits, or what is left of it.
#[derive(Debug)]
pub(super) struct Waiting {
    packet: Bytes,
    cut: Option<Box<Cut>>,
}

#[derive(Debug)]
struct Cut {
    how: How,
    /// Length of the headers that each piece repeats.
    headers: usize,
    /// Bytes of the payload that have been sent, and in how many pieces.
    sent: usize,
    pieces: u16,
}

#[derive(Debug)]
enum How {
    /// The TCP header begins here.
    Segments {
        tcp: usize,
    },
    Fragments {
        identification: u16,
        _one_of: Arc<()>,
    },
}

impl Waiting {
    pub(super) fn new(packet: Bytes) -> Self {
        Self { packet, cut: None }
    }

    /// The whole packet.
    pub(super) fn into_packet(self) -> Bytes {
        self.packet
    }

    pub(super) fn len(&self) -> usize {
        self.packet.len()
    }

    /// Whether a part of it has been sent.
    pub(super) fn is_begun(&self) -> bool {
        self.cut.is_some()
    }

    /// The next piece, and whether it is the last one.
    pub(super) fn next(&mut self, cutter: &mut Cutter) -> (Piece, bool) {
        if self.cut.is_none() && self.packet.len() > cutter.largest {
            self.cut = Cut::new(&self.packet, cutter).map(Box::new);
        }
        match &mut self.cut {
            Some(cut) => cut.next(&self.packet, cutter.largest),
            None => (Piece::whole(self.packet.clone()), true),
        }
    }
}

impl Cut {
    /// How this packet is cut, if it can be. One that is damaged goes as it is: pieces would be intact.
    fn new(packet: &[u8], cutter: &mut Cutter) -> Option<Self> {
        let (protocol, headers) = network_header(packet)?;
        if protocol == TCP {
            let tcp = packet.get(headers..)?;
            let length = usize::from(tcp.get(12)? >> 4) * 4;
            let is_plain = (20..tcp.len()).contains(&length) && tcp[13] & SYN_RST_URG == 0;
            let is_intact = checksum::finish(pseudo_header(packet, tcp.len()) + checksum::sum(tcp)) == 0;
            let how = How::Segments { tcp: headers };
            return (is_plain && is_intact).then_some(Self {
                how,
                headers: headers + length,
                sent: 0,
                pieces: 0,
            });
        }
        let is_datagram = matches!((packet[0] >> 4, protocol), (_, UDP) | (4, ICMP) | (6, ICMP_V6));
        let is_large = packet.len() / MUCH_LARGER > cutter.largest;
        // The token of the cutter itself counts, too. Options would have to be copied in part (RFC 791, 3.1).
        let has_room = Arc::strong_count(&cutter.fragmented) <= MAX_FRAGMENTED;
        if !is_datagram || !is_large || !has_room || (packet[0] >> 4 == 4 && headers != 20) {
            return None;
        }
        cutter.identification = cutter.identification.wrapping_add(1);
        let (identification, _one_of) = (cutter.identification, cutter.fragmented.clone());
        Some(Self { how: How::Fragments { identification, _one_of }, headers, sent: 0, pieces: 0 })
    }

    fn next(&mut self, packet: &Bytes, largest: usize) -> (Piece, bool) {
        let left = packet.len() - self.headers - self.sent;
        // Fragments begin at multiples of 8 bytes, and have a header of 8 bytes in IPv6.
        let room = largest.saturating_sub(self.headers + 8).max(8) & !7;
        let taken = left.min(room);
        let is_last = taken == left;
        let begin = self.headers + self.sent;
        let payload = packet.slice(begin..begin + taken);
        let mut headers = BytesMut::from(&packet[..self.headers]);
        match &self.how {
            How::Segments { tcp } => self.segment(&mut headers, *tcp, &payload, is_last),
            How::Fragments { identification, .. } => {
                self.fragment(&mut headers, *identification, taken, is_last);
            }
        }
        self.sent += taken;
        self.pieces = self.pieces.wrapping_add(1);
        (Piece { headers, payload }, is_last)
    }

    /// Makes `headers` those of the segment with this payload.
    fn segment(&self, headers: &mut [u8], tcp: usize, payload: &[u8], is_last: bool) {
        let length = headers.len() - tcp + payload.len();
        let (network, transport) = headers.split_at_mut(tcp);
        let identification = be16(network, 4).wrapping_add(self.pieces);
        set_length(network, length, |network| put(network, 4, identification));
        let sequence = u32::from(be16(transport, 4)) << 16 | u32::from(be16(transport, 6));
        let sequence = sequence.wrapping_add(self.sent as u32);
        transport[4..8].copy_from_slice(&sequence.to_be_bytes());
        if self.sent > 0 {
            transport[13] &= !CWR;
        }
        if !is_last {
            transport[13] &= !FIN_PSH;
        }
        put(transport, 16, 0);
        let sum = pseudo_header(network, length) + checksum::sum(transport) + checksum::sum(payload);
        put(transport, 16, checksum::finish(sum));
    }

    /// Makes `headers` those of the fragment with the next `taken` bytes.
    fn fragment(&self, headers: &mut BytesMut, identification: u16, taken: usize, is_last: bool) {
        let more = if is_last { 0 } else { MORE };
        // In units of 8 bytes. It fits: no packet is larger than 64 KiB.
        let offset = (self.sent / 8) as u16;
        if headers[0] >> 4 == 4 {
            set_length(headers, taken, |headers| {
                put(headers, 4, identification);
                put(headers, 6, more | offset);
            });
            return;
        }
        let next = std::mem::replace(&mut headers[6], FRAGMENT);
        set_length(headers, 8 + taken, |_| {});
        headers.extend_from_slice(&[next, 0]);
        headers.extend_from_slice(&(offset << 3 | u16::from(!is_last)).to_be_bytes());
        headers.extend_from_slice(&u32::from(identification).to_be_bytes());
    }
}

/// The protocol in a whole and correct IP packet that is no fragment, and the length of its IP header.
fn network_header(packet: &[u8]) -> Option<(u8, usize)> {
    match packet.first()? >> 4 {
        4 => {
            let length = usize::from(packet[0] & 0xf) * 4;
            let header = packet.get(..length).filter(|header| header.len() >= 20)?;
            let is_whole = usize::from(be16(header, 2)) == packet.len() && be16(header, 6) & 0x3fff == 0;
            (is_whole && checksum::of(header) == 0).then_some((header[9], length))
        }
        6 => {
            let header = packet.first_chunk::<40>()?;
            (usize::from(be16(header, 4)) + 40 == packet.len()).then_some((header[6], 40))
        }
        _ => None,
    }
}

/// Sets the payload's length in an IP header, and what `change` changes in IPv4's.
fn set_length(header: &mut [u8], payload: usize, change: impl FnOnce(&mut [u8])) {
    if header[0] >> 4 == 6 {
        put(header, 4, payload as u16);
        return;
    }
    put(header, 2, (header.len() + payload) as u16);
    change(header);
    put(header, 10, 0);
    let sum = checksum::of(header);
    put(header, 10, sum);
}

/// The sum of TCP's pseudo-header.
fn pseudo_header(network: &[u8], length: usize) -> u64 {
    let addresses = if network[0] >> 4 == 4 { &network[12..20] } else { &network[8..40] };
    checksum::sum(addresses) + checksum::sum(&[0, TCP]) + checksum::sum(&(length as u32).to_be_bytes())
}

fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from(bytes[at]) << 8 | u16::from(bytes[at + 1])
}

fn put(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

#[cfg(test)]
mod tests;
