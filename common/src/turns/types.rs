//! Who wants a turn, within which bounds, and why there is none.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::LazyLock;
use std::time::Duration;

/// The bounds of [`Turns`](super::Turns).
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Turns at a time.
    pub turns: usize,
    /// How many of them one group may have.
    pub per_group: usize,
    /// How many of them are only for parts that were served lately.
    pub reserved: usize,
    /// How many may wait.
    pub waiting: usize,
    /// A turn of a busy group may be taken away after this time; `None` where work can't be ended.
    pub evict_after: Option<Duration>,
    /// Whether parts that are in vain are held down.
    pub hold_down: bool,
}

/// Identifies a turn, and one who waits. They count up, so the first is the oldest.
pub(super) type Ticket = u64;

/// Who wants a turn. Keyed hashes stand for the names, so that a group costs the same whatever its name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Group {
    pub(super) whole: u64,
    pub(super) part: u64,
    pub(super) name: u64,
}

impl Group {
    /// Stands for the whole: for a name, its domain.
    #[must_use]
    pub fn domain(self) -> u64 {
        self.whole
    }

    /// Stands for the part: for a name, its zone.
    #[must_use]
    pub fn zone(self) -> u64 {
        self.part
    }

    /// The group of a domain name, given by its labels in lower case. Its last two labels are the group: in most domains
    /// these have one owner. Where they have several (`co.uk`), the zones in it still share fairly. The part is the name
    /// without its first label, which for most names is the zone.
    pub fn of_name<L: AsRef<[u8]> + Hash>(labels: &[L]) -> Self {
        let owner = &labels[labels.len().saturating_sub(2)..];
        let zone = if labels.len() > 2 { &labels[1..] } else { labels };
        static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        let whole = KEY.hash_one(owner);
        Self { whole, part: KEY.hash_one((whole, zone)), name: KEY.hash_one((whole, labels, "name")) }
    }
}

/// How a turn went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It brought what was wanted: for a name, records.
    Served,
    /// It brought an answer, but not what was wanted: for a name, that there is none, or an error.
    Answered,
    /// It brought nothing.
    InVain,
}

/// Why there is no turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Its part was in vain too often.
    InVain,
    /// Too many wait.
    Crowded,
}
