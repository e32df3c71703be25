//! The packets for the laptop that wait for the link, in a fair order (RFC 8290). Pure.
//!
//! What has been answered has a turn of its own, which [`gh_net_common::schedule`] gives: each TCP connection, and each
//! host that datagrams and echo requests go to. To one host go many flows of those as easily as one, so they share its turn.
//!
//! Anybody can begin what nobody answers by the thousand: a scan, a spray. So that shares, too: all of TCP is one flow in
//! the schedule, all of UDP another one, the rest a third. Within each, there is one queue for each network of
//! destinations: a name server waits behind no scan of other networks. Once there is an answer, what waits moves to its
//! own place. Order within a flow is kept throughout.
//!
//! What the sidecar itself asks the laptop has a turn and a bound of its own ([`OwnSockets`]): its names are everybody's, and
//! a program may send to the same address as much as it likes.
//!
//! What waits is bounded in memory, datagrams apart from connections. Beyond the bounds, packets are dropped at the head
//! of the longest queue, so whoever sends too much loses its own; but not a packet whose first piece has been sent.
//! Nothing is dropped for its age, as CoDel would: a TCP flow has here no more than the windows that the laptop offered,
//! and on a link that loses nothing a dropped segment costs a round trip; the datagrams to a host are bounded in number.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};

use bytes::Bytes;
use gh_net_common::schedule::is_sparse;

use self::answered::Answered;
use self::cut::{Cutter, Waiting};
use self::fair::{Fair, Source};
use self::flow::{Flow, Kind};
use super::held::Held;
use crate::hook::kept_by;
use crate::own_sockets::OwnSockets;

mod answered;
mod cut;
mod fair;
mod flow;

pub(crate) use cut::Piece;

/// What may wait of connections, in bytes: as much as the engine offers in windows if it has the default memory, so that
/// no TCP segment is dropped for want of room.
const MOST_STREAMS: usize = 32 * 1024 * 1024;
/// What may wait of datagrams to hosts that answer.
const MOST_DATAGRAMS: usize = 8 * 1024 * 1024;
/// What may wait to one host. Later datagrams are worth more than those that have waited for long.
const MOST_TO_HOST: usize = 1024 * 1024;
/// What may wait of flows of one kind without an answer. More is a flood, and would make the others of them wait.
const MOST_NEW: usize = 1024 * 1024;
/// What may wait of the sidecar's own: more than it has in questions at a time, each of two datagrams at most.
const MOST_OWN: usize = 1024 * 1024;
/// The bounds, by [`Source::bound`].
const BOUNDS: [usize; 4] = [MOST_STREAMS, MOST_DATAGRAMS, Kind::ALL.len() * MOST_NEW, MOST_OWN];
/// What a waiting packet costs beside its bytes: its place in a queue, and that queue's in the table.
const PACKET: usize = 512;
/// Bytes that flows to one network without an answer send in their turn: a few SYNs or questions. The first of another
/// network waits for that of each network that has just begun.
const NEW_QUANTUM: usize = 256;

/// See the [module's documentation](self).
#[derive(Debug)]
pub(crate) struct Uplink {
    waiting: Fair<Branch, 4>,
    own: OwnSockets,
    /// Connections that were answered, and hosts.
    connections: Answered,
    hosts: Answered,
    held: Held,
    cutter: Cutter,
    /// Keyed by chance, so that nobody can choose packets of one hash.
    hasher: RandomState,
}

/// What has a turn of its own.
#[derive(Debug)]
enum Branch {
    /// An answered connection.
    Stream(Queue),
    /// A host that answers, by flow.
    Host(Box<Fair<Queue>>),
    /// Flows of one kind without an answer, by the network of their destination.
    New(Box<Fair<Queue>>),
    /// What the sidecar itself asks, by flow.
    Own(Box<Fair<Queue>>),
}

/// Packets in the order in which they came.
#[derive(Debug, Default)]
struct Queue {
    packets: VecDeque<Entry>,
    cost: usize,
}

/// A packet of a queue.
#[derive(Debug)]
struct Entry {
    /// Its flow.
    flow: u64,
    /// Where it moves once it is answered.
    place: u64,
    waiting: Waiting,
}

fn waiting() -> Fair<Branch, 4> {
    Fair::new(NEW_QUANTUM, BOUNDS)
}

impl Uplink {
    /// Nothing waits. `own` are the sockets of the sidecar itself.
    pub(crate) fn new(own: OwnSockets) -> Self {
        let hasher = RandomState::new();
        Self {
            waiting: waiting(),
            own,
            connections: Answered::default(),
            hosts: Answered::default(),
            held: Held::default(),
            cutter: Cutter::new(hasher.hash_one("identification") as u16),
            hasher,
        }
    }

    /// Adds a packet. Returns how many were dropped to make room.
    pub(crate) fn push(&mut self, packet: Bytes) -> u64 {
        let flow = Flow::of(&packet);
        let (place, is_stream) = (self.place(flow), is_stream(flow));
        // The place of a connection is its own.
        let hash = if is_stream { place } else { self.hasher.hash_one(flow) };
        let entry = Entry { flow: hash, place, waiting: Waiting::new(packet) };
        if flow.and_then(|flow| flow.five_tuple()).is_some_and(|tuple| self.own.sent(tuple)) {
            let own = || Branch::Own(Box::new(Fair::new(NEW_QUANTUM, [MOST_OWN])));
            return self.push_into(self.hasher.hash_one("own"), own, [entry]);
        }
        // Behind its earlier packets, also if it has been forgotten meanwhile.
        if self.answered(is_stream).contains(place)
            || self.waiting.peek(place).is_some_and(|branch| branch.has(hash))
        {
            return self.push_answered(place, is_stream, [entry]);
        }
        let network = self.network(flow);
        self.change_new(flow, |new| new.change(network, Queue::default, |queue| queue.push(entry)))
    }

    /// The next packet, or a piece of it that is no larger than `largest`, if it can be cut.
    pub(crate) fn pop(&mut self, largest: usize) -> Option<Piece> {
        self.cutter.largest = largest;
        self.waiting.set_quantum(largest);
        self.waiting.pop(&mut self.cutter)
    }

    /// A packet came from the laptop: its flow is answered. Returns how many packets were dropped.
    pub(crate) fn heard(&mut self, packet: &[u8]) -> u64 {
        let Some(flow) = Flow::answered_by(packet) else { return 0 };
        let flow = Some(flow);
        let (place, is_stream) = (self.place(flow), is_stream(flow));
        if !self.answered(is_stream).insert(place) {
            return 0;
        }
        let network = self.network(flow);
        let Some(Branch::New(new)) = self.waiting.peek(self.kind(flow)) else { return 0 };
        if !new.peek(network).is_some_and(|queue| queue.packets.iter().any(|entry| entry.place == place)) {
            return 0;
        }
        let mut moved = VecDeque::new();
        let dropped = self
            .change_new(flow, |new| new.change(network, Queue::default, |queue| moved = queue.take(place)));
        dropped + self.push_answered(place, is_stream, moved)
    }

    /// There is a link again: what was held goes first, each in its turn. Returns how many packets were dropped.
    pub(crate) fn resume(&mut self) -> u64 {
        let mut dropped = 0;
        while let Some(packet) = self.held.pop() {
            dropped += self.push(packet);
        }
        dropped
    }

    /// Without a link, a packet is held or dropped.
    pub(crate) fn hold(&mut self, packet: &[u8]) {
        self.held.offer(packet);
    }

    /// The link is gone.
    pub(crate) fn hold_all(&mut self) {
        for branch in std::mem::replace(&mut self.waiting, waiting()).into_sources() {
            match branch {
                Branch::Stream(queue) => self.hold_queue(queue),
                Branch::Host(queues) | Branch::New(queues) | Branch::Own(queues) => {
                    queues.into_sources().for_each(|queue| self.hold_queue(queue));
                }
            }
        }
    }

    fn hold_queue(&mut self, queue: Queue) {
        queue.packets.into_iter().for_each(|entry| self.held.offer(&entry.waiting.into_packet()));
    }

    fn network(&self, flow: Option<Flow>) -> u64 {
        self.hasher.hash_one(flow.map(|flow| flow.network()))
    }

    /// The place of what is answered together.
    fn place(&self, flow: Option<Flow>) -> u64 {
        if is_stream(flow) {
            self.hasher.hash_one(flow)
        } else {
            self.hasher.hash_one(flow.map(|flow| flow.host()))
        }
    }

    /// The place of the flows without an answer of the same kind.
    fn kind(&self, flow: Option<Flow>) -> u64 {
        self.hasher.hash_one(flow.map_or(Kind::Other, |flow| flow.kind()))
    }

    fn answered(&mut self, is_stream: bool) -> &mut Answered {
        if is_stream { &mut self.connections } else { &mut self.hosts }
    }

    fn push_answered(
        &mut self,
        place: u64,
        is_stream: bool,
        entries: impl IntoIterator<Item = Entry>,
    ) -> u64 {
        let new = || match is_stream {
            true => Branch::Stream(Queue::default()),
            false => Branch::Host(Box::new(Fair::new(NEW_QUANTUM, [MOST_TO_HOST]))),
        };
        self.push_into(place, new, entries)
    }

    fn push_into(
        &mut self,
        place: u64,
        new: impl FnOnce() -> Branch,
        entries: impl IntoIterator<Item = Entry>,
    ) -> u64 {
        let mut dropped = 0;
        let beyond = self.waiting.change(place, new, |branch| match branch {
            Branch::Stream(queue) => entries.into_iter().for_each(|entry| queue.push(entry)),
            Branch::Host(queues) | Branch::New(queues) | Branch::Own(queues) => {
                for entry in entries {
                    dropped += queues.change(entry.flow, Queue::default, |queue| queue.push(entry));
                }
            }
        });
        dropped + beyond
    }

    /// Changes the queues of the flows without an answer of the same kind as `flow`. Returns how many packets were dropped.
    fn change_new(&mut self, flow: Option<Flow>, change: impl FnOnce(&mut Fair<Queue>) -> u64) -> u64 {
        let new = || Branch::New(Box::new(Fair::new(NEW_QUANTUM, [MOST_NEW])));
        let mut dropped = 0;
        let beyond = self.waiting.change(self.kind(flow), new, |branch| {
            if let Branch::New(new) = branch {
                dropped += change(new);
            }
        });
        dropped + beyond
    }
}

fn is_stream(flow: Option<Flow>) -> bool {
    flow.is_some_and(|flow| flow.kind() == Kind::Tcp)
}

impl Queue {
    fn push(&mut self, entry: Entry) {
        self.cost += cost(&entry.waiting);
        self.packets.push_back(entry);
    }

    /// Takes out the packets of one place.
    fn take(&mut self, place: u64) -> VecDeque<Entry> {
        let (taken, left): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut self.packets).into_iter().partition(|entry| entry.place == place);
        self.packets = left;
        self.cost -= taken.iter().map(|entry| cost(&entry.waiting)).sum::<usize>();
        taken
    }

    /// Removes a packet. Returns how many, one or none.
    fn remove(&mut self, at: usize) -> u64 {
        let Some(entry) = self.packets.remove(at) else { return 0 };
        self.cost -= cost(&entry.waiting);
        if is_sparse(self.packets.len(), self.packets.capacity()) {
            self.packets.shrink_to(2 * self.packets.len());
        }
        1
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
        let (piece, is_last) = self.packets.front_mut()?.waiting.next(cutter);
        if is_last {
            self.remove(0);
        }
        Some(piece)
    }

    fn shed(&mut self) -> u64 {
        // Without its end, what has been sent of the first one would have been sent in vain.
        let is_begun = self.packets.front().is_some_and(|entry| entry.waiting.is_begun());
        self.remove(usize::from(is_begun))
    }
}

impl Branch {
    /// Whether packets of this flow wait here.
    fn has(&self, flow: u64) -> bool {
        match self {
            Self::Stream(queue) => !queue.is_empty(),
            Self::Host(queues) | Self::New(queues) | Self::Own(queues) => {
                queues.peek(flow).is_some_and(|queue| !queue.is_empty())
            }
        }
    }
}

impl Source for Branch {
    fn bound(&self) -> usize {
        match self {
            Self::Stream(_) => 0,
            Self::Host(_) => 1,
            Self::New(_) => 2,
            Self::Own(_) => 3,
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Stream(queue) => queue.is_empty(),
            Self::Host(queues) | Self::New(queues) | Self::Own(queues) => queues.is_empty(),
        }
    }

    fn cost(&self) -> usize {
        match self {
            Self::Stream(queue) => queue.cost(),
            Self::Host(queues) | Self::New(queues) | Self::Own(queues) => queues.cost(),
        }
    }

    fn pop(&mut self, cutter: &mut Cutter) -> Option<Piece> {
        match self {
            Self::Stream(queue) => queue.pop(cutter),
            Self::Host(queues) | Self::Own(queues) => {
                queues.set_quantum(cutter.largest);
                queues.pop(cutter)
            }
            Self::New(queues) => queues.pop(cutter),
        }
    }

    fn shed(&mut self) -> u64 {
        match self {
            Self::Stream(queue) => queue.shed(),
            Self::Host(queues) | Self::New(queues) | Self::Own(queues) => queues.shed(),
        }
    }
}

#[cfg(test)]
mod tests;
