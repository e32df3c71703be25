//! A conversation with the kernel's routing subsystem, rtnetlink(7).
//!
//! Blocking on purpose: the kernel carries a request out within `send` and has the answer ready when that
//! returns, so there is nothing to wait for, and the same code serves the owner and the journal's replay.

#![expect(clippy::wildcard_enum_match_arm, reason = "the kernel's attributes are without end")]

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Requests that go into one `send`. Were each to fail, their error messages still fit the receive buffer.
const BATCH: usize = 100;
/// The kernel fills dumps in pieces of at most 32 KiB.
const RECEIVE: usize = 64 * 1024;
/// nlmsg_hdr: length, type, flags, sequence, port.
const HEADER: usize = 16;

/// An open conversation.
#[derive(Debug)]
pub(crate) struct Netlink {
    socket: Socket,
    sequence: u32,
}

/// One request of a batch: what to do, and its `NLM_F_*` flags.
pub(crate) type Request = (RouteNetlinkMessage, u16);

/// A route as far as we care.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Route {
    /// Where it leads.
    pub(crate) destination: IpNet,
    /// Its table.
    pub(crate) table: u32,
    /// Unicast, local, broadcast, …
    pub(crate) kind: RouteType,
    /// The next hop, if there is one.
    pub(crate) gateway: Option<IpAddr>,
}

impl Netlink {
    /// Opens a conversation with this network namespace's kernel side.
    ///
    /// # Errors
    /// The socket's own.
    pub(crate) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Carries one request out.
    ///
    /// # Errors
    /// What the kernel answered.
    pub(crate) fn request(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        match self.batch(vec![(message, flags)])?.pop() {
            Some((_, error)) => Err(error),
            None => Ok(()),
        }
    }

    /// Carries many requests out, in order. Returns those that failed by their index; one failure does not
    /// stop the others.
    ///
    /// # Errors
    /// The conversation itself failed.
    pub(crate) fn batch(&mut self, requests: Vec<Request>) -> io::Result<Vec<(usize, io::Error)>> {
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
            // Failures are always answered. A success is only asked about once, at the end.
            let ack = if index == last { NLM_F_ACK } else { 0 };
            self.serialize(message, flags | ack, &mut bytes);
        }
        self.socket.send(&bytes, 0)?;
        let mut failures = Vec::new();
        loop {
            let mut finished = false;
            self.receive(|sequence, payload| {
                let index = sequence.wrapping_sub(first) as usize;
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

    /// Asks for everything of a kind.
    ///
    /// # Errors
    /// What the kernel answered.
    pub(crate) fn dump(&mut self, message: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut bytes = Vec::new();
        self.serialize(message, NLM_F_DUMP, &mut bytes);
        let current = self.sequence;
        self.socket.send(&bytes, 0)?;
        let mut found = Vec::new();
        let mut end = None;
        while end.is_none() {
            self.receive(|sequence, payload| match payload {
                _ if sequence != current => {}
                NetlinkPayload::InnerMessage(message) => found.push(message),
                NetlinkPayload::Done(_) => end = Some(Ok(())),
                NetlinkPayload::Error(answer) => end = Some(Err(answer.to_io())),
                _ => {}
            })?;
        }
        end.unwrap_or(Ok(())).map(|()| found)
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

    /// Reads one datagram and hands over each message in it. Messages of a form that this build does not know
    /// are left out, rather than failing the whole.
    fn receive(&self, mut each: impl FnMut(u32, NetlinkPayload<RouteNetlinkMessage>)) -> io::Result<()> {
        let mut buffer = Vec::with_capacity(RECEIVE);
        self.socket.recv(&mut buffer, 0)?;
        let mut rest = &buffer[..];
        while let Some(header) = rest.first_chunk::<HEADER>() {
            let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
            if length < HEADER || length > rest.len() {
                return Err(io::Error::other("the kernel's netlink answer is cut short"));
            }
            match NetlinkMessage::<RouteNetlinkMessage>::deserialize(&rest[..length]) {
                Ok(message) => each(message.header.sequence_number, message.payload),
                Err(error) => tracing::debug!(%error, "a netlink message is skipped"),
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(())
    }

    /// All routes of both families, of all tables.
    ///
    /// # Errors
    /// What the kernel answered.
    pub(crate) fn routes(&mut self) -> io::Result<Vec<Route>> {
        Ok(self.route_messages()?.iter().filter_map(parse_route).collect())
    }

    /// The same, as the kernel tells them.
    ///
    /// # Errors
    /// What the kernel answered.
    pub(crate) fn route_messages(&mut self) -> io::Result<Vec<RouteMessage>> {
        let mut found = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut query = RouteMessage::default();
            query.header.address_family = family;
            for message in self.dump(RouteNetlinkMessage::GetRoute(query))? {
                if let RouteNetlinkMessage::NewRoute(route) = message
                    && route.header.address_family == family
                {
                    found.push(route);
                }
            }
        }
        Ok(found)
    }

    /// All addresses of this machine, with their prefix lengths.
    ///
    /// # Errors
    /// What the kernel answered.
    pub(crate) fn addresses(&mut self) -> io::Result<Vec<IpNet>> {
        let messages = self.dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()))?;
        let address = |message| {
            let RouteNetlinkMessage::NewAddress(message) = message else { return None };
            message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Address(address) => IpNet::new(*address, message.header.prefix_len).ok(),
                _ => None,
            })
        };
        Ok(messages.into_iter().filter_map(address).collect())
    }
}

/// Hears of new IPv6 routes.
#[derive(Debug)]
pub(crate) struct RouteWatch(Netlink);

impl RouteWatch {
    /// Begins to listen.
    ///
    /// # Errors
    /// The socket's own.
    pub(crate) fn start() -> io::Result<Self> {
        // rtnetlink(7): RTNLGRP_IPV6_ROUTE.
        const IPV6_ROUTE: u32 = 11;
        let netlink = Netlink::open()?;
        netlink.socket.add_membership(IPV6_ROUTE)?;
        Ok(Self(netlink))
    }

    /// Waits for a route to exactly `destination`, but not for longer than `patience`.
    /// Tells whether it came.
    ///
    /// # Errors
    /// The socket's own.
    pub(crate) fn wait_for(&self, destination: IpNet, patience: Duration) -> io::Result<bool> {
        let deadline = Instant::now() + patience;
        let mut came = false;
        while !came {
            // Others' routes may come and go all the time.
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            // SAFETY: the socket stays open across the call.
            let socket = unsafe { BorrowedFd::borrow_raw(self.0.socket.as_raw_fd()) };
            if poll(&mut [PollFd::new(socket, PollFlags::POLLIN)], timeout)? == 0 {
                return Ok(false);
            }
            self.0.receive(|_, payload| {
                if let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(route)) = payload {
                    came |= parse_route(&route).is_some_and(|route| route.destination == destination);
                }
            })?;
        }
        Ok(true)
    }
}

/// The number of the table a route is in.
pub(crate) fn table_of(route: &RouteMessage) -> u32 {
    let attribute = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    attribute.unwrap_or_else(|| route.header.table.into())
}

fn parse_route(message: &RouteMessage) -> Option<Route> {
    let address = |address: &RouteAddress| match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    };
    let mut destination = match message.header.address_family {
        AddressFamily::Inet => IpAddr::from([0; 4]),
        AddressFamily::Inet6 => IpAddr::from([0; 16]),
        _ => return None,
    };
    let mut gateway = None;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(to) => destination = address(to)?,
            RouteAttribute::Gateway(via) => gateway = address(via),
            _ => {}
        }
    }
    let destination = IpNet::new(destination, message.header.destination_prefix_length).ok()?;
    Some(Route { destination, table: table_of(message), kind: message.header.kind, gateway })
}
