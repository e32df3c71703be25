//! Names learnt from the resolver's answers: which names an address was looked up by, for as long as the answers live.
//!
//! The policy decides by them, and the status shows them. A flow keeps the names that it was admitted with, so that it
//! goes on when the table forgets them. An address that serves several names has them all.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::deadline::Pause;

/// Addresses that are known by name. Beyond that, the one whose names expire first makes room. The codespace chooses
/// what is looked up, so all of this is bounded: with the next two, the table is below 4 MiB.
const MAX_ADDRESSES: usize = 4096;
/// Names of one address. Beyond that, the one that expires first makes room.
const MAX_NAMES: usize = 8;
/// Bytes of the names of one address: flows keep them, too.
const MAX_BYTES: usize = 512;
/// Destinations of one mapping or session whose names are kept. The names of others are those in the table.
const MAX_DESTINATIONS: usize = 2;

/// How long an answer counts after its TTL. Within the TTL it may be given again by the sidecar and by other resolvers of
/// the codespace, which we don't see, and a program may connect a while after its lookup.
const GRACE: Duration = Duration::from_secs(60);
/// The longest TTL that counts. Longer ones are rare, and networks change.
const MAX_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// The names of one address, the one that was asked for last first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Names(Option<Arc<[String]>>);

impl Deref for Names {
    type Target = [String];

    fn deref(&self) -> &[String] {
        self.0.as_deref().unwrap_or_default()
    }
}

impl Names {
    /// The name that was asked for last.
    pub(super) fn latest(&self) -> Option<Arc<str>> {
        self.first().map(|name| Arc::from(name.as_str()))
    }
}

/// The names that a flow was admitted with, by destination.
#[derive(Debug, Default)]
pub(super) struct Kept(VecDeque<(SocketAddr, Names)>);

impl Kept {
    /// The flow was admitted to this destination, which had these names.
    pub(super) fn keep(&mut self, destination: SocketAddr, names: &Names) {
        match self.0.iter_mut().find(|(known, _)| *known == destination) {
            // The table may have forgotten them meanwhile.
            _ if names.is_empty() => {}
            Some((_, known)) => known.clone_from(names),
            None => {
                self.0.truncate(MAX_DESTINATIONS - 1);
                self.0.push_front((destination, names.clone()));
            }
        }
    }

    /// The names that the destination had.
    pub(super) fn of(&self, destination: SocketAddr) -> Names {
        let known = self.0.iter().find(|(known, _)| *known == destination);
        known.map(|(_, names)| names.clone()).unwrap_or_default()
    }
}

/// The names that are known of addresses.
#[derive(Debug, Default)]
pub(super) struct Table {
    addresses: HashMap<IpAddr, Known>,
    /// All addresses, by the time at which their last name expires.
    by_end: BTreeSet<(Instant, IpAddr)>,
}

#[derive(Debug, Default)]
struct Known {
    names: Names,
    /// When each of the names expires.
    ends: Vec<Instant>,
}

impl Known {
    /// These names. If they are those of `before`, they share its memory.
    fn new(all: Vec<(&String, Instant)>, before: &Self) -> Self {
        let ends = all.iter().map(|(_, end)| *end).collect();
        let names = || all.iter().map(|(name, _)| *name);
        let same = names().eq(before.names.iter());
        let names = if same { before.names.clone() } else { Names(Some(names().cloned().collect())) };
        Self { names, ends }
    }

    fn iter(&self) -> impl Iterator<Item = (&String, Instant)> {
        self.names.iter().zip(self.ends.iter().copied())
    }

    fn end_of(&self, name: &str) -> Option<Instant> {
        self.iter().find(|(known, _)| *known == name).map(|(_, end)| end)
    }

    /// When the last of them expires; `None` if there are none.
    fn end(&self) -> Option<Instant> {
        self.ends.iter().max().copied()
    }
}

impl Table {
    /// The laptop's resolver has given an answer with these names and addresses, each with its TTL.
    pub(super) fn learn_answer(&mut self, names: &[String], addresses: &[(IpAddr, Duration)], now: Instant) {
        if names.is_empty() {
            return;
        }
        for (address, ttl) in addresses {
            self.learn(address.to_canonical(), names, now + (*ttl).min(MAX_TTL) + GRACE, now);
        }
    }

    /// An answer named `address`: the name that was asked for first, then its aliases.
    fn learn(&mut self, address: IpAddr, answer: &[String], end: Instant, now: Instant) {
        let before = self.remove(address).unwrap_or_default();
        let named = answer.iter().take(MAX_NAMES);
        let mut all: Vec<(&String, Instant)> =
            named.map(|name| (name, before.end_of(name).map_or(end, |before| before.max(end)))).collect();
        let new = all.len();
        all.extend(before.iter().filter(|(name, end)| *end > now && !answer.contains(name)));
        while all.len() > MAX_NAMES || all.iter().map(|(name, _)| name.len()).sum::<usize>() > MAX_BYTES {
            let older = all.iter().enumerate().skip(new).rev().min_by_key(|(_, (_, end))| *end);
            all.remove(older.map_or(all.len() - 1, |(first, _)| first));
        }
        let known = Known::new(all, &before);
        self.insert(address, known);
    }

    /// The names that `address` has at this time.
    pub(super) fn of(&mut self, address: IpAddr, now: Instant) -> Names {
        let Some(known) = self.addresses.get(&address) else { return Names::default() };
        if known.ends.iter().all(|end| *end > now) {
            return known.names.clone();
        }
        let before = self.remove(address).unwrap_or_default();
        let known = Known::new(before.iter().filter(|(_, end)| *end > now).collect(), &before);
        let names = known.names.clone();
        self.insert(address, known);
        names
    }

    /// Ends a time without a link, in which names could be used but not looked up.
    pub(super) fn resume(&mut self, pause: Pause) {
        for known in self.addresses.values_mut() {
            known.ends.iter_mut().for_each(|end| *end += pause.length());
        }
        self.by_end = std::mem::take(&mut self.by_end)
            .into_iter()
            .map(|(end, address)| (end + pause.length(), address))
            .collect();
    }

    fn insert(&mut self, address: IpAddr, known: Known) {
        let Some(end) = known.end() else { return };
        if self.addresses.len() >= MAX_ADDRESSES
            && let Some((_, first)) = self.by_end.pop_first()
        {
            self.addresses.remove(&first);
        }
        self.by_end.insert((end, address));
        self.addresses.insert(address, known);
    }

    fn remove(&mut self, address: IpAddr) -> Option<Known> {
        let known = self.addresses.remove(&address)?;
        if let Some(end) = known.end() {
            self.by_end.remove(&(end, address));
        }
        Some(known)
    }
}

#[cfg(test)]
mod tests;
