//! The sockets by which the sidecar itself asks the laptop through the tunnel, so that what orders the tunnel's packets
//! ([`owner::uplink`](crate::owner)) can tell its questions from the packets of programs.
//!
//! A packet is known by its whole five-tuple. While a socket lives, the kernel gives its port to no other one for the same
//! destination. But a program can bind a datagram socket to the port and another address of the host, and send from ours
//! (IP_PKTINFO). So a datagram socket, which asks once and at once, has one packet: the first. Who may forge packets (root, and
//! a container's root over IPv6, where the kernel takes our addresses from any interface) only displaces that socket's question.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A transport with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Transport {
    Udp,
    Tcp,
}

/// What tells the packets of a socket from all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct FiveTuple {
    pub(crate) transport: Transport,
    pub(crate) source: (IpAddr, u16),
    pub(crate) destination: (IpAddr, u16),
}

/// See the [module's documentation](self). Clones share one set, which is bounded by who opens sockets.
#[derive(Debug, Clone, Default)]
pub(crate) struct OwnSockets(Arc<Mutex<HashSet<FiveTuple>>>);

impl OwnSockets {
    /// Whether a packet with this five-tuple is from one of the sockets. Of a datagram socket, only the first one is.
    pub(crate) fn sent(&self, tuple: FiveTuple) -> bool {
        let mut set = self.set();
        match tuple.transport {
            Transport::Udp => set.remove(&tuple),
            Transport::Tcp => set.contains(&tuple),
        }
    }

    /// Counts a connected socket among them until the result is dropped, which has to be before the socket is closed.
    pub(crate) fn add(&self, transport: Transport, local: SocketAddr, peer: SocketAddr) -> OwnSocket {
        let of = |address: SocketAddr| (address.ip(), address.port());
        let tuple = FiveTuple { transport, source: of(local), destination: of(peer) };
        self.set().insert(tuple);
        OwnSocket { sockets: self.clone(), tuple }
    }

    fn set(&self) -> MutexGuard<'_, HashSet<FiveTuple>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of the sockets, as long as this lives.
#[derive(Debug)]
pub(crate) struct OwnSocket {
    sockets: OwnSockets,
    tuple: FiveTuple,
}

impl Drop for OwnSocket {
    fn drop(&mut self) {
        self.sockets.set().remove(&self.tuple);
    }
}
