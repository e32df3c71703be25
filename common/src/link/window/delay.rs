//! How long what is sent waits on its way, and how long the way is without that.
//!
//! The wait is the one-way delay above the shortest one. The other end says when it received, by its own clock; what is
//! between the clocks is in every delay and cancels out (as in LEDBAT, RFC 6817). So a report that waits behind what the
//! other end sends is late, but does not tell of a longer wait.

use std::time::{Duration, Instant};

/// How long the shortest delay counts (BBR: 10 s). Clocks that differ by 100 ppm move it by 1 ms.
const AGE: Duration = Duration::from_secs(10);
/// The shortest delay is in doubt if for this time, and this many round trips, all that was sent waited longer than a full
/// window explains.
const DOUBT: Duration = Duration::from_millis(250);
const DOUBT_TRIPS: u32 = 4;

/// How many latest round trips are averaged.
const AVERAGE: u32 = 8;

/// See the [module's documentation](self).
#[derive(Debug, Default)]
pub(super) struct Delay {
    /// The shortest delay in microseconds, with the difference of the clocks, and when it was seen.
    base: Option<(i64, Instant)>,
    /// The round trip without the wait: an average.
    trip: Option<Duration>,
    doubt: Option<Instant>,
    probe: Option<Probe>,
}

/// A measurement of the delay with little under way.
#[derive(Debug, Clone, Copy)]
enum Probe {
    /// Until little is under way.
    Draining,
    /// Until something arrives that was sent behind this position.
    Timing(u64),
}

impl Delay {
    /// The round trip of what does not wait.
    pub(super) fn trip(&self) -> Option<Duration> {
        self.trip
    }

    pub(super) fn is_probing(&self) -> bool {
        self.probe.is_some()
    }

    /// A round trip that may include waits. It counts until something else was timed.
    pub(super) fn measured(&mut self, trip: Duration) {
        self.trip.get_or_insert(trip);
    }

    /// What was sent before the position `end` took `delay` microseconds to arrive, and `trip` to be reported. Returns how
    /// long it waited.
    pub(super) fn timed(&mut self, delay: i64, trip: Duration, end: u64, now: Instant) -> Duration {
        if let Some(Probe::Timing(from)) = self.probe
            && end > from
        {
            *self = Self::default();
        }
        if self.base.is_none() {
            // What a ping measured no longer counts.
            self.trip = None;
        }
        let base = self.base.map_or(delay, |(base, _)| base.min(delay));
        if base == delay {
            self.base = Some((base, now));
        }
        let wait = Duration::from_micros(delay.saturating_sub(base) as u64);
        let rest = trip.saturating_sub(wait);
        self.trip = Some(self.trip.map_or(rest, |trip| (trip * (AVERAGE - 1) + rest) / AVERAGE));
        wait
    }

    /// In a round, all that was sent waited for the time `queue` or longer; a full window explains the time `longest`.
    /// Begins a probe if that can't be, or if the shortest delay is old.
    pub(super) fn check(&mut self, queue: Duration, longest: Duration, now: Instant) {
        let (Some((_, at)), Some(trip), None) = (self.base, self.trip, self.probe) else { return };
        if queue <= longest {
            self.doubt = None;
        }
        let doubt = queue > longest && {
            let since = *self.doubt.get_or_insert(now);
            now.saturating_duration_since(since) >= DOUBT.max(trip.saturating_mul(DOUBT_TRIPS))
        };
        if doubt || now.saturating_duration_since(at) >= AGE {
            self.probe = Some(Probe::Draining);
        }
    }

    /// Whether a probe's window has `room`, when `sent` bytes were sent in all.
    pub(super) fn drain(&mut self, room: bool, sent: u64) {
        if room && matches!(self.probe, Some(Probe::Draining)) {
            self.probe = Some(Probe::Timing(sent));
        }
    }
}
