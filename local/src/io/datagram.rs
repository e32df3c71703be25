//! Unconnected datagram sockets for UDP mappings and echo: a hop limit for each datagram, and the errors that the
//! network reports about datagrams that were sent.
//!
//! With `IP_RECVERR` Linux queues every ICMP error that quotes a datagram of the socket, with the datagram's
//! destination and the sender of the error; `MSG_ERRQUEUE` reads them one by one. As a side effect the next call on the socket
//! returns that error once as pending (`sk_err`), even if it concerns another destination. Such calls are repeated.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use bytes::Bytes;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg};
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

use super::arena::Arena;
use super::reactor::Readiness;
use super::served::Served;
use super::sockopt;
use crate::engine::UnreachableKind;
use crate::policy::InterfaceIndex;

/// The longest datagram of either family, rounded up.
const MAX_DATAGRAM: usize = 64 * 1024;
/// Requested size of the kernel's buffers, in bytes: room for a burst of large datagrams. The kernel may grant less.
const BUFFER: usize = 1024 * 1024;
/// Maximum number of datagrams, and of errors, taken from a socket per turn.
pub(super) const TURN: usize = 64;
/// Maximum number of tries of a call that may have returned the pending error of an earlier datagram.
const REPEATS: usize = 3;

/// A datagram socket of one family.
#[derive(Debug)]
pub(super) struct DatagramSocket {
    /// Also used for ICMP: std's type reads into initialised memory and works without ports.
    socket: UdpSocket,
    v6: bool,
    /// The hop limit that is set in the kernel.
    hop_limit: Option<u8>,
    readiness: Readiness,
}

/// Why a datagram was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SendError {
    /// The laptop's kernel has no route for it.
    Unreachable(UnreachableKind),
    /// There was no room for it, or the error queue reports the reason.
    Dropped,
}

/// An error that the network or the laptop's kernel reports about a datagram that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct QueuedError {
    /// The host that reports it; `None` for the laptop's kernel.
    pub(super) offender: Option<IpAddr>,
    /// The destination of the datagram.
    pub(super) destination: SocketAddr,
    /// The kind of error.
    pub(super) kind: UnreachableKind,
    /// The first bytes of the quoted payload. For ICMP sockets that is the ICMP header.
    pub(super) quoted: [u8; 8],
}

impl DatagramSocket {
    /// Opens a socket that sends by `interface` if one is named.
    pub(super) fn open(
        kind: Type,
        protocol: Protocol,
        v6: bool,
        interface: Option<InterfaceIndex>,
    ) -> io::Result<Self> {
        let domain = if v6 { Domain::IPV6 } else { Domain::IPV4 };
        let socket = Socket::new(domain, kind.nonblocking(), Some(protocol))?;
        if let Some(interface) = interface {
            sockopt::send_by_interface(&socket, v6, interface)?;
        }
        sockopt::queue_errors(&socket, v6)?;
        sockopt::allow_fragments(&socket, v6)?;
        // Smaller buffers are acceptable.
        let _ = socket.set_recv_buffer_size(BUFFER);
        let _ = socket.set_send_buffer_size(BUFFER);
        if protocol == Protocol::UDP {
            let any = if v6 { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
            if v6 {
                socket.set_only_v6(true)?;
            }
            socket.bind(&SocketAddr::new(any, 0).into())?;
        }
        Ok(Self { socket: socket.into(), v6, hop_limit: None, readiness: Readiness::default() })
    }

    /// Whether it is an IPv6 socket.
    pub(super) fn is_v6(&self) -> bool {
        self.v6
    }

    /// Sends one datagram that consists of `parts`.
    pub(super) fn send(
        &mut self,
        parts: &[IoSlice<'_>],
        destination: SocketAddr,
        hop_limit: u8,
    ) -> Result<(), SendError> {
        let socket = SockRef::from(&self.socket);
        // The kernel does not accept 0.
        let hop_limit = hop_limit.max(1);
        if self.hop_limit != Some(hop_limit) {
            sockopt::set_hop_limit(&socket, self.v6, hop_limit).map_err(|_| SendError::Dropped)?;
            self.hop_limit = Some(hop_limit);
        }
        let destination = SockAddr::from(destination);
        let mut result = socket.send_to_vectored(parts, &destination);
        for _ in 1..REPEATS {
            match &result {
                Err(error) if may_be_pending_error(error) => {
                    result = socket.send_to_vectored(parts, &destination);
                }
                _ => break,
            }
        }
        result.map(drop).map_err(|error| send_error(&error))
    }

    /// Takes an event of the reactor.
    pub(super) fn note(&mut self, readiness: Readiness) {
        self.readiness.add(readiness);
    }

    /// The result of serving: whether there may be more to read.
    pub(super) fn served(&self) -> Served {
        if self.readiness.readable || self.readiness.error { Served::Again } else { Served::Idle }
    }

    /// The next datagram, if there is one.
    pub(super) fn next_datagram(&mut self, arena: &mut Arena) -> Option<(Bytes, SocketAddr)> {
        if !self.readiness.readable {
            return None;
        }
        for _ in 0..REPEATS {
            match self.socket.recv_from(arena.space(MAX_DATAGRAM)) {
                Ok((len, source)) => return Some((arena.take(len), source)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => {}
            }
        }
        self.readiness.readable = false;
        None
    }

    /// The next queued error, if there is one. Errors that have no ICMP equivalent are skipped.
    pub(super) fn next_error(&mut self) -> Option<QueuedError> {
        while self.readiness.error {
            match self.take_error() {
                Ok(Some(error)) => return Some(error),
                Ok(None) => {}
                Err(_) => self.readiness.error = false,
            }
        }
        None
    }

    fn take_error(&self) -> nix::Result<Option<QueuedError>> {
        let mut quoted = [0; 8];
        let mut slices = [IoSliceMut::new(&mut quoted)];
        // Room for the control message of either family.
        let mut control = nix::cmsg_space!(libc::sock_extended_err, libc::sockaddr_in6);
        let message = recvmsg::<SockaddrStorage>(
            self.socket.as_raw_fd(),
            &mut slices,
            Some(&mut control),
            MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT,
        )?;
        let destination = message.address.as_ref().and_then(socket_address);
        let reported = message.cmsgs()?.find_map(|control| reported(&control));
        Ok(match (destination, reported) {
            (Some(destination), Some((offender, kind))) => {
                Some(QueuedError { offender, destination, kind, quoted })
            }
            _ => None,
        })
    }
}

impl AsFd for DatagramSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Whether a call may have returned the pending error of an earlier datagram. "Too long" and "no room" always concern
/// the current one.
fn may_be_pending_error(error: &io::Error) -> bool {
    !matches!(
        error.raw_os_error(),
        None | Some(libc::EAGAIN | libc::EMSGSIZE | libc::ENOBUFS | libc::ENOMEM | libc::EINVAL)
    )
}

fn send_error(error: &io::Error) -> SendError {
    match unreachable_kind(error) {
        Some(kind) => SendError::Unreachable(kind),
        None => SendError::Dropped,
    }
}

/// What a failed call means for the path to the destination, if anything.
pub(super) fn unreachable_kind(error: &io::Error) -> Option<UnreachableKind> {
    match error.raw_os_error()? {
        libc::ENETUNREACH
        | libc::ENETDOWN
        | libc::EADDRNOTAVAIL
        | libc::EAFNOSUPPORT
        | libc::ENODEV
        | libc::ENXIO
        | libc::EINVAL => Some(UnreachableKind::Network),
        libc::EHOSTUNREACH | libc::EHOSTDOWN => Some(UnreachableKind::Host),
        libc::EPERM | libc::EACCES => Some(UnreachableKind::Prohibited),
        // The error queue reports EMSGSIZE with its MTU; other errors are a shortage of resources on the laptop.
        _ => None,
    }
}

fn socket_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| SocketAddr::V4((*v4).into()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| SocketAddr::V6((*v6).into())))
}

/// The reporting host and the kind of error, from its control message.
fn reported(control: &ControlMessageOwned) -> Option<(Option<IpAddr>, UnreachableKind)> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "nix's enum is open, and nothing else is of use here")]
    match control {
        ControlMessageOwned::Ipv4RecvErr(error, offender) => {
            let offender = offender
                .filter(|offender| i32::from(offender.sin_family) == libc::AF_INET)
                .map(|offender| IpAddr::V4(u32::from_be(offender.sin_addr.s_addr).into()));
            Some((offender, kind(error)?))
        }
        ControlMessageOwned::Ipv6RecvErr(error, offender) => {
            let offender = offender
                .filter(|offender| i32::from(offender.sin6_family) == libc::AF_INET6)
                .map(|offender| IpAddr::V6(offender.sin6_addr.s6_addr.into()));
            Some((offender, kind(error)?))
        }
        _ => None,
    }
}

fn kind(error: &libc::sock_extended_err) -> Option<UnreachableKind> {
    match error.ee_origin {
        libc::SO_EE_ORIGIN_ICMP => icmp_kind(error.ee_type, error.ee_code, error.ee_info),
        libc::SO_EE_ORIGIN_ICMP6 => icmpv6_kind(error.ee_type, error.ee_code, error.ee_info),
        libc::SO_EE_ORIGIN_LOCAL if error.ee_errno == libc::EMSGSIZE as u32 => {
            Some(UnreachableKind::TooBig { mtu: error.ee_info })
        }
        // The send call already returned the other errors of the laptop's kernel.
        _ => None,
    }
}

/// RFC 792 and RFC 1812 (5.2.7.1).
fn icmp_kind(kind: u8, code: u8, info: u32) -> Option<UnreachableKind> {
    match (kind, code) {
        (3, 0 | 6 | 11) => Some(UnreachableKind::Network),
        (3, 1 | 2 | 5 | 7 | 8 | 12) => Some(UnreachableKind::Host),
        (3, 3) => Some(UnreachableKind::Port),
        (3, 4) => Some(UnreachableKind::TooBig { mtu: info }),
        (3, 9 | 10 | 13..=15) => Some(UnreachableKind::Prohibited),
        (11, 0) => Some(UnreachableKind::TimeExceeded),
        _ => None,
    }
}

/// RFC 4443.
fn icmpv6_kind(kind: u8, code: u8, info: u32) -> Option<UnreachableKind> {
    match (kind, code) {
        (1, 0 | 2) => Some(UnreachableKind::Network),
        (1, 1 | 5 | 6) => Some(UnreachableKind::Prohibited),
        (1, 3) => Some(UnreachableKind::Host),
        (1, 4) => Some(UnreachableKind::Port),
        (2, _) => Some(UnreachableKind::TooBig { mtu: info }),
        (3, 0) => Some(UnreachableKind::TimeExceeded),
        _ => None,
    }
}
