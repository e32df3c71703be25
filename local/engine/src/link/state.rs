//! What the engine knows of its link: whether it is up, and how much has passed over it.

use std::time::Instant;

use gh_net_common::frame::HEADER_LEN;

use crate::api::Transmit;

/// One link, and the bytes of packet frames that went over it.
#[derive(Debug, Default)]
pub(crate) struct Link {
    /// Since when there is no link.
    pub(super) down_since: Option<Instant>,
    pub(super) sent: u64,
    pub(super) delivered: u64,
}

impl Link {
    pub(crate) fn is_up(&self) -> bool {
        self.down_since.is_none()
    }

    /// Whether the first `total` bytes sent on this link have been delivered.
    pub(crate) fn has_delivered(&self, total: u64) -> bool {
        self.delivered >= total
    }

    /// The count of sent bytes behind `packet`, if it is sent next.
    pub(super) fn end_of(&self, packet: &Transmit) -> u64 {
        self.sent + (packet.len() + HEADER_LEN) as u64
    }
}
