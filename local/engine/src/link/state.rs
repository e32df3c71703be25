//! What the engine knows of its link: whether it is up, and how much has passed over it.

use std::time::Instant;

use gh_net_common::frame::HEADER_LEN;

use crate::api::Transmit;

/// Bytes of small packets that may be ahead of the link's window, and of everything else: about what waits in front of them
/// anyway. Twice as many may be under way.
const AHEAD: u64 = 64 * 1024;

/// The small packets of one kind that went ahead. Whoever causes them in bulk must not crowd out what the window orders.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// Bytes that went ahead since the count began.
    bytes: u64,
    /// The first of them ends here on the link. Once that is delivered, the count begins again.
    until: u64,
}

impl Ahead {
    /// Whether another one may go ahead.
    pub(super) fn has_room(&self, link: &Link) -> bool {
        self.bytes < AHEAD || link.has_delivered(self.until)
    }

    /// One that ends at `end` on the link has gone ahead.
    pub(super) fn sent(&mut self, bytes: usize, end: u64, delivered: u64) {
        if self.bytes == 0 || delivered >= self.until {
            *self = Self { bytes: 0, until: end };
        }
        self.bytes += bytes as u64;
    }
}

/// One link, and the bytes of packet frames that went over it.
#[derive(Debug, Default)]
pub(crate) struct Link {
    /// Since when there is no link.
    pub(super) down_since: Option<Instant>,
    /// Whether nothing passes unless it must.
    pub(crate) quiet: bool,
    pub(super) sent: u64,
    pub(super) delivered: u64,
    /// The engine's own small packets.
    pub(super) urgent: Ahead,
    /// Segments without payload.
    pub(super) control: Ahead,
}

/// What a flow's timer has to know of the link.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Line {
    /// Whether everything sent has come through. What has not is delayed, not lost, and sending it again would delay it
    /// more.
    pub(crate) delivered: bool,
    /// Whether nothing passes unless it must.
    pub(crate) quiet: bool,
}

impl Link {
    pub(crate) fn is_up(&self) -> bool {
        self.down_since.is_none()
    }

    /// How the link stands for a flow that has sent the first `total` bytes.
    pub(crate) fn line(&self, total: u64) -> Line {
        Line { delivered: self.has_delivered(total), quiet: self.quiet }
    }

    /// Whether the first `total` bytes sent on this link have been delivered.
    fn has_delivered(&self, total: u64) -> bool {
        self.delivered >= total
    }

    /// The count of sent bytes behind `packet`, if it is sent next.
    pub(super) fn end_of(&self, packet: &Transmit) -> u64 {
        self.sent + (packet.len() + HEADER_LEN) as u64
    }
}
