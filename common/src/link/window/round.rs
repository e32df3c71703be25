//! What is seen of the link from report to report, about once in a round trip: the rate, and the shortest wait.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::departures::Departure;

/// A round takes at least this long: in less, the schedulers of both ends decide what is seen.
const SHORTEST: Duration = Duration::from_millis(4);
/// A longer time without reports, beyond a round trip, is an outage and says nothing about the rate.
const OUTAGE: Duration = Duration::from_millis(250);
/// Most arrivals that are kept, whatever the other end's clock shows. On a line, there are some hundred in a round trip.
const MOST: usize = 1024;

/// What has arrived at the other end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival {
    /// The last that arrived as a whole.
    pub(super) departure: Departure,
    /// When, by the other end's clock, in microseconds.
    pub(super) micros: i64,
    /// When its report came.
    pub(super) reported: Instant,
}

impl Arrival {
    /// How much later `other` arrived.
    fn until(&self, other: &Self) -> Duration {
        Duration::from_micros((other.micros - self.micros).max(0) as u64)
    }

    /// The rate from here to `other`, in bytes per second.
    ///
    /// After a stall of TCP below, a whole window arrives at once. That is not the link's rate, and it was not sent at
    /// once (draft-cheng-iccrg-delivery-rate-estimation).
    fn rate_until(&self, other: &Self) -> f64 {
        let sent = other.departure.at.saturating_duration_since(self.departure.at);
        let bytes = other.departure.end - self.departure.end;
        bytes as f64 / self.until(other).max(sent).as_secs_f64()
    }
}

/// One measurement.
#[derive(Debug, Clone, Copy)]
pub(super) struct Round {
    /// The rate in bytes per second at which the other end received, or this one sent if that is less.
    pub(super) rate: f64,
    /// The shortest time that anything waited on its way to the other end.
    pub(super) queue: Duration,
    /// Whether the window was full.
    pub(super) limited: bool,
}

/// See the [module's documentation](self).
#[derive(Debug, Default)]
pub(super) struct Rounds {
    base: Option<Arrival>,
    /// What has arrived in about the latest round trip.
    recent: VecDeque<Arrival>,
    /// When the latest report came.
    reported: Option<Instant>,
    queue: Option<Duration>,
    limited: bool,
}

impl Rounds {
    /// The window is full.
    pub(super) fn note_limited(&mut self) {
        self.limited = true;
    }

    /// Nothing was under way for this `time`.
    pub(super) fn idled(&mut self, time: Duration) {
        if time >= SHORTEST / 4 {
            self.restart();
        }
    }

    /// What has been seen of this round does not count.
    pub(super) fn restart(&mut self) {
        self.base = None;
        self.recent.clear();
    }

    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.recent.len()
    }

    /// The rate of about the latest round `trip`, at any time of a round.
    pub(super) fn latest_rate(&self, trip: Duration) -> Option<f64> {
        let (first, last) = (self.recent.front()?, self.recent.back()?);
        (first.until(last) >= trip.max(SHORTEST)).then(|| first.rate_until(last))
    }

    /// Keeps what has arrived in the latest round `trip`, and one arrival before.
    fn keep(&mut self, arrival: Arrival, trip: Duration) {
        self.recent.push_back(arrival);
        let is_old = |next: &Arrival| next.until(&arrival) >= trip.max(SHORTEST);
        while self.recent.len() > MOST || self.recent.get(1).is_some_and(is_old) {
            self.recent.pop_front();
        }
    }

    /// Something arrived that had waited for the time `queue`. Returns what the round that it ends has shown; it takes as
    /// long as the `trip` or longer.
    pub(super) fn arrived(&mut self, arrival: Arrival, queue: Duration, trip: Duration) -> Option<Round> {
        let silent = self.reported.replace(arrival.reported).map(|last| arrival.reported - last);
        if silent.is_some_and(|time| time > trip + OUTAGE) {
            self.restart();
        }
        self.keep(arrival, trip);
        let Some(base) = &self.base else {
            self.begin(arrival);
            return None;
        };
        self.queue = Some(self.queue.map_or(queue, |shortest| shortest.min(queue)));
        if base.until(&arrival) < trip.max(SHORTEST) {
            return None;
        }
        let round = Round {
            rate: base.rate_until(&arrival),
            queue: self.queue.unwrap_or_default(),
            limited: self.limited,
        };
        self.begin(arrival);
        Some(round)
    }

    fn begin(&mut self, arrival: Arrival) {
        (self.base, self.queue, self.limited) = (Some(arrival), None, false);
    }
}
