//! The latest DNS lookups, for the status.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::resolver;

/// Number of lookups that are remembered.
const REMEMBERED: usize = 64;

/// One DNS lookup for the codespace.
#[derive(Debug, Clone, PartialEq)]
pub struct Lookup {
    /// The name and type, the source of the answer, and the result.
    pub lookup: resolver::Lookup,
    /// When the answer was ready.
    pub answered: Instant,
    /// How long it took.
    pub took: Duration,
}

/// A bounded list of lookups.
#[derive(Debug, Default)]
pub(super) struct Lookups(VecDeque<Lookup>);

impl Lookups {
    /// Adds a lookup, in place of the oldest if the list is full.
    pub(super) fn add(&mut self, lookup: Lookup) {
        if self.0.len() >= REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back(lookup);
    }

    /// The lookups, oldest first.
    pub(super) fn to_vec(&self) -> Vec<Lookup> {
        self.0.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_lookup_makes_room_for_the_newest() {
        let now = Instant::now();
        let mut lookups = Lookups::default();
        for number in 0..REMEMBERED + 3 {
            let lookup = resolver::Lookup {
                name: format!("host{number}."),
                kind: "A".into(),
                source: None,
                outcome: resolver::Outcome::Failed,
            };
            lookups.add(Lookup { lookup, answered: now, took: Duration::ZERO });
        }
        let lookups = lookups.to_vec();
        assert_eq!(lookups.len(), REMEMBERED);
        assert_eq!(lookups[0].lookup.name, "host3.");
    }
}
