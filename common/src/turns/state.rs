//! Who has turns, who waits, and how earlier turns went. Pure. `T` is what who waits is sent once there is a turn.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::mem;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::types::{Group, Limits, Refused};

/// Turns of a part that were in vain, one after the other, before it is held down. More than any program asks for at
/// once, so that only a flood, or a long silence, gets there.
pub const IN_VAIN: u32 = 8;
/// How long a part is held down after the last turn that was in vain.
pub const HELD_DOWN: Duration = Duration::from_secs(10);

/// How long it counts that a part was served.
const LATELY: Duration = Duration::from_secs(300);
/// Parts that may wait at a time: whoever gives back a turn looks at all of them.
const MAX_PARTS: usize = 128;
/// The same with those that were served lately.
const MAX_PARTS_WITH_SERVED: usize = 256;
/// Parts whose turns are remembered, in each of two generations.
const MAX_RECORDS: usize = 2048;
/// Minimum time between two looks of those who wait.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Identifies a turn, and one who waits. They count up, so the first is the oldest.
pub(super) type Ticket = u64;

/// A turn that begins.
#[derive(Debug)]
pub(super) struct Grant<T> {
    pub(super) ticket: Ticket,
    pub(super) group: Group,
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

/// How the latest turns of a part went.
#[derive(Debug, Clone, Copy)]
struct Record {
    at: Instant,
    /// Turns in vain since one was served.
    in_vain: u32,
}

#[derive(Debug)]
struct Running {
    group: Group,
    since: Instant,
    /// `None` once it was told to end.
    evict: Option<oneshot::Sender<()>>,
}

#[derive(Debug)]
struct Waiter<T> {
    ticket: Ticket,
    taker: oneshot::Sender<T>,
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
    waiting: HashMap<Group, VecDeque<Waiter<T>>>,
    waiters: HashMap<Ticket, Group>,
    records: [HashMap<Group, Record>; 2],
    looked: Option<Instant>,
}

impl<T> State<T> {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            next: 0,
            running: BTreeMap::new(),
            counts: HashMap::new(),
            ending: 0,
            waiting: HashMap::new(),
            waiters: HashMap::new(),
            records: Default::default(),
            looked: None,
        }
    }

    pub(super) fn enter(&mut self, group: Group, now: Instant) -> Entry<T> {
        let others = self.count(group.part) > 0 || self.waiting.contains_key(&group);
        if others && self.is_held_down(group, now) {
            return Entry::Refused(Refused::InVain);
        }
        if self.may_run(group, now) {
            return Entry::Turn(self.run(group, None, now));
        }
        self.make_place(group);
        if !self.may_wait(group, now) {
            return Entry::Refused(Refused::Crowded);
        }
        let ticket = self.ticket();
        let (taker, turn) = oneshot::channel();
        self.waiting.entry(group).or_default().push_back(Waiter { ticket, taker });
        self.waiters.insert(ticket, group);
        self.make_room(now);
        Entry::Waiting(ticket, turn)
    }

    /// Why one who waited was refused.
    pub(super) fn refusal(&self, group: Group, now: Instant) -> Refused {
        if self.is_held_down(group, now) { Refused::InVain } else { Refused::Crowded }
    }

    /// One who waited has a turn, or has given up.
    pub(super) fn leave(&mut self, ticket: Ticket) {
        let Some(group) = self.waiters.remove(&ticket) else { return };
        if let Some(waiters) = self.waiting.get_mut(&group) {
            waiters.retain(|waiter| waiter.ticket != ticket);
            if waiters.is_empty() {
                self.waiting.remove(&group);
            }
        }
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
        while let Some(group) = self.next(|group| self.may_run(group, now), now) {
            let Some(waiters) = self.waiting.get_mut(&group) else { break };
            let waiter = waiters.pop_front();
            if waiters.is_empty() {
                self.waiting.remove(&group);
            }
            let Some(Waiter { ticket, taker }) = waiter else { break };
            self.waiters.remove(&ticket);
            grants.push(self.run(group, Some(taker), now));
        }
        self.make_room(now);
        grants
    }

    /// Looks, for one who waits, whether a turn has lasted too long by now.
    pub(super) fn look(&mut self, now: Instant) {
        if self.looked.is_none_or(|looked| now.saturating_duration_since(looked) >= LOOK_AGAIN) {
            self.looked = Some(now);
            self.make_room(now);
        }
    }

    /// Notes how a turn went. Those who wait for another one of a part that is held down now wait in vain.
    pub(super) fn record(&mut self, group: Group, served: bool, now: Instant) {
        let before = self.recorded(group).map_or(0, |record| record.in_vain);
        let in_vain = if served { 0 } else { before.saturating_add(1) };
        let [latest, earlier] = &mut self.records;
        if latest.len() >= MAX_RECORDS && !latest.contains_key(&group) {
            *earlier = mem::take(latest);
        }
        latest.insert(group, Record { at: now, in_vain });
        if self.is_held_down(group, now) {
            self.refuse(group);
        }
    }

    pub(super) fn forget(&mut self) {
        self.records = Default::default();
    }

    /// How many have a turn, and how many wait.
    #[cfg(test)]
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.running.len(), self.waiters.len())
    }

    fn run(&mut self, group: Group, taker: Option<oneshot::Sender<T>>, now: Instant) -> Grant<T> {
        let ticket = self.ticket();
        let (evict, evicted) = oneshot::channel();
        self.running.insert(ticket, Running { group, since: now, evict: Some(evict) });
        for key in [group.whole, group.part] {
            *self.counts.entry(key).or_default() += 1;
        }
        Grant { ticket, group, evicted, taker }
    }

    fn ticket(&mut self) -> Ticket {
        self.next += 1;
        self.next
    }

    /// The turns of a group or a part.
    fn count(&self, key: u64) -> usize {
        self.counts.get(&key).copied().unwrap_or_default()
    }

    fn recorded(&self, group: Group) -> Option<Record> {
        self.records.iter().find_map(|records| records.get(&group)).copied()
    }

    fn was_served(&self, group: Group, now: Instant) -> bool {
        let served = self.recorded(group).filter(|record| record.in_vain == 0);
        served.is_some_and(|record| now.saturating_duration_since(record.at) < LATELY)
    }

    fn is_held_down(&self, group: Group, now: Instant) -> bool {
        let in_vain = self.recorded(group).filter(|record| record.in_vain >= IN_VAIN);
        self.limits.hold_down
            && in_vain.is_some_and(|record| now.saturating_duration_since(record.at) < HELD_DOWN)
    }

    fn may_run(&self, group: Group, now: Instant) -> bool {
        let free = self.limits.turns.saturating_sub(self.running.len());
        free > 0
            && (free > self.limits.reserved || self.was_served(group, now))
            && self.count(group.whole) < self.limits.per_group
    }

    fn may_wait(&self, group: Group, now: Instant) -> bool {
        let parts = if self.was_served(group, now) { MAX_PARTS_WITH_SERVED } else { MAX_PARTS };
        self.waiters.len() < self.limits.waiting
            && (self.waiting.len() < parts || self.waiting.contains_key(&group))
    }

    /// If there is no place for another one to wait, whoever has most makes it.
    fn make_place(&mut self, group: Group) {
        self.make_place_for_part(group);
        if self.waiters.len() < self.limits.waiting {
            return;
        }
        let ours = self.waiting.get(&group).map_or(0, VecDeque::len);
        let others = self.waiting.values_mut().filter(|waiters| waiters.len() > ours + 1);
        // The newest: the others have waited longer.
        if let Some(waiter) = others.max_by_key(|waiters| waiters.len()).and_then(VecDeque::pop_back) {
            self.waiters.remove(&waiter.ticket);
        }
    }

    /// If too many parts wait, one of the group with the most makes place for another group's.
    fn make_place_for_part(&mut self, group: Group) {
        if self.waiting.len() < MAX_PARTS || self.waiting.contains_key(&group) {
            return;
        }
        let mut parts = HashMap::<u64, usize>::new();
        for waiting in self.waiting.keys() {
            *parts.entry(waiting.whole).or_default() += 1;
        }
        let ours = parts.get(&group.whole).copied().unwrap_or_default();
        let Some((&most, _)) =
            parts.iter().filter(|(_, count)| **count > ours + 1).max_by_key(|(_, count)| **count)
        else {
            return;
        };
        if let Some(part) = self.waiting.keys().find(|part| part.whole == most).copied() {
            self.refuse(part);
        }
    }

    /// Refuses all who wait for this part.
    fn refuse(&mut self, part: Group) {
        for waiter in self.waiting.remove(&part).unwrap_or_default() {
            self.waiters.remove(&waiter.ticket);
        }
    }

    /// Of those who wait and are `eligible`, the group that is to have the next turn.
    fn next(&self, eligible: impl Fn(Group) -> bool, now: Instant) -> Option<Group> {
        let groups = self.waiting.iter().filter(|(group, _)| eligible(**group));
        let (group, _) = groups.min_by_key(|(group, waiters)| {
            let first = waiters.front().map(|waiter| waiter.ticket);
            (self.count(group.whole), self.count(group.part), !self.was_served(**group, now), first)
        })?;
        Some(*group)
    }

    /// Takes a turn away if one has lasted too long and whoever is next has fewer. One at a time: it ends at once.
    fn make_room(&mut self, now: Instant) {
        let Some(evict_after) = self.limits.evict_after else { return };
        if self.ending > 0 || self.running.len() < self.limits.turns {
            return;
        }
        let Some(next) = self.next(|_| true, now) else { return };
        let (whole, part) = (self.count(next.whole), self.count(next.part));
        let too_long = self.running.iter().filter(|(_, running)| {
            let Group { whole: theirs, part: part_of_theirs } = running.group;
            let has_more = match theirs == next.whole {
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
