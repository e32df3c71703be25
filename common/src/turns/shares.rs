//! Who has how many of something that is bounded, at several levels (such as a client, its domains, and their zones), and
//! whose gives way. Pure.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;

/// The parent of the first level.
const ROOT: u64 = 0;

/// Members, each with one share at each of `LEVELS` levels. A share is named by a keyed hash of its whole path, so those of
/// different parents differ. Each operation takes logarithmic time.
#[derive(Debug, Default)]
pub struct Shares<const LEVELS: usize> {
    /// By share, how many members it has, and which was the first since there are any.
    counts: HashMap<u64, (usize, u64)>,
    /// The shares of each parent, the one with the most members last. Of several that have as many, the newest is first.
    ranks: BTreeSet<(u64, usize, Reverse<u64>, u64)>,
    /// The members of each share of the last level.
    members: BTreeSet<(u64, u64)>,
}

impl<const LEVELS: usize> Shares<LEVELS> {
    /// Adds a member. Their numbers count up.
    pub fn add(&mut self, path: [u64; LEVELS], number: u64) {
        self.change(path, number, |count| count + 1);
        self.members.insert((last(path), number));
    }

    /// Removes a member that was added with this path.
    pub fn remove(&mut self, path: [u64; LEVELS], number: u64) {
        if self.members.remove(&(last(path), number)) {
            self.change(path, number, |count| count - 1);
        }
    }

    /// The oldest member of the share that, at each level, has the most of what its parent has.
    #[must_use]
    pub fn gives_way(&self) -> Option<u64> {
        let mut parent = ROOT;
        for _ in 0..LEVELS {
            let children = (Bound::Unbounded, Bound::Included((parent, usize::MAX, Reverse(0), u64::MAX)));
            parent = self.ranks.range(children).next_back()?.3;
        }
        self.members.range((parent, 0)..).next().map(|(_, number)| *number)
    }

    /// Whether there is no member.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty() && self.ranks.is_empty() && self.members.is_empty()
    }

    fn change(&mut self, path: [u64; LEVELS], number: u64, change: impl Fn(usize) -> usize) {
        let mut parent = ROOT;
        for share in path {
            let (count, first) = self.counts.get(&share).copied().unwrap_or((0, number));
            self.ranks.remove(&(parent, count, Reverse(first), share));
            let count = change(count);
            if count == 0 {
                self.counts.remove(&share);
            } else {
                self.counts.insert(share, (count, first));
                self.ranks.insert((parent, count, Reverse(first), share));
            }
            parent = share;
        }
    }
}

fn last<const LEVELS: usize>(path: [u64; LEVELS]) -> u64 {
    path.last().copied().unwrap_or(ROOT)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Adds a member, and removes who gives way beyond `most`.
    fn add(shares: &mut Shares<2>, paths: &mut Vec<Option<[u64; 2]>>, path: [u64; 2], most: usize) {
        shares.add(path, paths.len() as u64);
        paths.push(Some(path));
        if paths.iter().flatten().count() > most {
            let number = shares.gives_way().unwrap();
            shares.remove(paths[number as usize].take().unwrap(), number);
        }
    }

    #[test]
    fn who_has_most_at_each_level_gives_way_and_there_the_oldest() {
        let (mut shares, mut paths) = (Shares::default(), Vec::new());
        let [a, b] = [[1, 11], [1, 12]];
        for path in [a, b, b, [2, 21], [2, 21]] {
            add(&mut shares, &mut paths, path, 5);
        }
        assert_eq!(shares.gives_way(), Some(1), "the first of b");
        (0..20).for_each(|_| add(&mut shares, &mut paths, [2, 22], 8));
        let left: Vec<usize> = paths.iter().zip(0..).filter_map(|(path, n)| path.map(|_| n)).collect();
        // The third share has taken what was left, and displaced its own then.
        assert_eq!(left, [0, 1, 2, 3, 4, 22, 23, 24]);
    }

    #[test]
    fn of_several_with_as_many_the_oldest_gives_way() {
        let (mut shares, mut paths) = (Shares::default(), Vec::new());
        (0..10).for_each(|n| add(&mut shares, &mut paths, [1, 100 - n], 4));
        assert!(paths[6..].iter().all(Option::is_some));
        for (path, number) in paths.into_iter().zip(0..) {
            path.into_iter().for_each(|path| shares.remove(path, number));
        }
        assert!(shares.is_empty() && shares.gives_way().is_none());
    }
}
