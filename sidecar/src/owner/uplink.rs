//! The packets for the laptop that wait for the link, in a fair order (RFC 8290). Pure.
//!
//! Each flow that somebody has answered has a queue of its own: TCP and UDP by addresses and ports, echo requests by
//! addresses and identifier. [`gh_net_common::schedule`] says which one sends next.
//!
//! Anybody can begin flows by the thousand: a scan, a spray. So flows without an answer share: all of TCP are one flow in
//! the schedule, all of UDP another one, the rest a third. Within each, they have one queue for each network of
//! destinations: a name server waits behind no scan of other networks. Once a flow is answered, what waits of it moves
//! to its own queue. Order within a flow is kept throughout.
//!
//! What waits is bounded in memory. Beyond the bounds, packets are dropped at the head of the longest queue, so whoever
//! sends too much loses its own. Nothing is dropped for its age, as CoDel would: a TCP flow has here no more than the
//! windows that the laptop offered, and on a link that loses nothing a dropped segment costs a round trip; the datagrams
//! of a flow are bounded in number.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};

use bytes::Bytes;

use self::answered::Answered;
use self::cut::{Cutter, Waiting};
use self::fair::{Fair, Source};
use self::flow::{Flow, Kind};
use super::held::Held;
use crate::hook::kept_by;

mod answered;
mod cut;
mod fair;
mod flow;

pub(crate) use cut::Piece;

/// What may wait in all, in bytes: as much as the engine offers in windows if it has the default memory, so that no TCP
/// segment is dropped for want of room.
const MOST: usize = 32 * 1024 * 1024;
/// What may wait of flows of one kind without an answer. More is a flood, and would make the others of them wait.
const MOST_NEW: usize = 1024 * 1024;
/// What may wait of one flow of datagrams. Later ones are worth more than those that have waited for long.
const MOST_DATAGRAMS: usize = 1024 * 1024;
/// What a waiting packet costs beside its bytes: its place in a queue, and that queue's in the table.
const PACKET: usize = 320;
/// Bytes that flows to one network without an answer send in their turn: a few SYNs or questions. The first of another
/// network waits for that of each network that has just begun.
const NEW_QUANTUM: usize = 256;

/// See the [module's documentation](self).
#[derive(Debug)]
pub(crate) struct Uplink {
    waiting: Fair<Branch>,
    answered: Answered,
    held: Held,
    cutter: Cutter,
    /// Keyed by chance, so that nobody can choose packets of one hash.
    hasher: RandomState,
}

/// What has a turn of its own.
#[derive(Debug)]
enum Branch {
    /// An answered flow.
    Flow(Queue),
    /// Flows of one kind without an answer, by the network of their destination.
    New(Fair<Queue>),
}

/// Packets in the order in which they came, and the hash of the flow of each.
#[derive(Debug, Default)]
struct Queue {
    packets: VecDeque<(u64, Waiting)>,
    cost: usize,
}

impl Default for Uplink {
    fn default() -> Self {
        let hasher = RandomState::new();
        Self {
            waiting: waiting(),
            answered: Answered::default(),
            held: Held::default(),
            cutter: Cutter::new(hasher.hash_one("identification") as u16),
            hasher,
        }
    }
}

fn waiting() -> Fair<Branch> {
    Fair::new(NEW_QUANTUM, MOST)
}

impl Uplink {
    /// Adds a packet. Returns how many were dropped to make room.
    pub(crate) fn push(&mut self, packet: Bytes) -> u64 {
        let flow = Flow::of(&packet);
        let hash = self.hasher.hash_one(flow);
        let is_stream = flow.is_some_and(|flow| flow.kind() == Kind::Tcp);
        // Behind its earlier packets, also if it has been forgotten meanwhile.
        let has_queue = || matches!(self.waiting.peek(hash), Some(Branch::Flow(queue)) if !queue.is_empty());
        let mut dropped = 0;
        let waiting = Waiting::new(packet);
        if self.answered.contains(hash) || has_queue() {
            dropped += self.waiting.change(
                hash,
                || Branch::Flow(Queue::default()),
                |branch| {
                    let Branch::Flow(queue) = branch else { return };
                    queue.push(hash, waiting);
                    while !is_stream && queue.cost > MOST_DATAGRAMS {
                        dropped += queue.shed();
                    }
                },
            );
        } else {
            let network = self.network(flow);
            self.change_new(flow, |new| {
                dropped += new.change(network, Queue::default, |queue| queue.push(hash, waiting));
            });
        }
        dropped
    }

    /// The next packet, or a piece of it that is no larger than `largest`, if it can be cut.
    pub(crate) fn pop(&mut self, largest: usize) -> Option<Piece> {
        // The oldest, of the time without a link.
        if let Some(packet) = self.held.pop() {
            return Some(Piece::whole(packet));
        }
        self.cutter.largest = largest;
        self.waiting.set_quantum(largest);
        self.waiting.pop(&mut self.cutter)
    }

    /// A packet came from the laptop: its flow is answered.
    pub(crate) fn heard(&mut self, packet: &[u8]) {
        let Some(flow) = Flow::answered_by(packet) else { return };
        let hash = self.hasher.hash_one(Some(flow));
        if !self.answered.insert(hash) {
            return;
        }
        let network = self.network(Some(flow));
        let mut moved = VecDeque::new();
        self.change_new(Some(flow), |new| {
            if new.peek(network).is_some() {
                new.change(network, Queue::default, |queue| moved = queue.take(hash));
            }
        });
        if !moved.is_empty() {
            let own = || Branch::Flow(Queue::default());
            self.waiting.change(hash, own, |branch| {
                let Branch::Flow(queue) = branch else { return };
                moved.into_iter().for_each(|waiting| queue.push(hash, waiting));
            });
        }
    }

    /// Without a link, a packet is held or dropped.
    pub(crate) fn hold(&mut self, packet: &[u8]) {
        self.held.offer(packet);
    }

    /// The link is gone.
    pub(crate) fn hold_all(&mut self) {
        for branch in std::mem::replace(&mut self.waiting, waiting()).into_sources() {
            match branch {
                Branch::Flow(queue) => {
                    queue.packets.into_iter().for_each(|(_, it)| self.held.offer(&it.into_packet()))
                }
                Branch::New(new) => {
                    let packets = new.into_sources().flat_map(|queue| queue.packets);
                    packets.for_each(|(_, it)| self.held.offer(&it.into_packet()));
                }
            }
        }
    }

    fn network(&self, flow: Option<Flow>) -> u64 {
        self.hasher.hash_one(flow.map(|flow| flow.network()))
    }

    /// Changes the queues of the flows without an answer of the same kind as `flow`.
    fn change_new(&mut self, flow: Option<Flow>, change: impl FnOnce(&mut Fair<Queue>)) -> u64 {
        let kind = flow.map_or(Kind::Other, |flow| flow.kind());
        let key = self.hasher.hash_one(kind);
        let new = || Branch::New(Fair::new(NEW_QUANTUM, MOST_NEW));
        self.waiting.change(key, new, |branch| {
            if let Branch::New(new) = branch {
                change(new);
            }
        })
    }
}

impl Queue {
    fn push(&mut self, flow: u64, waiting: Waiting) {
        self.cost += cost(&waiting);
        self.packets.push_back((flow, waiting));
    }

    /// Takes out the packets of one flow.
    fn take(&mut self, flow: u64) -> VecDeque<Waiting> {
        let (taken, left): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut self.packets).into_iter().partition(|(of, _)| *of == flow);
        self.packets = left;
        self.cost -= taken.iter().map(|(_, waiting)| cost(waiting)).sum::<usize>();
        taken.into_iter().map(|(_, waiting)| waiting).collect()
    }
}

fn cost(waiting: &Waiting) -> usize {
    kept_by(waiting.len()) + PACKET
}

impl Source for Queue {
    fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    fn cost(&self) -> usize {
        self.cost
    }

    fn pop(&mut self, cutter: &mut Cutter) -> Option<Piece> {
        let (_, waiting) = self.packets.front_mut()?;
        let (piece, is_last) = waiting.next(cutter);
        if is_last {
            self.shed();
        }
        Some(piece)
    }

    fn shed(&mut self) -> u64 {
        let Some((_, waiting)) = self.packets.pop_front() else { return 0 };
        self.cost -= cost(&waiting);
        1
    }
}

impl Source for Branch {
    fn is_empty(&self) -> bool {
        match self {
            Self::Flow(queue) => queue.is_empty(),
            Self::New(new) => new.is_empty(),
        }
    }

    fn cost(&self) -> usize {
        match self {
            Self::Flow(queue) => queue.cost(),
            Self::New(new) => new.cost(),
        }
    }

    fn pop(&mut self, cutter: &mut Cutter) -> Option<Piece> {
        match self {
            Self::Flow(queue) => queue.pop(cutter),
            Self::New(new) => new.pop(cutter),
        }
    }

    fn shed(&mut self) -> u64 {
        match self {
            Self::Flow(queue) => queue.shed(),
            Self::New(new) => new.shed(),
        }
    }
}

#[cfg(test)]
mod tests;
