//! UDP mappings (RFC 4787): one socket of the host for each endpoint of the codespace.
//!
//! The mapping is endpoint-independent (REQ-1): all destinations see an endpoint at one port. [`Peers`] decides which
//! hosts may answer.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use etherparse::UdpSlice;

use super::deadline::Pause;
use super::packet::{Malformed, Packet};
use super::peers::{Added, Peer, Peers};
use super::policy::RuleId;
use super::queue::Queue;

/// A mapping lives this long after the last datagram (RFC 4787 REQ-5 a).
const ONE_WAY: Duration = Duration::from_secs(2 * 60);
/// The same once datagrams went both ways (REQ-5 c recommends 5 minutes).
const TWO_WAY: Duration = Duration::from_secs(5 * 60);
/// The same if only DNS servers were asked: a stub resolver takes a new port for each query.
const DNS: Duration = Duration::from_secs(10);

/// One mapping.
#[derive(Debug)]
pub(super) struct Mapping {
    /// The endpoint in the codespace.
    pub client: SocketAddr,
    /// Datagrams for it.
    pub queue: Queue,
    /// The destinations it has sent to.
    pub peers: Peers,
    /// Whether any of them has answered.
    pub answered: bool,
    only_dns: bool,
    last: Instant,
}

impl Mapping {
    pub(super) fn new(client: SocketAddr, now: Instant) -> Self {
        Self {
            client,
            queue: Queue::default(),
            peers: Peers::default(),
            answered: false,
            only_dns: true,
            last: now,
        }
    }

    /// The endpoint sends a datagram of `bytes`, admitted by `rule`. Its destinations may cost `most`.
    pub(super) fn sends(
        &mut self,
        peer: Peer,
        rule: RuleId,
        bytes: usize,
        most: usize,
        now: Instant,
    ) -> Added {
        self.last = now;
        self.only_dns &= peer.asked.port() == 53;
        self.peers.add(peer, rule, bytes, most)
    }

    /// A datagram of `bytes` has arrived from `source`. Returns the source address that the endpoint knows, or `None` if the
    /// datagram is filtered.
    pub(super) fn receives(&mut self, source: SocketAddr, bytes: usize, now: Instant) -> Option<SocketAddr> {
        let source = self.peers.receives(source, bytes)?;
        self.answered = true;
        self.last = now;
        Some(source)
    }

    /// Ends a time without a link, which does not count towards time-outs.
    pub(super) fn resume(&mut self, pause: Pause) {
        self.last = pause.shift(self.last);
    }

    /// When the mapping ends if nothing more happens.
    pub(super) fn deadline(&self) -> Instant {
        self.last
            + match (self.only_dns, self.answered) {
                (true, _) => DNS,
                (false, true) => TWO_WAY,
                (false, false) => ONE_WAY,
            }
    }
}

/// Ports and payload of a datagram.
#[derive(Debug)]
pub(super) struct Datagram {
    pub source_port: u16,
    pub destination_port: u16,
    pub payload: bytes::Bytes,
}

impl Datagram {
    pub(super) fn parse(packet: &Packet) -> Result<Self, Malformed> {
        let udp = UdpSlice::from_slice(&packet.payload).map_err(|_| Malformed::Transport)?;
        // Without a checksum only IPv4 is legal (RFC 8200, 8.1).
        let unchecked = udp.checksum() == 0 && packet.source.is_ipv4();
        if !unchecked && packet.transport_checksum() != 0 {
            return Err(Malformed::Checksum);
        }
        Ok(Self {
            source_port: udp.source_port(),
            destination_port: udp.destination_port(),
            payload: packet.payload.slice_ref(udp.payload()),
        })
    }
}
