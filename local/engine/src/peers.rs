//! The destinations of a UDP mapping or an echo session.
//!
//! Filtering is address-dependent (RFC 4787 REQ-8, RFC 5508 REQ-2): only hosts that the codespace has sent to may
//! answer, so hosts in the laptop's networks can't send unsolicited packets into the codespace.

use std::collections::VecDeque;
use std::net::SocketAddr;

use super::policy::Judgement;

/// Maximum number of destinations remembered for one flow; beyond that, the oldest is forgotten.
const MAX_PEERS: usize = 1024;

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
}

/// The destinations of one flow, the most recently added last.
#[derive(Debug, Default)]
pub(super) struct Peers(VecDeque<Known>);

#[derive(Debug)]
struct Known {
    peer: Peer,
    /// Whether its network has vanished. Nothing from it passes then.
    held: bool,
}

impl Peers {
    pub(super) fn add(&mut self, peer: Peer) {
        if let Some(known) = self.0.iter_mut().rev().find(|known| known.peer == peer) {
            known.held = false;
            return;
        }
        if self.0.len() == MAX_PEERS {
            self.0.pop_front();
        }
        self.0.push_back(Known { peer, held: false });
    }

    /// The address that the codespace knows `source` by; `None` if it has sent nothing there, or if its network has
    /// vanished.
    ///
    /// A host that was asked by its own address may answer from any port, as TFTP servers do. If the
    /// policy replaced the destination, the answer must come from exactly the address and port that it chose: the
    /// codespace did not ask for any other port of that host.
    pub(super) fn asked(&self, source: SocketAddr) -> Option<SocketAddr> {
        let mut peers = self.0.iter().rev().filter(|known| !known.held).map(|known| known.peer);
        let translated = peers.clone().find(|peer| peer.is_translated() && peer.actual == source);
        let mut plain = || peers.any(|peer| !peer.is_translated() && peer.actual.ip() == source.ip());
        translated.map(|peer| peer.asked).or_else(|| plain().then_some(source))
    }

    /// The destination that was added last, as the codespace names it.
    pub(super) fn latest(&self) -> Option<SocketAddr> {
        self.0.back().map(|known| known.peer.asked)
    }

    /// Judges every peer: those that are to end are forgotten. Returns the judgement on the flow.
    pub(super) fn judge(&mut self, judge: impl Fn(&Peer) -> Judgement) -> Judgement {
        self.0.retain_mut(|known| {
            let judgement = judge(&known.peer);
            known.held = judgement == Judgement::Hold;
            judgement != Judgement::End
        });
        match self.0.iter().any(|known| known.held) {
            true => Judgement::Hold,
            false if self.0.is_empty() => Judgement::End,
            false => Judgement::Keep,
        }
    }

    /// Forgets the peers that are held. Returns whether any is left.
    pub(super) fn forget_held(&mut self) -> bool {
        self.0.retain(|known| !known.held);
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
        peers.add(peer("10.1.0.1:5432", "127.0.0.1:15432"));
        peers.add(peer("10.20.0.1:69", "10.20.0.1:69"));
        let asked = |source: &str| peers.asked(source.parse().unwrap()).map(|asked| asked.to_string());
        assert_eq!(asked("127.0.0.1:15432").as_deref(), Some("10.1.0.1:5432"));
        assert_eq!(asked("127.0.0.1:22"), None);
        assert_eq!(asked("10.20.0.1:40000").as_deref(), Some("10.20.0.1:40000"));
        assert_eq!(asked("10.20.0.2:69"), None);
    }
}
