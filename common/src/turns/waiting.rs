//! Those who wait, by parts. Pure.

use std::collections::{BTreeMap, HashMap};

use tokio::sync::oneshot;

use super::types::{Group, Ticket};

/// One who waits.
#[derive(Debug)]
pub(super) struct Waiter<T> {
    pub(super) group: Group,
    /// Whether its name was served lately.
    pub(super) known: bool,
    /// Is sent the turn.
    pub(super) taker: oneshot::Sender<T>,
}

/// Who waits for a turn of one part.
#[derive(Debug)]
pub(super) struct Part<T> {
    whole: u64,
    known: BTreeMap<Ticket, Waiter<T>>,
    others: BTreeMap<Ticket, Waiter<T>>,
}

impl<T> Part<T> {
    pub(super) fn whole(&self) -> u64 {
        self.whole
    }

    pub(super) fn len(&self) -> usize {
        self.known.len() + self.others.len()
    }

    pub(super) fn has_known(&self) -> bool {
        !self.known.is_empty()
    }

    /// Who has waited for longest.
    pub(super) fn first(&self) -> Option<Ticket> {
        [&self.known, &self.others].into_iter().filter_map(|some| some.keys().next()).min().copied()
    }

    fn is_empty(&self) -> bool {
        self.known.is_empty() && self.others.is_empty()
    }
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Waiting<T> {
    parts: HashMap<u64, Part<T>>,
    waiters: HashMap<Ticket, u64>,
}

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Self { parts: HashMap::new(), waiters: HashMap::new() }
    }
}

impl<T> Waiting<T> {
    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.waiters.len()
    }

    pub(super) fn parts(&self) -> &HashMap<u64, Part<T>> {
        &self.parts
    }

    /// How many wait for a part.
    pub(super) fn of(&self, part: u64) -> usize {
        self.parts.get(&part).map_or(0, Part::len)
    }

    pub(super) fn add(&mut self, ticket: Ticket, waiter: Waiter<T>) {
        let Group { whole, part, .. } = waiter.group;
        let none = || Part { whole, known: BTreeMap::new(), others: BTreeMap::new() };
        let waiters = self.parts.entry(part).or_insert_with(none);
        if waiter.known { &mut waiters.known } else { &mut waiters.others }.insert(ticket, waiter);
        self.waiters.insert(ticket, part);
    }

    /// Takes out one who has given up.
    pub(super) fn leave(&mut self, ticket: Ticket) {
        let Some(part) = self.waiters.remove(&ticket) else { return };
        self.change(part, |part| part.known.remove(&ticket).or_else(|| part.others.remove(&ticket)));
    }

    /// Takes out the next one for the part: known names first, then the one that has waited for longest, or shortest.
    pub(super) fn take(&mut self, part: u64, newest_first: bool) -> Option<Waiter<T>> {
        let (ticket, waiter) = self.change(part, |part| {
            part.known.pop_first().or_else(|| match newest_first {
                true => part.others.pop_last(),
                false => part.others.pop_first(),
            })
        })?;
        self.waiters.remove(&ticket);
        Some(waiter)
    }

    /// Refuses the newest of the part: the others have waited longer.
    pub(super) fn refuse_newest(&mut self, part: u64) {
        let newest = self.change(part, |part| part.others.pop_last().or_else(|| part.known.pop_last()));
        newest.and_then(|(ticket, _)| self.waiters.remove(&ticket));
    }

    /// Refuses all of the part.
    pub(super) fn refuse(&mut self, part: u64) {
        self.refuse_others(part);
        while self.take(part, false).is_some() {}
    }

    /// Refuses all of the part but known names.
    pub(super) fn refuse_others(&mut self, part: u64) {
        for (ticket, _) in
            self.change(part, |part| Some(std::mem::take(&mut part.others))).unwrap_or_default()
        {
            self.waiters.remove(&ticket);
        }
    }

    fn change<R>(&mut self, key: u64, change: impl FnOnce(&mut Part<T>) -> Option<R>) -> Option<R> {
        let part = self.parts.get_mut(&key)?;
        let result = change(part);
        if part.is_empty() {
            self.parts.remove(&key);
        }
        result
    }
}
