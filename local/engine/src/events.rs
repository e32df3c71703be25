//! What the engine tells of its flows, for the status, the log and an audit. Nothing here decides anything.
//!
//! A flow is told of by its five-tuple. A UDP mapping and an echo session have several destinations, and each of them is
//! told of as a flow of its own. Connections to the laptop's resolver are not told of: nothing leaves the laptop by them.
//!
//! Denials repeat: a program tries again, or scans. The first one of its kind (protocol, destination, rule) is told of at
//! once; those that follow within [`MERGED`] are counted, and told of as one. What nobody polls is bounded and counted.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::api::{ConnectError, FlowId};
use super::policy::{Protocol, Refusal, RuleId};

/// Events that may wait to be polled: all connections of a full table may end at once, and about as many mappings. Some
/// 2 MiB.
const MAX_EVENTS: usize = 16 * 1024;
/// Kinds of denials that are merged at a time; beyond that, the oldest is no longer merged.
const MAX_DENIALS: usize = 1024;
/// How long denials of one kind are merged into one event.
const MERGED: Duration = Duration::from_secs(10);

/// Something that happened to a flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The policy admitted a flow, and its socket is being opened.
    Opened(FlowEvent),
    /// A flow has ended.
    Closed {
        /// Which one.
        flow: FlowEvent,
        /// Bytes of payload that went to the host.
        uplink_bytes: u64,
        /// Bytes of payload that came from the host.
        downlink_bytes: u64,
        /// How it ended.
        ending: Ending,
    },
    /// The policy refused a flow.
    Denied(Denied),
}

/// The identity of a flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowEvent {
    /// Its number. The destinations of one mapping or session share one.
    pub flow: FlowId,
    /// Its transport protocol.
    pub protocol: Protocol,
    /// The program in the codespace. For echo the port is the identifier.
    pub client: SocketAddr,
    /// The destination as the program names it. For echo the port is 0.
    pub destination: SocketAddr,
    /// Where the laptop's socket leads instead, if the policy chose another destination.
    pub actual: Option<SocketAddr>,
    /// The name of the destination, if it is known.
    pub name: Option<Arc<str>>,
    /// The rule that decided last: that admitted the flow, or that ended it.
    pub rule: RuleId,
}

/// A refused flow, or several of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied {
    /// The transport protocol.
    pub protocol: Protocol,
    /// The program in the codespace, of several the last one. For echo the port is the identifier.
    pub client: SocketAddr,
    /// The destination. For echo the port is 0.
    pub destination: SocketAddr,
    /// The name of the destination, if it is known.
    pub name: Option<Arc<str>>,
    /// The answer to the codespace.
    pub refusal: Refusal,
    /// The rule that decided.
    pub rule: RuleId,
    /// How many packets were refused.
    pub count: u64,
}

/// How a flow ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// In an orderly way, by both sides.
    Finished,
    /// The codespace reset it, or gave up and began another one.
    ResetByCodespace,
    /// The host reset it, or its socket failed.
    ResetByHost,
    /// The host's socket could not be connected.
    ConnectFailed(ConnectError),
    /// Nothing passed for too long, or the codespace did not answer.
    TimedOut,
    /// A new policy does not admit it.
    Revoked,
    /// It gave way to others.
    Evicted,
    /// The session ended.
    SessionEnd,
}

type Kind = (Protocol, SocketAddr, RuleId);

/// Events that wait to be polled, and denials that are merged.
#[derive(Debug, Default)]
pub(super) struct Events {
    /// Whether flows that open and close are told of.
    flows: bool,
    queue: VecDeque<Event>,
    lost: u64,
    denials: HashMap<Kind, Denied>,
    /// The kinds of denials by the end of their time, oldest first.
    order: VecDeque<(Instant, Kind)>,
    /// How many kinds have denials that were not told of.
    untold: usize,
}

impl Events {
    pub(super) fn set_flows(&mut self, flows: bool) {
        self.flows = flows;
    }

    pub(super) fn has_flows(&self) -> bool {
        self.flows
    }

    pub(super) fn poll(&mut self) -> Option<Event> {
        self.queue.pop_front()
    }

    /// How many events were lost because nobody polled.
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    pub(super) fn push(&mut self, event: Event) {
        if self.queue.len() >= MAX_EVENTS {
            self.lost += 1;
        } else {
            self.queue.push_back(event);
        }
    }

    /// A packet was refused; `denied.count` is 1.
    pub(super) fn deny(&mut self, denied: Denied, now: Instant) {
        let kind = (denied.protocol, denied.destination, denied.rule);
        if let Some(merged) = self.denials.get_mut(&kind) {
            let count = merged.count + 1;
            self.untold += usize::from(merged.count == 0);
            *merged = Denied { count, ..denied };
            return;
        }
        if self.order.len() >= MAX_DENIALS {
            self.forget_oldest();
        }
        self.order.push_back((now + MERGED, kind));
        self.denials.insert(kind, Denied { count: 0, ..denied.clone() });
        self.push(Event::Denied(denied));
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.order.front().filter(|_| self.untold > 0).map(|(at, _)| *at)
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        while self.order.front().is_some_and(|(at, _)| *at <= now) {
            if let Some(kind) = self.forget_oldest() {
                // It goes on: what follows is merged again.
                self.order.push_back((now + MERGED, (kind.protocol, kind.destination, kind.rule)));
                self.denials
                    .insert((kind.protocol, kind.destination, kind.rule), Denied { count: 0, ..kind });
            }
        }
    }

    /// Tells of all merged denials, and merges no more into them.
    pub(super) fn flush(&mut self) {
        while !self.order.is_empty() {
            self.forget_oldest();
        }
    }

    /// Tells of the oldest kind's merged denials, if there are any, and forgets it.
    fn forget_oldest(&mut self) -> Option<Denied> {
        let (_, kind) = self.order.pop_front()?;
        let denied = self.denials.remove(&kind).filter(|denied| denied.count > 0)?;
        self.untold -= 1;
        self.push(Event::Denied(denied.clone()));
        Some(denied)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denied(port: u16) -> Denied {
        Denied {
            protocol: Protocol::Tcp,
            client: SocketAddr::from(([10, 1, 0, 2], 40_000)),
            destination: SocketAddr::from(([10, 20, 0, 10], port)),
            name: None,
            refusal: Refusal::Prohibited,
            rule: RuleId(7),
            count: 1,
        }
    }

    fn counts(events: &mut Events) -> Vec<u64> {
        let count = |event| match event {
            Event::Denied(denied) => denied.count,
            Event::Opened(_) | Event::Closed { .. } => panic!("{event:?}"),
        };
        std::iter::from_fn(|| events.poll()).map(count).collect()
    }

    #[test]
    fn a_burst_of_one_kind_is_told_of_at_once_and_then_as_one() {
        let (mut events, now) = (Events::default(), Instant::now());
        events.deny(denied(80), now);
        assert_eq!((counts(&mut events), events.deadline()), (vec![1], None), "nothing is left to tell");
        for _ in 0..999 {
            events.deny(denied(80), now);
        }
        assert_eq!((counts(&mut events), events.deadline()), (vec![], Some(now + MERGED)));
        events.handle_timeout(now + MERGED);
        assert_eq!(counts(&mut events), [999]);
        events.deny(denied(80), now + MERGED);
        assert_eq!(counts(&mut events), [], "the burst goes on");
        events.handle_timeout(now + 2 * MERGED);
        events.handle_timeout(now + 3 * MERGED);
        assert_eq!(counts(&mut events), [1]);
        events.deny(denied(80), now + 4 * MERGED);
        assert_eq!(counts(&mut events), [1], "another burst");
    }

    #[test]
    fn what_is_kept_is_bounded_and_nothing_is_lost_silently() {
        let (mut events, now) = (Events::default(), Instant::now());
        let mut told = 0;
        for port in 0..=u16::MAX {
            events.deny(denied(port), now);
            events.deny(denied(port), now);
            assert!(events.denials.len() <= MAX_DENIALS && events.queue.len() <= MAX_EVENTS);
        }
        events.flush();
        assert_eq!((events.deadline(), events.untold, events.denials.len()), (None, 0, 0));
        told += counts(&mut events).len() as u64;
        assert_eq!(told + events.lost(), 2 * 65_536);
    }
}
