//! ICMP and ICMPv6 echo.
//!
//! Linux allows unprivileged "ping sockets" (`SOCK_DGRAM` of `IPPROTO_ICMP`, net/ipv4/ping.c) to the groups in
//! `net.ipv4.ping_group_range`, for both families. Such a socket sends only echo requests. The kernel sets and matches
//! the identifier, which is the socket's "port"; the sequence number is ours. Where ping sockets are forbidden but we
//! are root, a raw socket is used. It receives the ICMP of all programs, so identifier and type are checked here.
//!
//! Both kinds read ICMP messages with their header (a raw IPv4 socket also the IP header). Queued errors carry the
//! quoted ICMP header, which has the sequence number.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use bytes::{Buf, Bytes};
use gh_net_common::checksum;
use socket2::{Protocol, Type};

use super::arena::Arena;
use super::datagram::{DatagramSocket, QueuedError, SendError, TURN};
use super::served::Served;
use crate::engine::{Engine, FlowId, Unreachable};
use crate::policy::InterfaceIndex;

/// Type, code, checksum, identifier, sequence number.
const HEADER_LEN: usize = 8;

/// An echo session's socket.
#[derive(Debug)]
pub(super) struct Echo {
    socket: DatagramSocket,
    /// The identifier of a raw socket's requests; for a ping socket the kernel sets it.
    pub(super) raw: Option<u16>,
}

impl Echo {
    /// Opens a ping socket, or a raw one with this `identifier`, which should be unique.
    ///
    /// # Errors
    /// That of the ping socket, if a raw socket is not permitted either.
    pub(super) fn open(v6: bool, interface: Option<InterfaceIndex>, identifier: u16) -> io::Result<Self> {
        let protocol = if v6 { Protocol::ICMPV6 } else { Protocol::ICMPV4 };
        let open = |kind| DatagramSocket::open(kind, protocol, v6, interface);
        let (socket, raw) = match open(Type::DGRAM) {
            Ok(socket) => (socket, None),
            Err(error) if forbidden(&error) => match open(Type::RAW) {
                Ok(socket) => (socket, Some(identifier)),
                Err(raw) if forbidden(&raw) => return Err(error),
                Err(raw) => return Err(raw),
            },
            Err(error) => return Err(error),
        };
        Ok(Self { socket, raw })
    }

    /// The socket.
    pub(super) fn socket(&mut self) -> &mut DatagramSocket {
        &mut self.socket
    }

    /// Sends an echo request.
    pub(super) fn send(
        &mut self,
        destination: IpAddr,
        sequence: u16,
        hop_limit: u8,
        payload: &[u8],
    ) -> Result<(), SendError> {
        let mut header = [0; HEADER_LEN];
        header[0] = Message::of(self.socket.is_v6()).request;
        header[6..8].copy_from_slice(&sequence.to_be_bytes());
        if let Some(identifier) = self.raw {
            header[4..6].copy_from_slice(&identifier.to_be_bytes());
            // For ICMPv6 the kernel computes the checksum, also for raw sockets (RFC 3542, 3.1).
            if !self.socket.is_v6() {
                let sum = checksum::finish(checksum::sum(&header) + checksum::sum(payload));
                header[2..4].copy_from_slice(&sum.to_be_bytes());
            }
        }
        let parts = [IoSlice::new(&header), IoSlice::new(payload)];
        self.socket.send(&parts, SocketAddr::new(destination, 0), hop_limit)
    }

    /// Passes received replies and errors to the engine.
    pub(super) fn serve(
        &mut self,
        flow: FlowId,
        engine: &mut Engine,
        arena: &mut Arena,
        now: Instant,
    ) -> Served {
        for _ in 0..TURN {
            let Some(error) = self.socket.next_error() else { break };
            if let Some(error) = self.about_request(&error) {
                engine.handle_unreachable(flow, error);
            }
        }
        for _ in 0..TURN {
            let Some((message, source)) = self.socket.next_datagram(arena) else { break };
            if let Some((sequence, payload)) = self.reply(message) {
                engine.handle_echo_reply(flow, source.ip(), sequence, payload, now);
            }
        }
        self.socket.served()
    }

    /// Sequence number and payload of an echo reply to us.
    pub(super) fn reply(&self, message: Bytes) -> Option<(u16, Bytes)> {
        reply(message, self.socket.is_v6(), self.raw)
    }

    /// The error as the engine takes it, if it is about one of our echo requests.
    pub(super) fn about_request(&self, error: &QueuedError) -> Option<Unreachable> {
        let &QueuedError { offender, destination, kind, quoted } = error;
        let ours = quoted[0] == Message::of(self.socket.is_v6()).request
            && self.raw.is_none_or(|raw| raw == u16::from_be_bytes([quoted[4], quoted[5]]));
        let sequence = Some(u16::from_be_bytes([quoted[6], quoted[7]]));
        ours.then_some(Unreachable { offender, destination, sequence, kind })
    }
}

/// Echo's message types in one family.
struct Message {
    request: u8,
    reply: u8,
}

impl Message {
    /// RFC 792, RFC 4443.
    fn of(v6: bool) -> Self {
        if v6 { Self { request: 128, reply: 129 } } else { Self { request: 8, reply: 0 } }
    }
}

/// Whether the kernel refuses the kind of socket to this user.
pub(super) fn forbidden(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EACCES | libc::EPERM))
}

/// See [`Echo::reply`].
fn reply(mut message: Bytes, v6: bool, raw: Option<u16>) -> Option<(u16, Bytes)> {
    if raw.is_some() && !v6 {
        let ip_header = usize::from(message.first()? & 0x0f) * 4;
        if message.len() < ip_header + HEADER_LEN {
            return None;
        }
        message.advance(ip_header);
        // The kernel does not check it for raw sockets.
        if checksum::of(&message) != 0 {
            return None;
        }
    }
    let header: [u8; HEADER_LEN] = *message.first_chunk()?;
    let identifier = u16::from_be_bytes([header[4], header[5]]);
    if header[0] != Message::of(v6).reply || raw.is_some_and(|raw| raw != identifier) {
        return None;
    }
    message.advance(HEADER_LEN);
    Some((u16::from_be_bytes([header[6], header[7]]), message))
}

#[cfg(test)]
mod tests;
