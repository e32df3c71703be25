//! The destinations of a UDP mapping or an echo session.
//!
//! Filtering is address-dependent (RFC 4787 REQ-8, RFC 5508 REQ-2): only hosts that the codespace has sent to may
//! answer, so hosts in the laptop's networks can't send unsolicited packets into the codespace.

use std::collections::VecDeque;
use std::net::SocketAddr;

use super::policy::{Judgement, RuleId};

/// What a destination costs in the budget: itself, and the list's spare room.
const COST: usize = 192;
/// What the destinations of one flow may cost: some 1,000 of them. Beyond that, or beyond the flow's share, the oldest is
/// forgotten.
pub(super) const MAX_COST: usize = 1024 * COST;

/// A destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Peer {
    /// The address that the codespace uses.
    pub asked: SocketAddr,
    /// Where its packets are sent to; the policy may have chosen another host or port.
    pub actual: SocketAddr,
}

impl Peer {
    fn is_translated(&self) -> bool {
        self.asked != self.actual
    }

    /// How well an answer from `source` fits, the best first; `None` if it does not.
    fn rank(&self, source: SocketAddr) -> Option<u8> {
        match self.is_translated() {
            _ if self.actual.ip() != source.ip() => None,
            true => (self.actual == source).then_some(0),
            false if self.actual == source => Some(1),
            false => Some(2),
        }
    }

    /// The address that the codespace knows `source` by.
    fn answers_from(&self, source: SocketAddr) -> SocketAddr {
        if self.is_translated() { self.asked } else { source }
    }
}

/// The destinations of one flow, the most recently added last.
#[derive(Debug, Default)]
pub(super) struct Peers(VecDeque<Known>);

/// A destination, and what has passed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    pub peer: Peer,
    /// The rule that admitted it.
    pub rule: RuleId,
    /// Bytes of payload that were sent there.
    pub uplink_bytes: u64,
    /// Bytes of payload that came from there.
    pub downlink_bytes: u64,
    /// Whether its network has vanished. Nothing from it passes then.
    held: bool,
}

/// The outcome of [`Peers::add`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Added {
    /// Whether the destination is new.
    pub new: bool,
    /// The one that was forgotten to make room.
    pub forgotten: Option<Known>,
}

impl Peers {
    /// What they cost.
    pub(super) fn charge(&self) -> usize {
        self.0.len() * COST
    }

    /// A datagram of `bytes` is sent there, admitted by `rule`. All destinations may cost `most`.
    pub(super) fn add(&mut self, peer: Peer, rule: RuleId, bytes: usize, most: usize) -> Added {
        let bytes = bytes as u64;
        if let Some(known) = self.0.iter_mut().rev().find(|known| known.peer == peer) {
            (known.held, known.rule) = (false, rule);
            known.uplink_bytes += bytes;
            return Added { new: false, forgotten: None };
        }
        let forgotten = if self.charge() + COST > most { self.0.pop_front() } else { None };
        self.0.push_back(Known { peer, rule, uplink_bytes: bytes, downlink_bytes: 0, held: false });
        Added { new: true, forgotten }
    }

    /// All destinations.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Known> {
        self.0.iter()
    }

    /// The destination that was added last.
    pub(super) fn last(&self) -> Option<&Known> {
        self.0.back()
    }

    /// The address that the codespace knows `source` by; `None` if it has sent nothing there, or if its network has
    /// vanished.
    ///
    /// A host that was asked by its own address may answer from any port, as TFTP servers do. If the
    /// policy replaced the destination, the answer must come from exactly the address and port that it chose: the
    /// codespace did not ask for any other port of that host.
    pub(super) fn asked(&self, source: SocketAddr) -> Option<SocketAddr> {
        self.position(source).map(|position| self.0[position].peer.answers_from(source))
    }

    /// The same for a datagram of `bytes` that arrived from `source`.
    pub(super) fn receives(&mut self, source: SocketAddr, bytes: usize) -> Option<SocketAddr> {
        let position = self.position(source)?;
        let known = &mut self.0[position];
        known.downlink_bytes += bytes as u64;
        Some(known.peer.answers_from(source))
    }

    fn position(&self, source: SocketAddr) -> Option<usize> {
        // One pass, because there may be a thousand. The first of the best matches is kept: the latest destination.
        let matches = self.0.iter().enumerate().rev().filter(|(_, known)| !known.held);
        let ranked = matches.filter_map(|(at, known)| Some((known.peer.rank(source)?, at)));
        ranked.min_by_key(|(rank, _)| *rank).map(|(_, at)| at)
    }

    /// The destination that was added last, as the codespace names it.
    pub(super) fn latest(&self) -> Option<SocketAddr> {
        self.0.back().map(|known| known.peer.asked)
    }

    /// Judges every peer: those that are to end are forgotten, and added to `ended`. Returns the judgement on the flow.
    pub(super) fn judge(
        &mut self,
        judge: impl Fn(&Peer) -> (Judgement, RuleId),
        ended: &mut Vec<Known>,
    ) -> Judgement {
        self.0.retain_mut(|known| {
            let judgement;
            (judgement, known.rule) = judge(&known.peer);
            known.held = judgement == Judgement::Hold;
            if judgement == Judgement::End {
                ended.push(*known);
            }
            judgement != Judgement::End
        });
        self.0.shrink_to_fit();
        match self.0.iter().any(|known| known.held) {
            true => Judgement::Hold,
            false if self.0.is_empty() => Judgement::End,
            false => Judgement::Keep,
        }
    }

    /// Forgets the peers that are held, and adds them to `ended`. Returns whether any is left.
    pub(super) fn forget_held(&mut self, ended: &mut Vec<Known>) -> bool {
        ended.extend(self.0.iter().filter(|known| known.held));
        self.0.retain(|known| !known.held);
        self.0.shrink_to_fit();
        !self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(asked: &str, actual: &str) -> Peer {
        Peer { asked: asked.parse().unwrap(), actual: actual.parse().unwrap() }
    }

    #[test]
    fn a_translated_peer_is_known_by_its_port_alone() {
        let mut peers = Peers::default();
        peers.add(peer("10.1.0.1:5432", "127.0.0.1:15432"), RuleId(0), 1, MAX_COST);
        peers.add(peer("10.20.0.1:69", "10.20.0.1:69"), RuleId(0), 1, MAX_COST);
        let asked = |source: &str| peers.asked(source.parse().unwrap()).map(|asked| asked.to_string());
        assert_eq!(asked("127.0.0.1:15432").as_deref(), Some("10.1.0.1:5432"));
        assert_eq!(asked("127.0.0.1:22"), None);
        assert_eq!(asked("10.20.0.1:40000").as_deref(), Some("10.20.0.1:40000"));
        assert_eq!(asked("10.20.0.2:69"), None);
    }
}
