//! How many refused flows get lines: a program that is refused all the time must not push the other lines out of the files.
//! Pure.

use std::time::{Duration, Instant};

use super::entry::Entry;
use crate::limit::RateLimit;

/// Lines of refused flows within [`PERIOD`]: a scan of some hosts is recorded whole, and five files of nothing else take
/// five days.
const MOST: u32 = 1000;
const PERIOD: Duration = Duration::from_secs(15 * 60);

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Denials {
    limit: RateLimit,
    /// What was left out and is not told yet.
    left_out: LeftOut,
}

#[derive(Debug, Default, Clone, Copy)]
struct LeftOut {
    lines: u64,
    packets: u64,
}

impl Denials {
    pub(super) fn new() -> Self {
        Self { limit: RateLimit::new(PERIOD, MOST), left_out: LeftOut::default() }
    }

    /// The entries to record in the place of this one: none if there is no room for it, and before it what was left out.
    pub(super) fn admit(&mut self, entry: Entry, now: Instant) -> impl Iterator<Item = Entry> + use<> {
        let is_end = matches!(entry, Entry::SessionEnd { .. });
        let packets = match &entry {
            Entry::FlowDenied { count, .. } => Some(*count),
            Entry::SessionBegin { .. }
            | Entry::SessionEnd { .. }
            | Entry::FlowOpened { .. }
            | Entry::FlowClosed { .. }
            | Entry::DenialsLeftOut { .. }
            | Entry::Lost { .. } => None,
        };
        let told = (self.left_out.lines > 0 && (is_end || self.limit.admits(now))).then(|| {
            let LeftOut { lines, packets } = std::mem::take(&mut self.left_out);
            Entry::DenialsLeftOut { lines, packets }
        });
        let is_admitted = packets.is_none_or(|packets| {
            let has_room = self.left_out.lines == 0 && self.limit.admits(now);
            if !has_room {
                self.left_out.lines += 1;
                self.left_out.packets += packets;
            }
            has_room
        });
        told.into_iter().chain(is_admitted.then_some(entry))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::tests::entries;

    fn denied() -> Entry {
        let is_denied = |entry: &Entry| matches!(entry, Entry::FlowDenied { .. });
        entries().into_iter().find(is_denied).unwrap()
    }

    fn opened() -> Entry {
        let is_opened = |entry: &Entry| matches!(entry, Entry::FlowOpened { .. });
        entries().into_iter().find(is_opened).unwrap()
    }

    #[test]
    fn what_is_left_out_of_a_flood_is_told_and_nothing_else_is_left_out() {
        let start = Instant::now();
        let mut denials = Denials::new();
        let recorded: Vec<Entry> = (0..50_000).flat_map(|_| denials.admit(denied(), start)).collect();
        assert_eq!(recorded.len(), MOST as usize);
        // Other lines are not limited, and wait for nothing.
        for _ in 0..2 * MOST {
            assert_eq!(denials.admit(opened(), start).collect::<Vec<_>>(), [opened()]);
        }
        // Each refusal was one of three packets.
        let left_out = Entry::DenialsLeftOut { lines: 49_000, packets: 147_000 };
        let later = start + PERIOD;
        assert_eq!(denials.admit(denied(), later).collect::<Vec<_>>(), [left_out, denied()]);
        let recorded = (0..MOST).flat_map(|_| denials.admit(denied(), later)).count();
        assert_eq!(recorded, MOST as usize - 2);
        let left_out = Entry::DenialsLeftOut { lines: 2, packets: 6 };
        let end = Entry::SessionEnd { error: None };
        assert_eq!(denials.admit(end.clone(), later).collect::<Vec<_>>(), [left_out, end]);
    }
}
