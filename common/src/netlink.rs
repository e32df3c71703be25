//! Communication with the kernel's routing subsystem, rtnetlink(7): requests, batches of requests, and dumps.
//!
//! Blocking on purpose: the kernel carries a request out within `send`, and has the answer, or the next piece of a
//! dump, ready when `recv` asks for it. So there is nothing to wait for, and async code may call it too.

#![expect(clippy::wildcard_enum_match_arm, reason = "the kernel adds messages and attributes")]

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

mod network;

pub use network::{Address, NextHop, Route, RouteKind, table_of};

/// The routing table that is meant when none is named (`RT_TABLE_MAIN`).
pub const MAIN_TABLE: u32 = 254;
/// Maximum number of items of one dump that are kept.
pub const MAX_ITEMS: usize = 16 * 1024;

/// Every `RTNLGRP_*` group about interfaces, addresses, routes and rules, for [`Netlink::listen`].
pub const NETWORK_GROUPS: [u32; 7] = [
    libc::RTNLGRP_LINK,
    libc::RTNLGRP_IPV4_IFADDR,
    libc::RTNLGRP_IPV6_IFADDR,
    libc::RTNLGRP_IPV4_ROUTE,
    libc::RTNLGRP_IPV6_ROUTE,
    libc::RTNLGRP_IPV4_RULE,
    libc::RTNLGRP_IPV6_RULE,
];

/// Maximum number of requests in one `send`. If all of them fail, the answers still fit the socket's receive buffer.
const BATCH: usize = 100;
/// The kernel fills a dump's datagrams up to 32 KiB (`NLMSG_GOODSIZE` and `netlink_dump`); this leaves room.
const RECEIVE: usize = 64 * 1024;
/// How often a dump is tried while changes interrupt it.
const ATTEMPTS: u32 = 4;

/// A socket to the kernel of the network namespace it was opened in.
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
    sequence: u32,
}

/// One request of a batch, with its `NLM_F_*` flags.
pub type Request = (RouteNetlinkMessage, u16);

/// The items of a dump.
#[derive(Debug)]
pub struct Dump<T> {
    /// At most [`MAX_ITEMS`].
    pub items: Vec<T>,
    /// Whether there were more.
    pub truncated: bool,
    /// Whether the kernel's lists changed during the last attempt, too: items may be missing or listed twice.
    pub interrupted: bool,
    /// Puts the items in order before they are truncated.
    sort: Option<fn(&mut [T])>,
}

impl<T> Default for Dump<T> {
    fn default() -> Self {
        Self { items: Vec::new(), truncated: false, interrupted: false, sort: None }
    }
}

/// For polling a socket that listens; see [`Netlink::take_events`].
impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Netlink {
    /// Opens a socket.
    ///
    /// # Errors
    /// The system refused it.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Carries one request out.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn request(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        match self.batch(vec![(message, flags)])?.pop() {
            Some((_, error)) => Err(error),
            None => Ok(()),
        }
    }

    /// Carries many requests out, in order. Returns those that failed, by index; a failure does not stop the rest.
    ///
    /// # Errors
    /// The communication itself failed.
    pub fn batch(&mut self, requests: Vec<Request>) -> io::Result<Vec<(usize, io::Error)>> {
        let mut failures = Vec::new();
        let mut done = 0;
        let mut rest = requests.into_iter().peekable();
        while rest.peek().is_some() {
            let chunk: Vec<Request> = rest.by_ref().take(BATCH).collect();
            let count = chunk.len();
            let failed = self.send_chunk(chunk)?;
            failures.extend(failed.into_iter().map(|(index, error)| (done + index, error)));
            done += count;
        }
        Ok(failures)
    }

    fn send_chunk(&mut self, chunk: Vec<Request>) -> io::Result<Vec<(usize, io::Error)>> {
        let first = self.sequence.wrapping_add(1);
        let last = chunk.len() - 1;
        let mut bytes = Vec::new();
        for (index, (message, flags)) in chunk.into_iter().enumerate() {
            // Failures are always answered, a success only on request: the last answer ends the chunk.
            let ack = if index == last { NLM_F_ACK } else { 0 };
            self.serialize(message, flags | ack, &mut bytes);
        }
        self.socket.send(&bytes, 0)?;
        let mut failures = Vec::new();
        loop {
            let mut finished = false;
            for_each(&self.receive()?, |header, payload| {
                let index = header.sequence_number.wrapping_sub(first) as usize;
                if let NetlinkPayload::Error(answer) = payload
                    && index <= last
                {
                    if answer.code.is_some() {
                        failures.push((index, answer.to_io()));
                    }
                    finished |= index == last;
                }
            })?;
            if finished {
                return Ok(failures);
            }
        }
    }

    /// Asks for everything of a kind and keeps what `take` returns, in the kernel's order. Where changes interrupt it,
    /// it is tried again; the result of the last attempt says if that did not help.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn dump<T>(
        &mut self,
        request: RouteNetlinkMessage,
        take: impl Fn(RouteNetlinkMessage) -> Option<T>,
    ) -> io::Result<Dump<T>> {
        self.dump_in_order(request, take, None)
    }

    /// Like [`Self::dump`], sorted. Of more than [`MAX_ITEMS`] it keeps the first in order, so that two dumps of the
    /// same items keep the same ones.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn dump_sorted<T: Ord>(
        &mut self,
        request: RouteNetlinkMessage,
        take: impl Fn(RouteNetlinkMessage) -> Option<T>,
    ) -> io::Result<Dump<T>> {
        self.dump_in_order(request, take, Some(<[T]>::sort_unstable))
    }

    fn dump_in_order<T>(
        &mut self,
        request: RouteNetlinkMessage,
        take: impl Fn(RouteNetlinkMessage) -> Option<T>,
        sort: Option<fn(&mut [T])>,
    ) -> io::Result<Dump<T>> {
        for _ in 1..ATTEMPTS {
            let dump = self.dump_once(request.clone(), &take, sort)?;
            if !dump.interrupted {
                return Ok(dump);
            }
        }
        self.dump_once(request, &take, sort)
    }

    fn dump_once<T>(
        &mut self,
        request: RouteNetlinkMessage,
        take: impl Fn(RouteNetlinkMessage) -> Option<T>,
        sort: Option<fn(&mut [T])>,
    ) -> io::Result<Dump<T>> {
        let mut bytes = Vec::new();
        self.serialize(request, NLM_F_DUMP, &mut bytes);
        self.socket.send(&bytes, 0)?;
        let mut dump = Dump { sort, ..Dump::default() };
        while !dump.read(&self.receive()?, self.sequence, &take)? {}
        dump.truncate();
        if dump.truncated {
            tracing::warn!("the kernel lists more than {MAX_ITEMS} routes or links; the rest is ignored");
        }
        Ok(dump)
    }

    fn serialize(&mut self, message: RouteNetlinkMessage, flags: u16, out: &mut Vec<u8>) {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        message.finalize();
        let start = out.len();
        out.resize(start + message.buffer_len().next_multiple_of(4), 0);
        message.serialize(&mut out[start..]);
    }

    /// The next datagram.
    fn receive(&self) -> io::Result<Vec<u8>> {
        let mut buffer = Vec::with_capacity(RECEIVE);
        self.socket.recv(&mut buffer, 0)?;
        Ok(buffer)
    }

    /// The addresses of all interfaces.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn addresses(&mut self) -> io::Result<Dump<Address>> {
        self.dump_sorted(
            RouteNetlinkMessage::GetAddress(AddressMessage::default()),
            |message| match message {
                RouteNetlinkMessage::NewAddress(address) => Address::from_message(address),
                _ => None,
            },
        )
    }

    /// The IPv4 and IPv6 routes of all tables that `keep` selects, by the kernel's own form.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn routes(&mut self, keep: impl Fn(&RouteMessage) -> bool) -> io::Result<Dump<Route>> {
        self.dump_sorted(RouteNetlinkMessage::GetRoute(RouteMessage::default()), |message| match message {
            RouteNetlinkMessage::NewRoute(route) if keep(&route) => Route::from_message(route),
            _ => None,
        })
    }

    /// The route that an ordinary packet of this machine to `address` takes.
    ///
    /// # Errors
    /// The kernel's answer, for example that there is none.
    pub fn route_to(&mut self, address: IpAddr) -> io::Result<Option<Route>> {
        let mut request = RouteMessage::default();
        (request.header.address_family, request.header.destination_prefix_length) = match address {
            IpAddr::V4(_) => (AddressFamily::Inet, 32),
            IpAddr::V6(_) => (AddressFamily::Inet6, 128),
        };
        request.attributes.push(RouteAttribute::Destination(RouteAddress::from(address)));
        let mut bytes = Vec::new();
        // With an acknowledgment: an answer in a form that this build does not know would be waited for in vain.
        self.serialize(RouteNetlinkMessage::GetRoute(request), NLM_F_ACK, &mut bytes);
        self.socket.send(&bytes, 0)?;
        let (mut route, mut end) = (None, None);
        while end.is_none() {
            for_each(&self.receive()?, |header, payload| match payload {
                _ if header.sequence_number != self.sequence => {}
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(found)) => {
                    route = Route::from_message(found);
                }
                NetlinkPayload::Error(answer) => end = Some(answer.code.map(|_| answer.to_io())),
                _ => {}
            })?;
        }
        end.flatten().map_or(Ok(route), Err)
    }

    /// Also receives what the kernel multicasts to this `RTNLGRP_*` group. For [`Self::wait`]; a socket that listens
    /// is not used for requests.
    ///
    /// # Errors
    /// The system refused it.
    pub fn listen(&self, group: u32) -> io::Result<()> {
        self.socket.add_membership(group)
    }

    /// The next events of the groups listened to; none if nothing happens within `patience`.
    ///
    /// # Errors
    /// The socket's own.
    pub fn wait(&self, patience: Duration) -> io::Result<Vec<RouteNetlinkMessage>> {
        let timeout = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
        Ok(self.next_events(timeout)?.unwrap_or_default())
    }

    /// One datagram of events of the groups listened to, if one is there.
    ///
    /// # Errors
    /// The socket's own; ENOBUFS if there were more events than it holds.
    pub fn take_events(&self) -> io::Result<Option<Vec<RouteNetlinkMessage>>> {
        self.next_events(PollTimeout::ZERO)
    }

    fn next_events(&self, timeout: PollTimeout) -> io::Result<Option<Vec<RouteNetlinkMessage>>> {
        if poll(&mut [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)], timeout)? == 0 {
            return Ok(None);
        }
        messages_in(&self.receive()?).map(Some)
    }
}

impl<T> Dump<T> {
    /// Reads one datagram. Returns whether the dump is complete.
    fn read(
        &mut self,
        bytes: &[u8],
        sequence: u32,
        take: impl Fn(RouteNetlinkMessage) -> Option<T>,
    ) -> io::Result<bool> {
        let mut end = None;
        for_each(bytes, |header, payload| {
            // Answers to an earlier request may still be queued.
            if header.sequence_number != sequence || end.is_some() {
                return;
            }
            self.interrupted |= header.flags & NLM_F_DUMP_INTR != 0;
            match payload {
                NetlinkPayload::InnerMessage(message) => self.keep(take(message)),
                // A dump that fails midway says so in its last message.
                NetlinkPayload::Done(done) if done.code < 0 => {
                    end = Some(Err(io::Error::from_raw_os_error(done.code.saturating_neg())));
                }
                NetlinkPayload::Done(_) => end = Some(Ok(())),
                NetlinkPayload::Error(error) if error.code.is_some() => end = Some(Err(error.to_io())),
                _ => {}
            }
        })?;
        end.map_or(Ok(false), |end| end.map(|()| true))
    }

    fn keep(&mut self, item: Option<T>) {
        let Some(item) = item else { return };
        self.items.push(item);
        // Rarely, because it sorts.
        if self.items.len() == 2 * MAX_ITEMS {
            self.truncate();
        }
    }

    /// Sorts the items if they are to be sorted, and forgets those beyond [`MAX_ITEMS`].
    fn truncate(&mut self) {
        if let Some(sort) = self.sort {
            sort(&mut self.items);
        }
        self.truncated |= self.items.len() > MAX_ITEMS;
        self.items.truncate(MAX_ITEMS);
    }
}

/// The messages of one datagram of the kernel, other than its answers to requests.
///
/// # Errors
/// The datagram is cut short.
pub fn messages_in(datagram: &[u8]) -> io::Result<Vec<RouteNetlinkMessage>> {
    let mut messages = Vec::new();
    for_each(datagram, |_, payload| {
        if let NetlinkPayload::InnerMessage(message) = payload {
            messages.push(message);
        }
    })?;
    Ok(messages)
}

/// Calls `each` with every message of a datagram. A message in a form that this build does not know is skipped.
fn for_each(
    mut bytes: &[u8],
    mut each: impl FnMut(NetlinkHeader, NetlinkPayload<RouteNetlinkMessage>),
) -> io::Result<()> {
    while !bytes.is_empty() {
        let header = NetlinkBuffer::new_checked(bytes)
            .map_err(|_| io::Error::other("the kernel's netlink answer is cut short"))?;
        let length = header.length() as usize;
        match NetlinkMessage::<RouteNetlinkMessage>::deserialize(&bytes[..length]) {
            Ok(message) => each(message.header, message.payload),
            Err(error) => tracing::debug!(%error, "skipping a netlink message"),
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(())
}

#[cfg(test)]
mod tests;
