//! Several queues that share the link in a fair order, each of which may itself be such a set.

use std::collections::{BinaryHeap, HashMap};

use gh_net_common::schedule::{Schedule, Standing, is_sparse};

use super::cut::{Cutter, Piece};

/// What has packets to send.
pub(super) trait Source {
    /// Which of the bounds of its set it counts against.
    fn bound(&self) -> usize {
        0
    }
    fn is_empty(&self) -> bool;
    /// The memory that it keeps.
    fn cost(&self) -> usize;
    /// The next packet, or the next piece of it.
    fn pop(&mut self, cutter: &mut Cutter) -> Option<Piece>;
    /// Drops the packet that has waited longest; of several queues, from the longest. Returns how many were dropped.
    fn shed(&mut self) -> u64;
}

#[derive(Debug)]
struct Member<T> {
    standing: Standing,
    source: T,
}

/// See the [module's documentation](self). Each member counts against one of `BOUNDS` bounds.
#[derive(Debug)]
pub(super) struct Fair<T, const BOUNDS: usize = 1> {
    schedule: Schedule<u64>,
    members: HashMap<u64, Member<T>>,
    costs: [usize; BOUNDS],
    most: [usize; BOUNDS],
}

impl<T: Source, const BOUNDS: usize> Fair<T, BOUNDS> {
    /// Queues that send `quantum` bytes in their turn, and cost `most` at most.
    pub(super) fn new(quantum: usize, most: [usize; BOUNDS]) -> Self {
        Self { schedule: Schedule::new(quantum), members: HashMap::new(), costs: [0; BOUNDS], most }
    }

    pub(super) fn set_quantum(&mut self, quantum: usize) {
        self.schedule.set_quantum(quantum);
    }

    /// The queue under `key`.
    pub(super) fn peek(&self, key: u64) -> Option<&T> {
        self.members.get(&key).map(|member| &member.source)
    }

    /// Lets `change` add packets to the queue under `key`, or take some out. Beyond a bound, packets of the longest
    /// queues are dropped; returns how many.
    pub(super) fn change(&mut self, key: u64, new: impl FnOnce() -> T, change: impl FnOnce(&mut T)) -> u64 {
        let member = self
            .members
            .entry(key)
            .or_insert_with(|| Member { standing: Standing::default(), source: new() });
        let (before, bound) = (member.source.cost(), member.source.bound());
        change(&mut member.source);
        self.costs[bound] = self.costs[bound] + member.source.cost() - before;
        if !member.source.is_empty() {
            self.schedule.add(key, &mut member.standing);
        } else if !member.standing.is_listed() {
            self.forget(key);
        }
        let most = self.most[bound];
        if self.costs[bound] > most { self.shed_longest(bound, most - most / 16) } else { 0 }
    }

    /// Drops packets at the heads of the longest queues of one bound (RFC 8290, 4.1.3) until the rest costs no more than
    /// `most`. Many at once, because finding them takes a look at each queue.
    fn shed_longest(&mut self, bound: usize, most: usize) -> u64 {
        let bounded = self.members.iter().filter(|(_, member)| member.source.bound() == bound);
        let mut longest: BinaryHeap<(usize, u64)> =
            bounded.map(|(key, member)| (member.source.cost(), *key)).collect();
        let (mut dropped, mut is_any_gone) = (0, false);
        while self.costs[bound] > most {
            let Some((before, key)) = longest.pop() else { break };
            let Some(member) = self.members.get_mut(&key) else { continue };
            dropped += member.source.shed();
            let after = member.source.cost();
            self.costs[bound] -= before - after;
            if member.source.is_empty() {
                is_any_gone = true;
                self.forget(key);
            } else if after < before {
                // One that can't shed is not asked again.
                longest.push((after, key));
            }
        }
        // Who begins ever new queues would fill the lists with those that were dropped.
        if is_any_gone {
            self.schedule.retain(|key| self.members.contains_key(&key));
        }
        dropped
    }

    /// All queues.
    pub(super) fn into_sources(self) -> impl Iterator<Item = T> {
        self.members.into_values().map(|member| member.source)
    }

    pub(super) fn cost(&self) -> usize {
        self.costs.iter().sum()
    }

    /// The next packet, or the next piece of it, of the queue whose turn it is.
    pub(super) fn pop(&mut self, cutter: &mut Cutter) -> Option<Piece> {
        while let Some(candidate) = self.schedule.candidate() {
            let Some(member) = self.members.get_mut(&candidate.flow) else {
                self.schedule.remove(candidate);
                continue;
            };
            if member.source.is_empty() {
                self.schedule.emptied(candidate, &mut member.standing);
                if !member.standing.is_listed() {
                    self.forget(candidate.flow);
                }
                continue;
            }
            if !self.schedule.may_send(candidate, &mut member.standing) {
                continue;
            }
            let (before, bound) = (member.source.cost(), member.source.bound());
            let piece = member.source.pop(cutter)?;
            self.costs[bound] = self.costs[bound] + member.source.cost() - before;
            self.schedule.sent(candidate, &mut member.standing, piece.len());
            return Some(piece);
        }
        None
    }

    /// Removes an empty queue, and the memory for many of them that are gone.
    fn forget(&mut self, key: u64) {
        self.members.remove(&key);
        if is_sparse(self.members.len(), self.members.capacity()) {
            self.members.shrink_to(2 * self.members.len());
        }
    }
}

impl<T: Source> Source for Fair<T> {
    fn is_empty(&self) -> bool {
        self.cost() == 0
    }

    fn cost(&self) -> usize {
        self.cost()
    }

    fn pop(&mut self, cutter: &mut Cutter) -> Option<Piece> {
        self.pop(cutter)
    }

    fn shed(&mut self) -> u64 {
        self.shed_longest(0, (self.cost() - self.cost() / 16).saturating_sub(1))
    }
}
