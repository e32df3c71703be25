//! UDP mappings (RFC 4787): one socket of the host for each endpoint of the codespace.
//!
//! The mapping is endpoint-independent (REQ-1): whatever an endpoint sends to, it is seen from one port. The
//! filtering is address-dependent (REQ-8): only hosts that the endpoint has sent to may answer, so the
//! laptop's networks do not get a way into the codespace that nobody asked for.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use etherparse::UdpSlice;

use super::packet::{Malformed, Packet};
use super::schedule::Queue;

/// A mapping lives this long after the last datagram (RFC 4787 REQ-5 a).
const ONE_WAY: Duration = Duration::from_secs(2 * 60);
/// The same once datagrams went both ways (REQ-5 c recommends 5 minutes).
const TWO_WAY: Duration = Duration::from_secs(5 * 60);
/// The same if only DNS servers were asked: a stub resolver takes a new port for each query.
const DNS: Duration = Duration::from_secs(10);
/// Hosts that may answer one endpoint; beyond that the one that was added first is forgotten.
const MAX_PEERS: usize = 1024;

/// One mapping.
#[derive(Debug)]
pub(super) struct Mapping {
    /// The endpoint in the codespace.
    pub client: SocketAddr,
    /// Datagrams for it.
    pub queue: Queue,
    peers: VecDeque<IpAddr>,
    only_dns: bool,
    answered: bool,
    last: Instant,
}

impl Mapping {
    pub(super) fn new(client: SocketAddr, now: Instant) -> Self {
        Self {
            client,
            queue: Queue::default(),
            peers: VecDeque::new(),
            only_dns: true,
            answered: false,
            last: now,
        }
    }

    /// The endpoint sends to `destination`.
    pub(super) fn sends(&mut self, destination: SocketAddr, now: Instant) {
        self.last = now;
        self.only_dns &= destination.port() == 53;
        if self.peers.back() != Some(&destination.ip()) && !self.peers.contains(&destination.ip()) {
            if self.peers.len() == MAX_PEERS {
                self.peers.pop_front();
            }
            self.peers.push_back(destination.ip());
        }
    }

    /// Whether a datagram from `source` may pass.
    pub(super) fn receives(&mut self, source: SocketAddr, now: Instant) -> bool {
        let known = self.peers.contains(&source.ip());
        if known {
            self.answered = true;
            self.last = now;
        }
        known
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
