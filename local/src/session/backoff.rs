//! How long to wait before the next attempt to connect. Pure: the caller provides the randomness.

use std::time::Duration;

/// The first wait at most.
const FIRST: Duration = Duration::from_millis(250);
/// Any wait at most.
const MOST: Duration = Duration::from_secs(30);

/// Waits that double, each shortened by up to half at random: laptops that lost the same network must not all come
/// back at the same moments.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
}

impl Backoff {
    /// A backoff before its first wait.
    pub(super) fn new() -> Self {
        Self { next: FIRST }
    }

    /// The next wait; `random` may be any number.
    pub(super) fn wait(&mut self, random: u64) -> Duration {
        let full = self.next;
        self.next = (full * 2).min(MOST);
        full / 2 + (full / 2).mul_f64((random % 1024) as f64 / 1023.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound_and_are_shortened_by_half_at_most() {
        for random in [0, 1023, 512, u64::MAX] {
            let mut backoff = Backoff::new();
            let waits: Vec<_> = (0..12).map(|_| backoff.wait(random)).collect();
            assert!(waits[0] >= FIRST / 2 && waits[0] <= FIRST, "{waits:?}");
            assert!(waits.is_sorted(), "{waits:?}");
            assert!(waits[11] >= MOST / 2 && waits[11] <= MOST, "{waits:?}");
        }
    }
}
