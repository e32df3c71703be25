//! Maps from prefixes to values.
//!
//! Routing works by the longest matching prefix, set arithmetic by ranges. Prefixes are flattened into disjoint
//! ranges once; from then on a look-up is a search in a tree, and one set of networks is taken from another range by
//! range. A set is a map to `()`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};
use rangemap::RangeInclusiveMap;

/// A value for some of the addresses of both families.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PrefixMap<V: Clone + Eq> {
    v4: RangeInclusiveMap<u128, V>,
    v6: RangeInclusiveMap<u128, V>,
}

impl<V: Clone + Eq> Default for PrefixMap<V> {
    fn default() -> Self {
        Self { v4: RangeInclusiveMap::new(), v6: RangeInclusiveMap::new() }
    }
}

impl<V: Clone + Eq> PrefixMap<V> {
    /// The map in which the longest prefix that holds an address gives its value. Of equal prefixes the first
    /// one counts.
    pub(super) fn longest_prefix(entries: impl IntoIterator<Item = (IpNet, V)>) -> Self {
        // What is inserted later replaces what was there: wide prefixes come first, and of equal ones the first last.
        let mut entries: Vec<_> = entries.into_iter().collect();
        entries.reverse();
        entries.sort_by_key(|(prefix, _)| prefix.prefix_len());
        let mut map = Self::default();
        for (prefix, value) in entries {
            let family = if prefix.addr().is_ipv4() { &mut map.v4 } else { &mut map.v6 };
            family.insert(range(prefix), value);
        }
        map
    }

    /// The address's value.
    pub(super) fn get(&self, address: IpAddr) -> Option<&V> {
        let family = if address.is_ipv4() { &self.v4 } else { &self.v6 };
        family.get(&number(address))
    }

    /// Whether no address has a value.
    pub(super) fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// All values, some maybe more than once.
    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.v4.iter().chain(self.v6.iter()).map(|(_, value)| value)
    }

    /// This map, and `other` where this one has no value.
    pub(super) fn or(&self, other: &Self) -> Self {
        let mut out = other.clone();
        for (family, ours) in [(&mut out.v4, &self.v4), (&mut out.v6, &self.v6)] {
            family.extend(ours.iter().map(|(range, value)| (range.clone(), value.clone())));
        }
        out
    }

    /// This map without the addresses of `mask`.
    pub(super) fn without<W: Clone + Eq>(&self, mask: &PrefixMap<W>) -> Self {
        let mut out = self.clone();
        for (family, mask) in [(&mut out.v4, &mask.v4), (&mut out.v6, &mask.v6)] {
            for (range, _) in mask.iter() {
                family.remove(range.clone());
            }
        }
        out
    }

    /// This map on the addresses of `mask` alone.
    pub(super) fn within<W: Clone + Eq>(&self, mask: &PrefixMap<W>) -> Self {
        self.without(&self.without(mask))
    }

    /// The values that `choose` gives for this map's values.
    pub(super) fn filter_map<W: Clone + Eq>(&self, choose: impl Fn(&V) -> Option<W>) -> PrefixMap<W> {
        let family = |ranges: &RangeInclusiveMap<u128, V>| {
            ranges.iter().filter_map(|(range, value)| Some((range.clone(), choose(value)?))).collect()
        };
        PrefixMap { v4: family(&self.v4), v6: family(&self.v6) }
    }

    /// The set of the addresses that have a value.
    pub(super) fn covered(&self) -> PrefixMap<()> {
        self.filter_map(|_| Some(()))
    }

    /// The fewest prefixes that hold exactly the map's addresses, with their values; IPv4 first, in ascending order.
    pub(super) fn entries(&self) -> Vec<(IpNet, V)> {
        let v4 = self.v4.iter().flat_map(|(range, value)| {
            let [first, last] = [range.start(), range.end()].map(|end| Ipv4Addr::from_bits(*end as u32));
            Ipv4Subnets::new(first, last, 0).map(move |prefix| (IpNet::from(prefix), value.clone()))
        });
        let v6 = self.v6.iter().flat_map(|(range, value)| {
            let [first, last] = [range.start(), range.end()].map(|end| Ipv6Addr::from_bits(*end));
            Ipv6Subnets::new(first, last, 0).map(move |prefix| (IpNet::from(prefix), value.clone()))
        });
        v4.chain(v6).collect()
    }
}

impl PrefixMap<()> {
    /// The set of all addresses in `prefixes`.
    pub(super) fn from_prefixes(prefixes: impl IntoIterator<Item = IpNet>) -> Self {
        Self::longest_prefix(prefixes.into_iter().map(|prefix| (prefix, ())))
    }

    /// Whether the set holds any of the prefix's addresses.
    pub(super) fn overlaps(&self, prefix: IpNet) -> bool {
        let family = if prefix.addr().is_ipv4() { &self.v4 } else { &self.v6 };
        family.overlaps(&range(prefix))
    }

    /// The fewest prefixes that hold exactly the set's addresses, IPv4 first, in ascending order.
    pub(super) fn prefixes(&self) -> Vec<IpNet> {
        self.entries().into_iter().map(|(prefix, ())| prefix).collect()
    }

    /// Number of IPv4 and of IPv6 addresses in the set, saturating at u128's maximum.
    pub(super) fn sizes(&self) -> (u128, u128) {
        let size = |ranges: &RangeInclusiveMap<u128, ()>| {
            ranges.iter().fold(0u128, |sum, (range, ())| {
                sum.saturating_add(range.end() - range.start()).saturating_add(1)
            })
        };
        (size(&self.v4), size(&self.v6))
    }
}

fn range(prefix: IpNet) -> RangeInclusive<u128> {
    number(prefix.network())..=number(prefix.broadcast())
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_bits().into(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Prefixes of a corner of each family, so that they nest and touch, with the corners at both ends.
    fn prefix() -> impl Strategy<Value = IpNet> {
        let v4 = (prop_oneof![0u32..64, (u32::MAX - 63)..=u32::MAX], 24u8..=32)
            .prop_map(|(address, length)| IpNet::new(Ipv4Addr::from_bits(address).into(), length).unwrap());
        let v6 = (prop_oneof![0u128..64, (u128::MAX - 63)..=u128::MAX], 120u8..=128)
            .prop_map(|(address, length)| IpNet::new(Ipv6Addr::from_bits(address).into(), length).unwrap());
        let all = prop_oneof![Just("0.0.0.0/0"), Just("::/0"), Just("128.0.0.0/1"), Just("8000::/1")]
            .prop_map(|prefix| prefix.parse().unwrap());
        prop_oneof![4 => v4, 4 => v6, 1 => all].prop_map(|prefix: IpNet| prefix.trunc())
    }

    fn entries() -> impl Strategy<Value = Vec<(IpNet, u8)>> {
        prop::collection::vec((prefix(), 0u8..4), 0..12)
    }

    /// Every address of the corners the strategies use, and one far from them.
    fn addresses() -> impl Iterator<Item = IpAddr> {
        let v4 = (0..512u32).chain(u32::MAX - 512..=u32::MAX).chain([1 << 30, 1 << 31]);
        let v6 = (0..512u128).chain(u128::MAX - 512..=u128::MAX).chain([1 << 126, 1 << 127]);
        v4.map(|n| Ipv4Addr::from_bits(n).into()).chain(v6.map(|n| Ipv6Addr::from_bits(n).into()))
    }

    fn naive(entries: &[(IpNet, u8)], address: IpAddr) -> Option<u8> {
        let holding = entries.iter().rev().filter(|(prefix, _)| prefix.contains(&address));
        holding.max_by_key(|(prefix, _)| prefix.prefix_len()).map(|(_, value)| *value)
    }

    proptest! {
        #[test]
        fn the_longest_prefix_wins(entries in entries()) {
            let map = PrefixMap::longest_prefix(entries.clone());
            for address in addresses() {
                prop_assert_eq!(map.get(address).copied(), naive(&entries, address), "{}", address);
            }
        }

        #[test]
        fn arithmetic_is_that_of_sets(one in entries(), other in entries()) {
            let (a, b) = (PrefixMap::longest_prefix(one), PrefixMap::longest_prefix(other));
            let (or, without, within) = (a.or(&b), a.without(&b), a.within(&b));
            for address in addresses() {
                let (a, b) = (a.get(address), b.get(address));
                prop_assert_eq!(or.get(address), a.or(b), "{}", address);
                prop_assert_eq!(without.get(address), a.filter(|_| b.is_none()), "{}", address);
                prop_assert_eq!(within.get(address), a.filter(|_| b.is_some()), "{}", address);
            }
        }

        #[test]
        fn prefixes_are_exactly_the_set(one in entries(), other in entries()) {
            let set = PrefixMap::longest_prefix(one).without(&PrefixMap::longest_prefix(other)).covered();
            let prefixes = set.prefixes();
            prop_assert_eq!(&PrefixMap::from_prefixes(prefixes.clone()), &set);
            prop_assert_eq!(&IpNet::aggregate(&prefixes), &prefixes, "as few as possible, in order");
            for prefix in prefixes {
                prop_assert!(set.overlaps(prefix));
                prop_assert!(!set.without(&PrefixMap::from_prefixes([prefix])).overlaps(prefix));
            }
        }
    }

    #[test]
    fn the_whole_of_both_families_is_two_prefixes() {
        let all: Vec<IpNet> = vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()];
        let halves = ["0.0.0.0/1", "128.0.0.0/1", "::/1", "8000::/1"].map(|prefix| prefix.parse().unwrap());
        assert_eq!(PrefixMap::from_prefixes(halves).prefixes(), all);
        assert_eq!(PrefixMap::from_prefixes(all).sizes(), (1 << 32, u128::MAX));
    }
}
