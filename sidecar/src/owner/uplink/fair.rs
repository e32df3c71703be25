//! Several queues that share the link in a fair order, each of which may itself be such a set.

use std::collections::{BinaryHeap, HashMap};

use gh_net_common::schedule::{Schedule, Standing};

use super::cut::{Cutter, Piece};

/// What has packets to send.
pub(super) trait Source {
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

/// See the [module's documentation](self).
#[derive(Debug)]
pub(super) struct Fair<T> {
    schedule: Schedule<u64>,
    members: HashMap<u64, Member<T>>,
    cost: usize,
    most: usize,
}

impl<T: Source> Fair<T> {
    /// Queues that send `quantum` bytes in their turn, and together cost `most` at most.
    pub(super) fn new(quantum: usize, most: usize) -> Self {
        Self { schedule: Schedule::new(quantum), members: HashMap::new(), cost: 0, most }
    }

    pub(super) fn set_quantum(&mut self, quantum: usize) {
        self.schedule.set_quantum(quantum);
    }

    /// The queue under `key`.
    pub(super) fn peek(&self, key: u64) -> Option<&T> {
        self.members.get(&key).map(|member| &member.source)
    }

    /// Lets `change` add packets to the queue under `key`, or take some out. Beyond the bound, packets of the longest
    /// queues are dropped; returns how many.
    pub(super) fn change(&mut self, key: u64, new: impl FnOnce() -> T, change: impl FnOnce(&mut T)) -> u64 {
        let member = self
            .members
            .entry(key)
            .or_insert_with(|| Member { standing: Standing::default(), source: new() });
        let before = member.source.cost();
        change(&mut member.source);
        self.cost = self.cost + member.source.cost() - before;
        if !member.source.is_empty() {
            self.schedule.add(key, &mut member.standing);
        } else if !member.standing.is_listed() {
            self.members.remove(&key);
        }
        if self.cost > self.most { self.shed_longest(self.most - self.most / 16) } else { 0 }
    }

    /// Drops packets at the heads of the longest queues (RFC 8290, 4.1.3) until the rest costs no more than `most`. Many
    /// at once, because finding them takes a look at each queue.
    fn shed_longest(&mut self, most: usize) -> u64 {
        let costs = self.members.iter().map(|(key, member)| (member.source.cost(), *key));
        let mut longest: BinaryHeap<(usize, u64)> = costs.collect();
        let mut dropped = 0;
        while self.cost > most {
            let Some((before, key)) = longest.pop() else { break };
            let Some(member) = self.members.get_mut(&key) else { continue };
            dropped += member.source.shed();
            let after = member.source.cost();
            self.cost -= before - after;
            // One that can't shed is not asked again.
            if after < before {
                longest.push((after, key));
            }
        }
        dropped
    }

    /// All queues.
    pub(super) fn into_sources(self) -> impl Iterator<Item = T> {
        self.members.into_values().map(|member| member.source)
    }
}

impl<T: Source> Source for Fair<T> {
    fn is_empty(&self) -> bool {
        self.cost == 0
    }

    fn cost(&self) -> usize {
        self.cost
    }

    fn pop(&mut self, cutter: &mut Cutter) -> Option<Piece> {
        while let Some(candidate) = self.schedule.candidate() {
            let Some(member) = self.members.get_mut(&candidate.flow) else {
                self.schedule.remove(candidate);
                continue;
            };
            if member.source.is_empty() {
                self.schedule.emptied(candidate, &mut member.standing);
                if !member.standing.is_listed() {
                    self.members.remove(&candidate.flow);
                }
                continue;
            }
            if !self.schedule.may_send(candidate, &mut member.standing) {
                continue;
            }
            let before = member.source.cost();
            let piece = member.source.pop(cutter)?;
            self.cost = self.cost + member.source.cost() - before;
            self.schedule.sent(candidate, &mut member.standing, piece.len());
            return Some(piece);
        }
        None
    }

    fn shed(&mut self) -> u64 {
        self.shed_longest((self.cost - self.cost / 16).saturating_sub(1))
    }
}
