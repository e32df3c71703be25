//! The figures that are measured of one line.

use std::collections::BTreeMap;
use std::time::Duration;

use gh_net_lab::Direction;

use crate::bench::figures::percentiles;

/// What carries bytes over the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Carrier {
    /// `ssh codespace cat`.
    Ssh,
    /// One TCP connection without a tunnel.
    Tcp,
    GhNet,
}

/// Bulk traffic through the bridge, beside which small exchanges are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Load {
    Idle,
    Up,
    Down,
    /// One stream each way.
    Both,
    Down8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Percentile {
    P50,
    P99,
}

/// A figure. Rates are in Mbit/s, times in ms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Figure {
    BulkUp(Carrier),
    BulkDown(Carrier),
    /// The rates under [`Load::Both`].
    BothUp,
    BothDown,
    Down8,
    /// Jain's index of the eight.
    Fairness,
    /// The echo of one byte through ssh alone.
    SshEcho(Percentile),
    Echo(Load, Percentile),
    /// A question that no cache answers.
    Dns(Load, Percentile),
}

/// The figures of one round, without those that failed.
pub(super) type Sample = BTreeMap<Figure, f64>;

impl Carrier {
    pub(super) const ALL: [Self; 3] = [Self::Ssh, Self::Tcp, Self::GhNet];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ssh => "raw ssh pipe",
            Self::Tcp => "bare TCP",
            Self::GhNet => "gh-net",
        }
    }
}

impl Load {
    pub(super) const ALL: [Self; 5] = [Self::Idle, Self::Up, Self::Down, Self::Both, Self::Down8];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Up => "up",
            Self::Down => "down",
            Self::Both => "both",
            Self::Down8 => "8 down",
        }
    }

    /// Its streams: direction and number.
    pub(super) fn streams(self) -> &'static [(Direction, usize)] {
        match self {
            Self::Idle => &[],
            Self::Up => &[(Direction::Up, 1)],
            Self::Down => &[(Direction::Down, 1)],
            Self::Both => &[(Direction::Up, 1), (Direction::Down, 1)],
            Self::Down8 => &[(Direction::Down, 8)],
        }
    }

    /// The figure for the rate of its streams of one direction.
    pub(super) fn rate(self, direction: Direction) -> Figure {
        match (self, direction) {
            (Self::Both, Direction::Up) => Figure::BothUp,
            (Self::Both, Direction::Down) => Figure::BothDown,
            (Self::Down8, _) => Figure::Down8,
            (Self::Idle | Self::Up | Self::Down, direction) => bulk(direction, Carrier::GhNet),
        }
    }
}

/// The rate of one stream.
pub(super) fn bulk(direction: Direction, carrier: Carrier) -> Figure {
    match direction {
        Direction::Up => Figure::BulkUp(carrier),
        Direction::Down => Figure::BulkDown(carrier),
    }
}

impl Percentile {
    pub(super) const ALL: [Self; 2] = [Self::P50, Self::P99];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::P50 => "p50",
            Self::P99 => "p99",
        }
    }
}

impl Figure {
    /// Its key in the JSON.
    pub(super) fn key(self) -> String {
        match self {
            Self::BulkUp(carrier) => format!("{}, up, Mbit/s", carrier.name()),
            Self::BulkDown(carrier) => format!("{}, down, Mbit/s", carrier.name()),
            Self::BothUp => "gh-net, both, up, Mbit/s".to_owned(),
            Self::BothDown => "gh-net, both, down, Mbit/s".to_owned(),
            Self::Down8 => "gh-net, 8 down, Mbit/s".to_owned(),
            Self::Fairness => "gh-net, 8 down, Jain's index".to_owned(),
            Self::SshEcho(percentile) => format!("raw ssh pipe, echo, idle, {}, ms", percentile.name()),
            Self::Echo(load, percentile) => {
                format!("gh-net, echo, {}, {}, ms", load.name(), percentile.name())
            }
            Self::Dns(load, percentile) => format!("gh-net, DNS, {}, {}, ms", load.name(), percentile.name()),
        }
    }
}

/// Both percentiles of some round trips, in ms. `None` without any.
pub(super) fn milliseconds(trips: Vec<Duration>) -> Option<[(Percentile, f64); 2]> {
    let (p50, p99) = percentiles(trips)?;
    Some([(Percentile::P50, p50 / 1e3), (Percentile::P99, p99 / 1e3)])
}
