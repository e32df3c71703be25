//! Segments of the codespace, parsed, and the answer to one that belongs to no connection.

use std::net::SocketAddr;

use bytes::Bytes;
use etherparse::{TcpOptionElement, TcpSlice};

use crate::api::Transmit;
use crate::packet::build::{self, RST};
use crate::packet::{Malformed, Packet};

/// The largest scale a peer may ask for (RFC 7323, 2.3).
const MAX_SHIFT: u8 = 14;

/// A segment from the codespace.
#[derive(Debug, Clone)]
pub(crate) struct Segment {
    pub source_port: u16,
    pub destination_port: u16,
    pub(super) sequence: u32,
    pub(super) acknowledgment: Option<u32>,
    pub syn: bool,
    pub(super) fin: bool,
    pub rst: bool,
    pub(super) window: u16,
    pub(super) mss: Option<u16>,
    pub(super) shift: Option<u8>,
    pub(super) payload: Bytes,
}

impl Segment {
    pub(crate) fn parse(packet: &Packet) -> Result<Self, Malformed> {
        let tcp = TcpSlice::from_slice(&packet.payload).map_err(|_| Malformed::Transport)?;
        if packet.transport_checksum() != 0 {
            return Err(Malformed::Checksum);
        }
        let (mut mss, mut shift) = (None, None);
        if tcp.syn() {
            // A malformed option ends the list; those before it are used (RFC 9293, 3.1).
            for option in tcp.options_iterator().map_while(Result::ok) {
                match option {
                    TcpOptionElement::MaximumSegmentSize(size) => mss = Some(size),
                    TcpOptionElement::WindowScale(scale) => shift = Some(scale.min(MAX_SHIFT)),
                    TcpOptionElement::Noop
                    | TcpOptionElement::SelectiveAcknowledgementPermitted
                    | TcpOptionElement::SelectiveAcknowledgement(..)
                    | TcpOptionElement::Timestamp(..) => {}
                }
            }
        }
        Ok(Self {
            source_port: tcp.source_port(),
            destination_port: tcp.destination_port(),
            sequence: tcp.sequence_number(),
            acknowledgment: tcp.ack().then(|| tcp.acknowledgment_number()),
            syn: tcp.syn(),
            fin: tcp.fin(),
            rst: tcp.rst(),
            window: tcp.window_size(),
            mss,
            shift,
            payload: packet.payload.slice_ref(tcp.payload()),
        })
    }

    /// Whether it asks for a new connection.
    pub(crate) fn is_opening(&self) -> bool {
        self.syn && !self.rst && self.acknowledgment.is_none()
    }

    /// Whether it is a SYN sent again, for the connection that `self` already opened.
    pub(super) fn repeats(&self, sequence: u32) -> bool {
        self.is_opening() && self.sequence == sequence
    }

    /// Whether it only acknowledges, as keepalives and their answers do.
    pub(crate) fn is_bare(&self) -> bool {
        self.occupied() == 0 && !self.rst
    }

    pub(super) fn occupied(&self) -> u64 {
        self.payload.len() as u64 + u64::from(self.syn) + u64::from(self.fin)
    }
}

/// The answer to a segment that belongs to no connection (RFC 9293, 3.10.7.1); `None` for a RST.
pub(crate) fn refusal(packet: &Packet, segment: &Segment) -> Option<Transmit> {
    if segment.rst {
        return None;
    }
    let (sequence, acknowledgment) = match segment.acknowledgment {
        Some(number) => (number, None),
        None => (0, Some(segment.sequence.wrapping_add(segment.occupied() as u32))),
    };
    let reset = reset_fields(sequence, acknowledgment);
    let from = SocketAddr::new(packet.destination, segment.destination_port);
    let to = SocketAddr::new(packet.source, segment.source_port);
    Some(build::tcp(from, to, &reset, Bytes::new()))
}

fn reset_fields(sequence: u32, acknowledgment: Option<u32>) -> build::Segment {
    build::Segment { sequence, acknowledgment, flags: RST, window: 0, mss: None, window_scale: None }
}
