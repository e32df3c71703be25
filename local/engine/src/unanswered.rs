//! Flows that nobody has answered yet, by destination: which of them makes room when there is none left.
//!
//! All programs of a codespace share one source address, so a program that floods can't be told from the others by
//! where its packets come from, but often by where they go: to a network that does not answer. The oldest flow of the
//! destination prefix with most of them makes room. Among prefixes with as many, that is the oldest of all.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
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

/// Flows that wait for an answer, each under a key `K` with an id `T`. Ids count up: the lowest is the oldest.
#[derive(Debug)]
pub(super) struct Unanswered<K, T> {
    members: HashMap<K, BTreeSet<T>>,
    /// The keys by the number of their flows and their oldest flow: the last one's oldest flow makes room.
    order: BTreeSet<(usize, Reverse<T>, K)>,
    count: usize,
}

impl<K, T> Default for Unanswered<K, T> {
    fn default() -> Self {
        Self { members: HashMap::new(), order: BTreeSet::new(), count: 0 }
    }
}

impl<K: Copy + Ord + std::hash::Hash, T: Copy + Ord> Unanswered<K, T> {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Adds a flow.
    pub(super) fn insert(&mut self, key: K, id: T) {
        self.change(key, |members| members.insert(id));
    }

    /// Takes a flow out.
    pub(super) fn remove(&mut self, key: K, id: T) {
        self.change(key, |members| members.remove(&id));
    }

    /// The one that makes room.
    pub(super) fn oldest_of_busiest(&self) -> Option<T> {
        self.order.last().map(|(_, Reverse(oldest), _)| *oldest)
    }

    fn change(&mut self, key: K, act: impl FnOnce(&mut BTreeSet<T>) -> bool) {
        let members = self.members.entry(key).or_default();
        let place =
            |members: &BTreeSet<T>| members.first().map(|oldest| (members.len(), Reverse(*oldest), key));
        let before = place(members);
        self.count -= members.len();
        act(members);
        self.count += members.len();
        let after = place(members);
        if before != after {
            before.map(|place| self.order.remove(&place));
            after.map(|place| self.order.insert(place));
        }
        if after.is_none() {
            self.members.remove(&key);
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
        assert!(unanswered.members.is_empty());
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
