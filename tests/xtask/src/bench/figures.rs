//! The figures that are measured, and how those of several rounds are summarized.

use std::collections::BTreeMap;
use std::time::Duration;

/// A column of the table. *up* is from the codespace to the corporate network, *down* the opposite direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Figure {
    Up,
    Down,
    /// Eight streams at once.
    Down8,
    Connections,
    EchoP50,
    EchoP99,
    /// The echo while a bulk download runs.
    LoadedP50,
    LoadedP99,
}

impl Figure {
    pub(super) const ALL: [Self; 8] = [
        Self::Up,
        Self::Down,
        Self::Down8,
        Self::Connections,
        Self::EchoP50,
        Self::EchoP99,
        Self::LoadedP50,
        Self::LoadedP99,
    ];

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Down8 => "8 streams down",
            Self::Connections => "connections/s",
            Self::EchoP50 => "echo p50",
            Self::EchoP99 => "echo p99",
            Self::LoadedP50 => "loaded p50",
            Self::LoadedP99 => "loaded p99",
        }
    }

    /// A value in the figure's unit: Gbit/s, connections a second, or microseconds.
    pub(super) fn show(self, value: f64) -> String {
        match self {
            Self::Up | Self::Down | Self::Down8 => format!("{value:.2}"),
            Self::Connections | Self::EchoP50 | Self::EchoP99 | Self::LoadedP50 | Self::LoadedP99 => {
                format!("{value:.0}")
            }
        }
    }
}

/// The figures of one round of one tunnel, without those that failed or that do not apply to the tunnel.
pub(super) type Sample = BTreeMap<Figure, f64>;

/// The median of several rounds, and their range.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Spread {
    pub(super) least: f64,
    pub(super) median: f64,
    pub(super) most: f64,
}

impl Spread {
    /// The spread of a value of each round.
    pub(super) fn over<S>(rounds: &[S], value: impl Fn(&S) -> Option<f64>) -> Option<Self> {
        Self::of(rounds.iter().filter_map(value).collect())
    }

    /// `None` without any value.
    pub(super) fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_unstable_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            f64::midpoint(values[middle - 1], values[middle])
        };
        Some(Self { least, median, most })
    }
}

/// The 50th and the 99th percentile of round trips, in microseconds. The first tenth is warm-up and is left out.
///
/// `None` without round trips.
pub(super) fn percentiles(mut trips: Vec<Duration>) -> Option<(f64, f64)> {
    let trips = {
        let warm = trips.len() / 10;
        &mut trips[warm..]
    };
    trips.sort_unstable();
    // The nearest rank: the smallest value that at least `percent` of the values do not exceed.
    let at = |percent: usize| {
        let rank = (trips.len() * percent).div_ceil(100);
        trips.get(rank.checked_sub(1)?).map(|trip| trip.as_secs_f64() * 1e6)
    };
    Some((at(50)?, at(99)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn micros(values: impl IntoIterator<Item = u64>) -> Vec<Duration> {
        values.into_iter().map(Duration::from_micros).collect()
    }

    #[test]
    fn percentiles_are_nearest_ranks_without_the_first_tenth() {
        let warming_up = vec![9000; 11];
        let trips = warming_up.into_iter().chain((1..=100).rev());
        assert_eq!(percentiles(micros(trips)), Some((50.0, 99.0)));
    }

    #[test]
    fn few_trips_are_their_own_percentiles() {
        assert_eq!(percentiles(micros([])), None);
        assert_eq!(percentiles(micros([7])), Some((7.0, 7.0)));
        assert_eq!(percentiles(micros([3, 1, 2])), Some((2.0, 3.0)));
    }

    #[test]
    fn the_median_of_an_even_number_is_between_the_middle_two() {
        assert_eq!(Spread::of(vec![]), None);
        assert_eq!(Spread::of(vec![4.0, 1.0, 2.0]), Some(Spread { least: 1.0, median: 2.0, most: 4.0 }));
        assert_eq!(Spread::of(vec![4.0, 1.0, 2.0, 3.0]), Some(Spread { least: 1.0, median: 2.5, most: 4.0 }));
    }
}
