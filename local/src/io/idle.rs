//! When a link on which no payload passes is made quiet. Pure.
//!
//! Payload is that of TCP connections and UDP mappings. Keepalives and window probes of TCP, echo requests, ICMP errors and
//! name lookups do not count: programs send them for as long as they run.

use std::time::{Duration, Instant};

/// For how long nothing but bare acknowledgments may have passed, before a link becomes quiet on which payload last
/// passed long ago: one that was woken by a name lookup need not stay awake for the whole time-out.
/// It is also the minimum time between two questions, each of which costs a packet for each connection.
const LINGER: Duration = Duration::from_secs(5);

/// For how long no payload may pass until the link becomes quiet. Zero: it never does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdleTimeout(pub Duration);

impl IdleTimeout {
    /// When the link is to become quiet, if payload last passed at `active`, anything but bare acknowledgments at
    /// `exchange`, and the sidecar was `asked` before on this link.
    pub(super) fn due(
        self,
        active: Option<Instant>,
        exchange: Option<Instant>,
        asked: Option<Instant>,
    ) -> Option<Instant> {
        let Self(timeout) = self;
        if timeout.is_zero() {
            return None;
        }
        // Beyond the end of the clock is never.
        let idle = active?.checked_add(timeout)?;
        let lingers = [exchange, asked].into_iter().flatten().max()? + timeout.min(LINGER);
        Some(idle.max(lingers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn payload_counts_for_the_time_out_and_other_packets_linger() {
        let now = Instant::now();
        let timeout = IdleTimeout(60 * SECOND);
        assert_eq!(timeout.due(Some(now), Some(now), None), Some(now + 60 * SECOND));
        assert_eq!(timeout.due(Some(now), Some(now + 30 * SECOND), None), Some(now + 60 * SECOND));
        assert_eq!(timeout.due(Some(now), Some(now + 100 * SECOND), None), Some(now + 105 * SECOND));
        let asked = Some(now + 200 * SECOND);
        assert_eq!(timeout.due(Some(now), Some(now), asked), Some(now + 205 * SECOND), "not again and again");
        let short = IdleTimeout(2 * SECOND);
        assert_eq!(short.due(Some(now), Some(now + 100 * SECOND), None), Some(now + 102 * SECOND));
    }

    #[test]
    fn without_a_time_out_or_without_a_link_it_is_never_due() {
        let now = Instant::now();
        assert_eq!(IdleTimeout(Duration::ZERO).due(Some(now), Some(now), None), None);
        assert_eq!(IdleTimeout(SECOND).due(None, Some(now), None), None);
        assert_eq!(IdleTimeout(Duration::MAX).due(Some(now), Some(now), None), None);
    }
}
