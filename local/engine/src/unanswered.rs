//! Flows that nobody has answered yet, by destination: which of them makes room when there is none left.
//!
//! All programs of a codespace share one source address, so a program that floods can't be told from the others by
//! where its packets come from, but often by where they go: to a network that does not answer. The network with most of
//! them makes room: there, the oldest flow to the address with most of them. Among networks with as many, it is the one
//! whose flow is oldest.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A network as small as one site has: /24 in IPv4, /64 in IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Prefix(IpAddr);

impl From<IpAddr> for Prefix {
    fn from(address: IpAddr) -> Self {
        Self(match address {
            IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() & (u32::MAX << 8)).into(),
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64)).into(),
        })
    }
}

/// Flows that wait for an answer, in groups under keys `K`. A group is a set of ids, which count up: the lowest is the
/// oldest. Or it has groups itself.
#[derive(Debug)]
pub(super) struct Unanswered<K, G: Group> {
    groups: HashMap<K, G>,
    /// The keys by the size of their groups and the flow that each group would lose: the last one makes room.
    order: BTreeSet<(usize, Reverse<G::Id>, K)>,
    count: usize,
}

/// Flows by their destination's network, and there by its address: one host that does not answer must not displace
/// the flows to its neighbours.
pub(super) type Destinations<T> = Unanswered<Prefix, Unanswered<IpAddr, BTreeSet<T>>>;

/// Some flows.
pub(super) trait Group: Default {
    /// Identifies a flow.
    type Id: Copy + Ord;

    /// How many there are.
    fn len(&self) -> usize;

    /// The one that makes room.
    fn oldest_of_busiest(&self) -> Option<Self::Id>;
}

impl<T: Copy + Ord> Group for BTreeSet<T> {
    type Id = T;

    fn len(&self) -> usize {
        self.len()
    }

    fn oldest_of_busiest(&self) -> Option<T> {
        self.first().copied()
    }
}

impl<K: Copy + Ord + Hash, G: Group> Group for Unanswered<K, G> {
    type Id = G::Id;

    fn len(&self) -> usize {
        self.count
    }

    fn oldest_of_busiest(&self) -> Option<G::Id> {
        self.order.last().map(|(_, Reverse(oldest), _)| *oldest)
    }
}

impl<K, G: Group> Default for Unanswered<K, G> {
    fn default() -> Self {
        Self { groups: HashMap::new(), order: BTreeSet::new(), count: 0 }
    }
}

impl<K: Copy + Ord + Hash, T: Copy + Ord> Unanswered<K, BTreeSet<T>> {
    /// Adds a flow.
    pub(super) fn insert(&mut self, key: K, id: T) {
        self.change(key, |ids| _ = ids.insert(id));
    }

    /// Takes a flow out.
    pub(super) fn remove(&mut self, key: K, id: T) {
        self.change(key, |ids| _ = ids.remove(&id));
    }
}

impl<T: Copy + Ord> Destinations<T> {
    /// Adds a flow to this address.
    pub(super) fn insert_to(&mut self, address: IpAddr, id: T) {
        self.change(address.into(), |hosts| hosts.insert(address, id));
    }

    /// Takes a flow to this address out.
    pub(super) fn remove_to(&mut self, address: IpAddr, id: T) {
        self.change(address.into(), |hosts| hosts.remove(address, id));
    }
}

impl<K: Copy + Ord + Hash, G: Group> Unanswered<K, G> {
    fn change(&mut self, key: K, act: impl FnOnce(&mut G)) {
        let group = self.groups.entry(key).or_default();
        let place = |group: &G| group.oldest_of_busiest().map(|oldest| (group.len(), Reverse(oldest), key));
        let before = place(group);
        self.count -= group.len();
        act(group);
        self.count += group.len();
        let after = place(group);
        if before != after {
            before.map(|place| self.order.remove(&place));
            after.map(|place| self.order.insert(place));
        }
        if after.is_none() {
            self.groups.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(address: &str) -> Prefix {
        Prefix::from(address.parse::<IpAddr>().unwrap())
    }

    #[test]
    fn addresses_of_one_network_have_one_prefix() {
        assert_eq!(prefix("10.20.30.1"), prefix("10.20.30.200"));
        assert_ne!(prefix("10.20.30.1"), prefix("10.20.31.1"));
        assert_eq!(prefix("fd20::1"), prefix("fd20::ffff:1"));
        assert_ne!(prefix("fd20::1"), prefix("fd20:0:0:1::1"));
    }

    #[test]
    fn the_oldest_of_the_busiest_makes_room() {
        let mut unanswered = Unanswered::default();
        let (a, b) = (prefix("10.0.0.1"), prefix("10.0.1.1"));
        for (key, id) in [(a, 1), (b, 2), (b, 3), (b, 4), (a, 5)] {
            unanswered.insert(key, id);
        }
        let mut left = Vec::new();
        while let Some(id) = unanswered.oldest_of_busiest() {
            left.push(id);
            unanswered.remove(if [1, 5].contains(&id) { a } else { b }, id);
        }
        // b has one more; then both have as many, and the oldest of all comes first.
        assert_eq!((left, unanswered.len()), (vec![2, 1, 3, 4, 5], 0));
        assert!(unanswered.groups.is_empty());
    }

    #[test]
    fn a_busy_host_makes_room_before_its_neighbours() {
        let mut destinations = Destinations::default();
        let [busy, neighbour, other] = ["10.0.0.1", "10.0.0.2", "10.0.1.1"].map(|it| it.parse().unwrap());
        for (address, id) in [(neighbour, 1), (busy, 2), (busy, 3), (other, 4), (other, 5), (busy, 6)] {
            destinations.insert_to(address, id);
        }
        let mut left = Vec::new();
        while let Some(id) = destinations.oldest_of_busiest() {
            left.push(id);
            let address = if id == 1 {
                neighbour
            } else if [4, 5].contains(&id) {
                other
            } else {
                busy
            };
            destinations.remove_to(address, id);
        }
        assert_eq!((left, destinations.len()), (vec![2, 3, 1, 4, 5, 6], 0));
    }

    #[test]
    fn one_that_is_not_there_is_no_error() {
        let mut unanswered = Unanswered::default();
        unanswered.remove(1, 1);
        unanswered.insert(1, 1);
        unanswered.insert(1, 1);
        unanswered.remove(1, 2);
        assert_eq!((unanswered.len(), unanswered.oldest_of_busiest()), (1, Some(1)));
    }
}
