//! Echo sessions: one echo socket of the host for each identifier that a program in the codespace uses (RFC 5508).

use std::net::IpAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use etherparse::IpNumber;

use super::deadline::Pause;
use super::packet::{Malformed, Packet};
use super::peers::Peers;
use super::queue::Queue;

/// How long a session lives after its last request or reply (RFC 5508 REQ-2: at least 60 seconds).
const LIFETIME: Duration = Duration::from_secs(60);

/// One session.
#[derive(Debug)]
pub(super) struct Session {
    /// The host in the codespace.
    pub client: IpAddr,
    /// Its identifier.
    pub identifier: u16,
    /// Replies for it.
    pub queue: Queue,
    /// The hosts that were asked; their ports are 0.
    pub peers: Peers,
    /// Whether any of them has replied.
    pub answered: bool,
    last: Instant,
}

impl Session {
    pub(super) fn new(client: IpAddr, identifier: u16, now: Instant) -> Self {
        let (queue, peers) = (Queue::default(), Peers::default());
        Self { client, identifier, queue, peers, answered: false, last: now }
    }

    /// A request or a reply passes.
    pub(super) fn touch(&mut self, now: Instant) {
        self.last = now;
    }

    /// Ends a time without a link, which does not count towards time-outs.
    pub(super) fn resume(&mut self, pause: Pause) {
        self.last = pause.shift(self.last);
    }

    /// When the session ends if nothing more happens.
    pub(super) fn deadline(&self) -> Instant {
        self.last + LIFETIME
    }
}

/// An echo request.
#[derive(Debug)]
pub(super) struct Request {
    pub identifier: u16,
    pub sequence: u16,
    pub payload: Bytes,
}

impl Request {
    /// The echo request in `packet`; `None` if it is another ICMP message, none of which is forwarded.
    pub(super) fn parse(packet: &Packet) -> Result<Option<Self>, Malformed> {
        let &[kind, code, _, _, a, b, c, d] = packet.payload.first_chunk().ok_or(Malformed::Transport)?;
        let v6 = packet.protocol == IpNumber::IPV6_ICMP;
        if v6 != packet.source.is_ipv6() {
            return Err(Malformed::Transport);
        }
        let right = if v6 {
            packet.transport_checksum() == 0
        } else {
            gh_net_common::checksum::of(&packet.payload) == 0
        };
        if !right {
            return Err(Malformed::Checksum);
        }
        let request = if v6 { 128 } else { 8 };
        Ok((kind == request && code == 0).then(|| Self {
            identifier: u16::from_be_bytes([a, b]),
            sequence: u16::from_be_bytes([c, d]),
            payload: packet.payload.slice(8..),
        }))
    }
}
