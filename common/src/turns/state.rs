//! Who has turns, who waits, and how earlier turns went. Pure. `T` is what who waits is sent once there is a turn.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::names::Names;
use super::records::Records;
use super::types::{Group, Limits, Outcome, Refused, Ticket};
use super::waiting::{Waiter, Waiting};

/// Turns of a part that were in vain, one after the other, before it is held down. More than any program asks for at
/// once, so that only a flood, or a long silence, gets there.
pub const IN_VAIN: u32 = 8;
/// How long a part is held down after the last turn that was in vain. A part of which anything was answered within this time is
/// not held down: it may answer others than those who make up names.
pub const HELD_DOWN: Duration = Duration::from_secs(10);

/// Parts that may wait at a time: whoever gives back a turn looks at all of them.
const MAX_PARTS: usize = 128;
/// The same with those that were served lately.
const MAX_PARTS_WITH_SERVED: usize = 256;

/// A turn that begins.
#[derive(Debug)]
pub(super) struct Grant<T> {
    pub(super) ticket: Ticket,
    pub(super) group: Group,
    /// When the turn may be taken away.
    pub(super) overdue: Option<Instant>,
    /// Fires when the turn is taken away.
    pub(super) evicted: oneshot::Receiver<()>,
    /// Who waited for it.
    pub(super) taker: Option<oneshot::Sender<T>>,
}

/// What becomes of one who comes.
#[derive(Debug)]
pub(super) enum Entry<T> {
    Turn(Grant<T>),
    Waiting(Ticket, oneshot::Receiver<T>),
    Refused(Refused),
}

#[derive(Debug)]
struct Running {
    group: Group,
    /// Whether its name was served lately.
    known: bool,
    since: Instant,
    /// `None` once it was told to end.
    evict: Option<oneshot::Sender<()>>,
}

/// Who has the next turn.
#[derive(Debug, Clone, Copy)]
struct Next {
    whole: u64,
    part: u64,
    /// Whether one of those who wait is for a name that was served lately.
    known: bool,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct State<T> {
    limits: Limits,
    next: Ticket,
    running: BTreeMap<Ticket, Running>,
    /// Turns of each group and of each part that has any.
    counts: HashMap<u64, usize>,
    /// Running turns that were told to end.
    ending: usize,
    waiting: Waiting<T>,
    /// How turns of each part went.
    parts: Records,
    /// Names that were served lately.
    names: Names,
}

impl<T> State<T> {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            next: 0,
            running: BTreeMap::new(),
            counts: HashMap::new(),
            ending: 0,
            waiting: Waiting::default(),
            parts: Records::default(),
            names: Names::default(),
        }
    }

    pub(super) fn enter(&mut self, group: Group, now: Instant) -> Entry<T> {
        let known = self.names.contains(group.name, now);
        let others = self.count(group.part) > 0 || self.waiting.of(group.part) > 0;
        if others && !known && self.is_held_down(group.part, now) {
            return Entry::Refused(Refused::InVain);
        }
        let served = known || self.parts.was_served(group.part, now);
        if self.may_run(group.whole, served) {
            return Entry::Turn(self.run(group, known, None, now));
        }
        self.make_place(group);
        if !self.may_wait(group.part, served) {
            return Entry::Refused(Refused::Crowded);
        }
        let ticket = self.ticket();
        let (taker, turn) = oneshot::channel();
        self.waiting.add(ticket, Waiter { group, known, taker });
        self.make_room(now);
        Entry::Waiting(ticket, turn)
    }

    /// Why one who waited was refused.
    pub(super) fn refusal(&self, group: Group, now: Instant) -> Refused {
        if self.is_held_down(group.part, now) { Refused::InVain } else { Refused::Crowded }
    }

    /// One who waited has a turn, or has given up.
    pub(super) fn leave(&mut self, ticket: Ticket) {
        self.waiting.leave(ticket);
    }

    /// A turn is given back. Returns the turns that begin.
    pub(super) fn release(&mut self, ticket: Ticket, group: Group, now: Instant) -> Vec<Grant<T>> {
        if let Some(running) = self.running.remove(&ticket) {
            self.ending -= usize::from(running.evict.is_none());
            for key in [group.whole, group.part] {
                if let Some(count) = self.counts.get_mut(&key) {
                    *count -= 1;
                    if *count == 0 {
                        self.counts.remove(&key);
                    }
                }
            }
        }
        let mut grants = Vec::new();
        while let Some(next) = self.next(|whole, served| self.may_run(whole, served), now) {
            // The oldest of many that are in vain have waited for about as long as their clients do.
            let newest_first = self.is_in_vain(next.part, now);
            let Some(Waiter { group, known, taker }) = self.waiting.take(next.part, newest_first) else {
                break;
            };
            grants.push(self.run(group, known, Some(taker), now));
        }
        self.make_room(now);
        grants
    }

    /// Notes how a turn went. Those who wait for another one of a part that is held down now wait in vain.
    pub(super) fn record(&mut self, group: Group, outcome: Outcome, now: Instant) {
        self.parts.add(group.part, outcome, now);
        match outcome {
            Outcome::Served => self.names.add(group, now),
            // Who makes up names gets such answers for each of them.
            Outcome::Answered => {}
            Outcome::InVain => self.names.remove(group.name),
        }
        if self.is_held_down(group.part, now) {
            self.waiting.refuse_others(group.part);
        }
    }

    pub(super) fn forget(&mut self) {
        (self.parts, self.names) = Default::default();
    }

    /// How many have a turn, and how many wait.
    #[cfg(test)]
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.running.len(), self.waiting.len())
    }

    fn run(
        &mut self,
        group: Group,
        known: bool,
        taker: Option<oneshot::Sender<T>>,
        now: Instant,
    ) -> Grant<T> {
        let ticket = self.ticket();
        let (evict, evicted) = oneshot::channel();
        self.running.insert(ticket, Running { group, known, since: now, evict: Some(evict) });
        for key in [group.whole, group.part] {
            *self.counts.entry(key).or_default() += 1;
        }
        let overdue = self.limits.evict_after.map(|time| now + time);
        Grant { ticket, group, overdue, evicted, taker }
    }

    fn ticket(&mut self) -> Ticket {
        self.next += 1;
        self.next
    }

    /// The turns of a group or a part.
    fn count(&self, key: u64) -> usize {
        self.counts.get(&key).copied().unwrap_or_default()
    }

    /// Whether the latest turns of this part were in vain.
    fn is_in_vain(&self, part: u64, now: Instant) -> bool {
        let in_vain = self.parts.find(part).filter(|record| record.in_vain >= IN_VAIN);
        in_vain.is_some_and(|record| now.saturating_duration_since(record.at) < HELD_DOWN)
    }

    fn is_held_down(&self, part: u64, now: Instant) -> bool {
        let answered = self.parts.find(part).and_then(|record| record.answered);
        self.limits.hold_down
            && self.is_in_vain(part, now)
            && answered.is_none_or(|answered| now.saturating_duration_since(answered) >= HELD_DOWN)
    }

    /// Whether there is a turn for the group, of which the name or the part was `served` lately.
    fn may_run(&self, whole: u64, served: bool) -> bool {
        let free = self.limits.turns.saturating_sub(self.running.len());
        free > 0 && (free > self.limits.reserved || served) && self.count(whole) < self.limits.per_group
    }

    fn may_wait(&self, part: u64, served: bool) -> bool {
        let parts = if served { MAX_PARTS_WITH_SERVED } else { MAX_PARTS };
        self.waiting.len() < self.limits.waiting
            && (self.waiting.parts().len() < parts || self.waiting.of(part) > 0)
    }

    /// If there is no place for another one to wait, whoever has most makes it.
    fn make_place(&mut self, group: Group) {
        self.make_place_for_part(group);
        if self.waiting.len() < self.limits.waiting {
            return;
        }
        let ours = self.waiting.of(group.part);
        let others = self.waiting.parts().iter().filter(|(_, waiters)| waiters.len() > ours + 1);
        if let Some(most) = others.max_by_key(|(_, waiters)| waiters.len()).map(|(part, _)| *part) {
            self.waiting.refuse_newest(most);
        }
    }

    /// If too many parts wait, one of the group with the most makes place for another group's.
    fn make_place_for_part(&mut self, group: Group) {
        if self.waiting.parts().len() < MAX_PARTS || self.waiting.of(group.part) > 0 {
            return;
        }
        let mut parts = HashMap::<u64, usize>::new();
        for waiters in self.waiting.parts().values() {
            *parts.entry(waiters.whole()).or_default() += 1;
        }
        let ours = parts.get(&group.whole).copied().unwrap_or_default();
        let Some((&most, _)) =
            parts.iter().filter(|(_, count)| **count > ours + 1).max_by_key(|(_, count)| **count)
        else {
            return;
        };
        let part = self.waiting.parts().iter().find(|(_, waiters)| waiters.whole() == most);
        if let Some(part) = part.map(|(part, _)| *part) {
            self.waiting.refuse(part);
        }
    }

    /// Of those who wait and are `eligible`, given their group and whether they were served lately, who has the next turn.
    fn next(&self, eligible: impl Fn(u64, bool) -> bool, now: Instant) -> Option<Next> {
        let parts = self.waiting.parts().iter().filter_map(|(&part, waiters)| {
            let (whole, known) = (waiters.whole(), waiters.has_known());
            let served = known || self.parts.was_served(part, now);
            let order = (self.count(whole), self.count(part), !served, waiters.first());
            eligible(whole, served).then_some((order, Next { whole, part, known }))
        });
        parts.min_by_key(|(order, _)| *order).map(|(_, next)| next)
    }

    /// Takes a turn away if one has lasted too long and whoever is next has fewer, or is for a name that was served lately,
    /// unlike that turn of its part. One at a time: it ends at once.
    pub(super) fn make_room(&mut self, now: Instant) {
        let Some(evict_after) = self.limits.evict_after else { return };
        if self.ending > 0 || self.running.len() < self.limits.turns {
            return;
        }
        let Some(next) = self.next(|_, _| true, now) else { return };
        let (whole, part) = (self.count(next.whole), self.count(next.part));
        let too_long = self.running.iter().filter(|(_, running)| {
            let Group { whole: theirs, part: part_of_theirs, .. } = running.group;
            let has_more = match theirs == next.whole {
                true if part_of_theirs == next.part => next.known && !running.known,
                true => self.count(part_of_theirs) > part,
                false => self.count(theirs) > whole,
            };
            has_more && now.saturating_duration_since(running.since) >= evict_after
        });
        // Of several that have as much, the oldest.
        let most = too_long.max_by_key(|(ticket, running)| {
            (self.count(running.group.whole), self.count(running.group.part), Reverse(**ticket))
        });
        if let Some(ticket) = most.map(|(&ticket, _)| ticket)
            && let Some(running) = self.running.get_mut(&ticket)
            && let Some(evict) = running.evict.take()
        {
            self.ending += 1;
            let _ended = evict.send(());
        }
    }
}
