//! Frames with a number, on a link with several [lanes](crate::lanes).

use bytes::{Buf, Bytes};

use super::codec::{NUMBERED, SHORT, decode_payload, header, packet_header, peek_header};
use super::types::{Frame, FrameError, HEADER_LEN};

/// The length of a number.
const NUMBER_LEN: usize = 8;

/// The [header](packet_header) of a packet frame with this number.
pub fn numbered_packet_header(number: u64, len: usize) -> [u8; 2 * HEADER_LEN + NUMBER_LEN] {
    let mut bytes = [0; 2 * HEADER_LEN + NUMBER_LEN];
    let (outer, rest) = bytes.split_at_mut(HEADER_LEN);
    let (at_number, inner) = rest.split_at_mut(NUMBER_LEN);
    outer.copy_from_slice(&header(NUMBERED, NUMBER_LEN + HEADER_LEN + len));
    at_number.copy_from_slice(&number.to_be_bytes());
    inner.copy_from_slice(&packet_header(len));
    bytes
}

impl Frame {
    /// Whether the frame is about the link itself and not of the session. Such a frame has no number.
    pub fn is_of_link(&self) -> bool {
        matches!(
            self,
            Self::Delivered { .. } | Self::Ping(_) | Self::Pong(_) | Self::Quiet(_) | Self::WantLane
        )
    }

    /// The frame within a [`Frame::Numbered`]; `None` if it is of an unknown kind.
    ///
    /// # Errors
    /// It is not exactly one frame that may have a number.
    pub fn decode_numbered(mut bytes: Bytes) -> Result<Option<Self>, FrameError> {
        let malformed = |what| FrameError::Malformed { kind: NUMBERED, what };
        let (kind, length) = peek_header(&bytes)?.ok_or_else(|| malformed(SHORT))?;
        bytes.advance(HEADER_LEN);
        if bytes.len() != length {
            return Err(malformed("it is not one whole frame"));
        }
        let frame = decode_payload(kind, bytes)?;
        if frame.as_ref().is_some_and(|frame| frame.is_of_link() || matches!(frame, Self::Numbered(..))) {
            return Err(malformed("such a frame has no number"));
        }
        Ok(frame)
    }
}
