//! A bound on the rate of events, log lines for example.

use std::time::{Duration, Instant};

/// Admits a number of events per period.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RateLimit {
    period: Duration,
    most: u32,
    began: Option<Instant>,
    admitted: u32,
}

impl RateLimit {
    /// Admits at most `most` events per `period`.
    pub(crate) fn new(period: Duration, most: u32) -> Self {
        Self { period, most, began: None, admitted: 0 }
    }

    /// Whether this event is admitted.
    pub(crate) fn admits(&mut self, now: Instant) -> bool {
        if self.began.is_none_or(|began| now.saturating_duration_since(began) >= self.period) {
            self.began = Some(now);
            self.admitted = 0;
        }
        self.admitted += 1;
        self.admitted <= self.most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_per_period_is_bounded() {
        let start = Instant::now();
        let mut limit = RateLimit::new(Duration::from_secs(1), 3);
        let admitted = (0..1000).filter(|_| limit.admits(start)).count();
        assert_eq!(admitted, 3);
        assert!(limit.admits(start + Duration::from_secs(1)));
    }
}
