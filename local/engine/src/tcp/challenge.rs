//! Challenge acknowledgments: the answers to segments that may be forged, and their limits (RFC 5961, 7). Without limits a
//! program would have the engine send as much as it sends.

use std::time::{Duration, Instant};

/// The shortest time between two challenges of one connection (Linux's `tcp_invalid_ratelimit`).
const INTERVAL: Duration = Duration::from_millis(500);
/// Challenges of all connections in a second.
const MOST: u32 = 1000;
const SECOND: Duration = Duration::from_secs(1);

/// The challenges of one connection.
#[derive(Debug, Default)]
pub(super) struct Challenges {
    /// When the last one was due.
    last: Option<Instant>,
    /// Whether one is due that the engine has not admitted yet.
    wanted: bool,
}

impl Challenges {
    /// The last segment deserves one.
    pub(super) fn want(&mut self, now: Instant) {
        if self.last.is_none_or(|last| now.saturating_duration_since(last) >= INTERVAL) {
            (self.last, self.wanted) = (Some(now), true);
        }
    }

    /// Whether one is wanted, once.
    pub(super) fn take(&mut self) -> bool {
        std::mem::take(&mut self.wanted)
    }
}

/// The limit for all connections.
#[derive(Debug, Default)]
pub(crate) struct ChallengeLimit {
    began: Option<Instant>,
    count: u32,
}

impl ChallengeLimit {
    /// Whether another one may be sent.
    pub(crate) fn admits(&mut self, now: Instant) -> bool {
        if self.began.is_none_or(|began| now.saturating_duration_since(began) >= SECOND) {
            *self = Self { began: Some(now), count: 0 };
        }
        self.count += 1;
        self.count <= MOST
    }
}
