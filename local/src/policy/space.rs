//! Maps from addresses to values, kept as sorted ranges.
//!
//! Routing works by the longest matching prefix, set arithmetic by ranges. Prefixes are flattened into disjoint
//! ranges once; from then on a look-up is a binary search, and taking one set of networks from another is a
//! walk along both. A set is a map to `()`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// A value for some of the addresses of both families.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Space<V> {
    v4: Vec<Range<V>>,
    v6: Vec<Range<V>>,
}

/// The addresses from `first` to `last`, both included, as numbers. In a [`Space`] they are sorted and
/// disjoint, and neighbours have different values.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Range<V> {
    first: u128,
    last: u128,
    value: V,
}

impl<V> Default for Space<V> {
    fn default() -> Self {
        Self { v4: Vec::new(), v6: Vec::new() }
    }
}

impl<V: Clone + PartialEq> Space<V> {
    /// The map in which the longest prefix that holds an address gives its value. Of equal prefixes the first
    /// one counts.
    pub(super) fn longest_prefix(entries: impl IntoIterator<Item = (IpNet, V)>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (prefix, value) in entries {
            let range = Range { first: number(prefix.network()), last: number(prefix.broadcast()), value };
            if prefix.addr().is_ipv4() { v4.push(range) } else { v6.push(range) }
        }
        Self { v4: flatten(v4), v6: flatten(v6) }
    }

    /// The address's value.
    pub(super) fn get(&self, address: IpAddr) -> Option<&V> {
        let ranges = if address.is_ipv4() { &self.v4 } else { &self.v6 };
        let address = number(address);
        let range = &ranges[..ranges.partition_point(|range| range.first <= address)].last()?;
        (address <= range.last).then_some(&range.value)
    }

    /// Whether no address has a value.
    pub(super) fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// All values, some maybe more than once.
    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.v4.iter().chain(&self.v6).map(|range| &range.value)
    }

    /// This map, and `other` where this one says nothing.
    pub(super) fn or(&self, other: &Self) -> Self {
        let other = other.without(self);
        Self { v4: merge(&self.v4, other.v4), v6: merge(&self.v6, other.v6) }
    }

    /// This map without the addresses of `mask`.
    pub(super) fn without<W>(&self, mask: &Space<W>) -> Self {
        Self { v4: without(&self.v4, &mask.v4), v6: without(&self.v6, &mask.v6) }
    }

    /// This map on the addresses of `mask` alone.
    pub(super) fn within<W>(&self, mask: &Space<W>) -> Self {
        let outside = self.without(mask);
        self.without(&outside)
    }

    /// The values that `choose` gives for this map's values.
    pub(super) fn filter_map<W: Clone + PartialEq>(&self, choose: impl Fn(&V) -> Option<W>) -> Space<W> {
        let half = |ranges: &[Range<V>]| {
            let chosen = ranges.iter().filter_map(|range| {
                choose(&range.value).map(|value| Range { first: range.first, last: range.last, value })
            });
            coalesce(chosen.collect())
        };
        Space { v4: half(&self.v4), v6: half(&self.v6) }
    }

    /// The set of the addresses that have a value.
    pub(super) fn covered(&self) -> Space<()> {
        self.filter_map(|_| Some(()))
    }
}

impl Space<()> {
    /// The set of all addresses in `prefixes`.
    pub(super) fn of(prefixes: impl IntoIterator<Item = IpNet>) -> Self {
        Self::longest_prefix(prefixes.into_iter().map(|prefix| (prefix, ())))
    }

    /// Whether the set holds any of the prefix's addresses.
    pub(super) fn overlaps(&self, prefix: IpNet) -> bool {
        let ranges = if prefix.addr().is_ipv4() { &self.v4 } else { &self.v6 };
        let (first, last) = (number(prefix.network()), number(prefix.broadcast()));
        let next = ranges.partition_point(|range| range.last < first);
        ranges.get(next).is_some_and(|range| range.first <= last)
    }

    /// The fewest prefixes that hold exactly the set's addresses, IPv4 first, in ascending order.
    pub(super) fn prefixes(&self) -> Vec<IpNet> {
        let v4 = self.v4.iter().flat_map(|range| decompose(range, 32));
        let v6 = self.v6.iter().flat_map(|range| decompose(range, 128));
        v4.chain(v6).collect()
    }

    /// How many IPv4 and how many IPv6 addresses the set has, as far as u128 can say.
    pub(super) fn sizes(&self) -> (u128, u128) {
        let size = |ranges: &[Range<()>]| {
            ranges.iter().fold(0u128, |sum, r| sum.saturating_add(r.last - r.first).saturating_add(1))
        };
        (size(&self.v4), size(&self.v6))
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_bits().into(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// Flattens nested prefixes: a sweep from low to high with a stack of the prefixes that are open.
fn flatten<V: Clone + PartialEq>(mut prefixes: Vec<Range<V>>) -> Vec<Range<V>> {
    // Stable, and the wider prefix first: of equal ones, the first in the input is the innermost to be kept.
    prefixes.sort_by_key(|range| (range.first, std::cmp::Reverse(range.last)));
    prefixes.dedup_by_key(|range| (range.first, range.last));
    let mut sweep = Sweep { out: Vec::new(), next: Some(0) };
    let mut open: Vec<Range<V>> = Vec::new();
    for prefix in prefixes {
        while let Some(closed) = open.pop_if(|top| top.last < prefix.first) {
            sweep.emit(closed.last, &closed.value);
        }
        match (open.last(), prefix.first.checked_sub(1)) {
            (Some(outer), Some(before)) => sweep.emit(before, &outer.value),
            _ => sweep.next = sweep.next.map(|next| next.max(prefix.first)),
        }
        open.push(prefix);
    }
    while let Some(closed) = open.pop() {
        sweep.emit(closed.last, &closed.value);
    }
    coalesce(sweep.out)
}

/// The state of [`flatten`]: all addresses below `next` are done; `None` means that all there are, are done.
struct Sweep<V> {
    out: Vec<Range<V>>,
    next: Option<u128>,
}

impl<V: Clone> Sweep<V> {
    /// Gives the addresses from `next` to `last`, if any, their value.
    fn emit(&mut self, last: u128, value: &V) {
        if let Some(first) = self.next.filter(|next| *next <= last) {
            self.out.push(Range { first, last, value: value.clone() });
            self.next = last.checked_add(1);
        }
    }
}

/// Joins neighbours of equal value.
fn coalesce<V: PartialEq>(ranges: Vec<Range<V>>) -> Vec<Range<V>> {
    let mut out: Vec<Range<V>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match out.last_mut() {
            Some(before)
                if before.last.checked_add(1) == Some(range.first) && before.value == range.value =>
            {
                before.last = range.last;
            }
            _ => out.push(range),
        }
    }
    out
}

/// Joins two disjoint lists.
fn merge<V: Clone + PartialEq>(one: &[Range<V>], mut other: Vec<Range<V>>) -> Vec<Range<V>> {
    other.extend_from_slice(one);
    other.sort_by_key(|range| range.first);
    coalesce(other)
}

fn without<V: Clone, W>(ranges: &[Range<V>], mask: &[Range<W>]) -> Vec<Range<V>> {
    let mut out = Vec::with_capacity(ranges.len());
    let mut holes = mask;
    for range in ranges {
        // A hole may reach into the next range, so it is passed over only when it ends before this one.
        let passed = holes.iter().take_while(|hole| hole.last < range.first).count();
        holes = &holes[passed..];
        let mut sweep = Sweep { out: Vec::new(), next: Some(range.first) };
        for hole in holes.iter().take_while(|hole| hole.first <= range.last) {
            if let Some(before) = hole.first.checked_sub(1) {
                sweep.emit(before, &range.value);
            }
            sweep.next = hole.last.checked_add(1);
        }
        sweep.emit(range.last, &range.value);
        out.append(&mut sweep.out);
    }
    out
}

/// The fewest prefixes that make up a range: always the largest that begins where the last one ended.
fn decompose(range: &Range<()>, bits: u32) -> Vec<IpNet> {
    let mut prefixes = Vec::new();
    let mut next = Some(range.first);
    while let Some(first) = next.filter(|first| *first <= range.last) {
        let aligned = first.trailing_zeros().min(bits);
        // The size of the rest is one more than this, which may be too big for u128.
        let rest = range.last - first;
        let fits = if rest == u128::MAX { 128 } else { (rest + 1).ilog2() };
        let host_bits = aligned.min(fits);
        prefixes.push(prefix(first, (bits - host_bits) as u8, bits));
        next = 1u128.checked_shl(host_bits).and_then(|size| first.checked_add(size));
    }
    prefixes
}

fn prefix(first: u128, length: u8, bits: u32) -> IpNet {
    if bits == 32 {
        Ipv4Net::new_assert(Ipv4Addr::from_bits(first as u32), length).into()
    } else {
        Ipv6Net::new_assert(Ipv6Addr::from_bits(first), length).into()
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

    /// Every address of the corners the strategies use, and one in the middle of nowhere.
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
            let space = Space::longest_prefix(entries.clone());
            for address in addresses() {
                prop_assert_eq!(space.get(address).copied(), naive(&entries, address), "{}", address);
            }
        }

        #[test]
        fn arithmetic_is_that_of_sets(one in entries(), other in entries()) {
            let (a, b) = (Space::longest_prefix(one), Space::longest_prefix(other));
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
            let set = Space::longest_prefix(one).without(&Space::longest_prefix(other)).covered();
            let prefixes = set.prefixes();
            prop_assert_eq!(&Space::of(prefixes.clone()), &set);
            prop_assert_eq!(&IpNet::aggregate(&prefixes), &prefixes, "as few as possible, in order");
            for prefix in prefixes {
                prop_assert!(set.overlaps(prefix));
                prop_assert!(!set.without(&Space::of([prefix])).overlaps(prefix));
            }
        }
    }

    #[test]
    fn the_whole_of_both_families_is_two_prefixes() {
        let all: Vec<IpNet> = vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()];
        let halves = ["0.0.0.0/1", "128.0.0.0/1", "::/1", "8000::/1"].map(|prefix| prefix.parse().unwrap());
        assert_eq!(Space::of(halves).prefixes(), all);
        assert_eq!(Space::of(all).sizes(), (1 << 32, u128::MAX));
    }
}
