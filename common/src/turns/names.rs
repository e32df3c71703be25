//! Names that were served lately. Bounded: if they are too many, the group with most of them gives way, its part with
//! most, and there the name that was served longest ago. So nobody displaces the names of others by names of its own,
//! such as those below a wildcard.

use std::collections::{BTreeMap, HashMap};

use tokio::time::Instant;

use super::records::LATELY;
use super::shares::Shares;
use super::types::Group;

/// Names that are remembered.
pub(super) const MAX_NAMES: usize = 4096;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Names {
    next: u64,
    numbers: HashMap<u64, u64>,
    served: BTreeMap<u64, (Group, Instant)>,
    shares: Shares<2>,
}

impl Names {
    pub(super) fn add(&mut self, group: Group, now: Instant) {
        self.remove(group.name);
        self.next += 1;
        self.numbers.insert(group.name, self.next);
        self.served.insert(self.next, (group, now));
        self.shares.add(path(group), self.next);
        if self.served.len() > MAX_NAMES
            && let Some(name) = self.gives_way()
        {
            self.remove(name);
        }
    }

    pub(super) fn remove(&mut self, name: u64) {
        if let Some(number) = self.numbers.remove(&name)
            && let Some((group, _)) = self.served.remove(&number)
        {
            self.shares.remove(path(group), number);
        }
    }

    pub(super) fn contains(&self, name: u64, now: Instant) -> bool {
        let served = self.numbers.get(&name).and_then(|number| self.served.get(number));
        served.is_some_and(|(_, at)| now.saturating_duration_since(*at) < LATELY)
    }

    fn gives_way(&self) -> Option<u64> {
        let (group, _) = self.served.get(&self.shares.gives_way()?)?;
        Some(group.name)
    }
}

fn path(group: Group) -> [u64; 2] {
    [group.whole, group.part]
}
