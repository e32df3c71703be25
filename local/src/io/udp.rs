//! UDP mappings: one unconnected socket each, so that any host can answer (endpoint-independent mapping, RFC 4787),
//! and the ICMP errors about its datagrams.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::time::Instant;

use socket2::{Protocol, Type};

use super::arena::Arena;
use super::datagram::{DatagramSocket, QueuedError, SendError, TURN};
use super::served::Served;
use crate::engine::{Engine, FlowId, Unreachable};
use crate::policy::InterfaceIndex;

/// A mapping's socket.
#[derive(Debug)]
pub(super) struct Mapping(DatagramSocket);

impl Mapping {
    /// Opens the socket on a port that the kernel chooses.
    pub(super) fn open(v6: bool, interface: Option<InterfaceIndex>) -> io::Result<Self> {
        DatagramSocket::open(Type::DGRAM, Protocol::UDP, v6, interface).map(Self)
    }

    /// The socket.
    pub(super) fn socket(&mut self) -> &mut DatagramSocket {
        &mut self.0
    }

    /// Sends a datagram.
    pub(super) fn send(
        &mut self,
        destination: SocketAddr,
        hop_limit: u8,
        payload: &[u8],
    ) -> Result<(), SendError> {
        self.0.send(&[IoSlice::new(payload)], destination, hop_limit)
    }

    /// Passes received datagrams and errors to the engine.
    pub(super) fn serve(
        &mut self,
        flow: FlowId,
        engine: &mut Engine,
        arena: &mut Arena,
        now: Instant,
    ) -> Served {
        for _ in 0..TURN {
            let Some(QueuedError { offender, destination, kind, .. }) = self.0.next_error() else { break };
            engine.handle_unreachable(flow, Unreachable { offender, destination, sequence: None, kind });
        }
        for _ in 0..TURN {
            let Some((payload, source)) = self.0.next_datagram(arena) else { break };
            engine.handle_datagram(flow, source, payload, now);
        }
        self.0.served()
    }
}
