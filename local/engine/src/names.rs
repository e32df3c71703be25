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
use super::policy::Policy;

/// Addresses with a name that a rule refers to; and other addresses, whose names are only shown. Beyond that, the one whose
/// names expire first makes room. The codespace chooses what is looked up, so all of this is bounded, and what is only
/// shown displaces nothing that decides.
const MAX_ADDRESSES: usize = 2048;
/// Names of one address. Beyond that, the one that expires first makes room, those that no rule refers to before the others.
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
/// The same for names that no rule refers to: what lives long would stay when there is no room for the others.
const MAX_TTL_SHOWN: Duration = Duration::from_secs(60 * 60);

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
    /// Addresses with a name that a rule refers to.
    ruled: Places,
    /// The others.
    shown: Places,
}

/// A name of an address.
#[derive(Debug, Clone, Copy)]
struct Lease {
    end: Instant,
    /// Whether a rule refers to the name.
    ruled: bool,
}

/// A name that an address may keep.
#[derive(Debug)]
struct Candidate<'a> {
    name: &'a String,
    lease: Lease,
    /// Whether the latest answer has it.
    new: bool,
}

impl Candidate<'_> {
    /// What no rule refers to is worth least, then what is older.
    fn worth(&self) -> impl Ord {
        (self.lease.ruled, self.new, (!self.new).then_some(self.lease.end))
    }
}

#[derive(Debug, Default)]
struct Known {
    names: Names,
    /// One for each of the names.
    leases: Vec<Lease>,
}

impl Known {
    /// These names. If they are those of `before`, they share its memory.
    fn new(all: Vec<(&String, Lease)>, before: &Self) -> Self {
        let leases = all.iter().map(|(_, lease)| *lease).collect();
        let names = || all.iter().map(|(name, _)| *name);
        let same = names().eq(before.names.iter());
        let names = if same { before.names.clone() } else { Names(Some(names().cloned().collect())) };
        Self { names, leases }
    }

    fn iter(&self) -> impl Iterator<Item = (&String, Lease)> {
        self.names.iter().zip(self.leases.iter().copied())
    }

    fn end_of(&self, name: &str) -> Option<Instant> {
        self.iter().find(|(known, _)| *known == name).map(|(_, lease)| lease.end)
    }

    /// When the last of them expires; `None` if there are none.
    fn end(&self) -> Option<Instant> {
        self.leases.iter().map(|lease| lease.end).max()
    }

    fn is_ruled(&self) -> bool {
        self.leases.iter().any(|lease| lease.ruled)
    }
}

impl Table {
    /// The laptop's resolver has given an answer with these names and addresses, each with its TTL. Names that no rule
    /// refers to are of use only for addresses that are forwarded.
    pub(super) fn learn_answer(
        &mut self,
        names: &[String],
        addresses: &[(IpAddr, Duration)],
        policy: &dyn Policy,
        now: Instant,
    ) {
        let ruled: Vec<bool> = names.iter().map(|name| policy.refers_to(name)).collect();
        for (address, ttl) in addresses {
            let address = address.to_canonical();
            if ruled.contains(&true) || policy.forwards(address) {
                self.learn(address, names.iter().zip(ruled.iter().copied()), *ttl, now);
            }
        }
    }

    /// An answer named `address`: the name that was asked for first, then its aliases, each with whether a rule refers to
    /// it.
    fn learn<'a>(
        &mut self,
        address: IpAddr,
        answer: impl Iterator<Item = (&'a String, bool)>,
        ttl: Duration,
        now: Instant,
    ) {
        let before = self.remove(address).unwrap_or_default();
        let new = |(name, ruled): (&'a String, bool)| {
            let end = now + ttl.min(if ruled { MAX_TTL } else { MAX_TTL_SHOWN }) + GRACE;
            let end = before.end_of(name).map_or(end, |before| before.max(end));
            Candidate { name, lease: Lease { end, ruled }, new: true }
        };
        let mut all: Vec<Candidate<'_>> = answer.map(new).collect();
        let is_new = |name: &String| all.iter().any(|new| new.name == name);
        let older = before.iter().filter(|(name, lease)| lease.end > now && !is_new(name));
        let older: Vec<_> = older.map(|(name, lease)| Candidate { name, lease, new: false }).collect();
        all.extend(older);
        while all.len() > MAX_NAMES || all.iter().map(|it| it.name.len()).sum::<usize>() > MAX_BYTES {
            // Of equal ones the last alias.
            let Some((least, _)) = all.iter().enumerate().rev().min_by_key(|(_, it)| it.worth()) else {
                break;
            };
            all.remove(least);
        }
        let known = Known::new(all.iter().map(|it| (it.name, it.lease)).collect(), &before);
        self.insert(address, known);
    }

    /// The rules have changed.
    pub(super) fn classify(&mut self, policy: &dyn Policy) {
        let Self { ruled, shown } = std::mem::take(self);
        for (address, mut known) in ruled.addresses.into_iter().chain(shown.addresses) {
            for (name, lease) in known.names.iter().zip(&mut known.leases) {
                lease.ruled = policy.refers_to(name);
            }
            self.insert(address, known);
        }
    }

    /// The names that `address` has at this time.
    pub(super) fn of(&mut self, address: IpAddr, now: Instant) -> Names {
        let known = self.ruled.addresses.get(&address).or_else(|| self.shown.addresses.get(&address));
        let Some(known) = known else { return Names::default() };
        if known.leases.iter().all(|lease| lease.end > now) {
            return known.names.clone();
        }
        let before = self.remove(address).unwrap_or_default();
        let known = Known::new(before.iter().filter(|(_, lease)| lease.end > now).collect(), &before);
        let names = known.names.clone();
        self.insert(address, known);
        names
    }

    /// Ends a time without a link, in which names could be used but not looked up.
    pub(super) fn resume(&mut self, pause: Pause) {
        self.ruled.resume(pause);
        self.shown.resume(pause);
    }

    fn insert(&mut self, address: IpAddr, known: Known) {
        if known.is_ruled() { &mut self.ruled } else { &mut self.shown }.insert(address, known);
    }

    fn remove(&mut self, address: IpAddr) -> Option<Known> {
        self.ruled.remove(address).or_else(|| self.shown.remove(address))
    }
}

/// Places for addresses.
#[derive(Debug, Default)]
struct Places {
    addresses: HashMap<IpAddr, Known>,
    /// All addresses, by the time at which their last name expires.
    by_end: BTreeSet<(Instant, IpAddr)>,
}

impl Places {
    fn resume(&mut self, pause: Pause) {
        for known in self.addresses.values_mut() {
            known.leases.iter_mut().for_each(|lease| lease.end += pause.length());
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
