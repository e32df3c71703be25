//! Reading and watching the kernel's networks over netlink. It takes no privilege.
//!
//! One socket is subscribed to the kernel's multicast groups; each snapshot asks on a socket of its own
//! (`NLM_F_DUMP`, one dump after the other). Neither queues anything in this process: what is not read yet
//! waits in the kernel's own bounded buffers, and an overflow (ENOBUFS) is one more way to learn that something
//! changed.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage};
use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::rule::RuleMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};
use tokio::time::{Instant, timeout_at};
use tracing::{debug, warn};

use super::{Address, Link, Route, Rule, Snapshot, message};

/// Of each kind (links, addresses, routes, rules) a snapshot holds at most so many.
pub(super) const MAX_ITEMS: usize = 16 * 1024;
/// The kernel fills a dump's messages up to 32 KiB (`NLMSG_GOODSIZE` and `netlink_dump`); this leaves room.
const BUFFER: usize = 64 * 1024;
/// `NLM_F_DUMP_INTR` (linux/netlink.h): the tables changed during the dump.
const DUMP_INTERRUPTED: u16 = 0x10;
/// How often a dump that was interrupted by a change is begun again. The last one is taken as it is: the
/// change is an event too, so another snapshot follows.
const ATTEMPTS: u32 = 4;
/// Events that follow each other within this time are one change: a VPN client sets dozens of routes.
const QUIET: Duration = Duration::from_millis(50);
/// A change is reported after this time even if there is no quiet.
const PATIENCE: Duration = Duration::from_millis(500);

/// All that concerns links, addresses, routes and rules.
const GROUPS: [u32; 7] = [
    libc::RTNLGRP_LINK,
    libc::RTNLGRP_IPV4_IFADDR,
    libc::RTNLGRP_IPV6_IFADDR,
    libc::RTNLGRP_IPV4_ROUTE,
    libc::RTNLGRP_IPV6_ROUTE,
    libc::RTNLGRP_IPV4_RULE,
    libc::RTNLGRP_IPV6_RULE,
];

/// Why the laptop's networks can't be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No socket.
    #[error("can't open a netlink socket to read this machine's networks")]
    Open(#[source] io::Error),
    /// A socket broke.
    #[error("can't read this machine's {what} over netlink")]
    Read {
        /// What was to be read.
        what: &'static str,
        /// The kernel's word.
        #[source]
        source: io::Error,
    },
}

/// Reads and watches the networks of the network namespace it was opened in.
pub struct Netwatch {
    events: TokioSocket,
}

impl std::fmt::Debug for Netwatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Netwatch").finish_non_exhaustive()
    }
}

impl Netwatch {
    /// Opens it, within a tokio runtime. It watches from now on: a change between two calls is not missed.
    ///
    /// # Errors
    /// The kernel gives no netlink socket.
    pub fn open() -> Result<Self, Error> {
        let open = || {
            let mut events = TokioSocket::new(NETLINK_ROUTE)?;
            events.socket_mut().bind_auto()?;
            for group in GROUPS {
                events.socket_mut().add_membership(group)?;
            }
            Ok(Self { events })
        };
        open().map_err(Error::Open)
    }

    /// The networks as they are now.
    ///
    /// # Errors
    /// The kernel does not answer as it should.
    pub async fn snapshot(&self) -> Result<Snapshot, Error> {
        let mut requests = Requests::open().map_err(Error::Open)?;
        let mut snapshot = Snapshot::default();
        let links = requests.links().await?;
        let addresses = requests.addresses().await?;
        let routes = requests.routes().await?;
        let rules = requests.rules().await?;
        snapshot.truncated = links.more || addresses.more || routes.more || rules.more;
        (snapshot.links, snapshot.addresses) = (links.items, addresses.items);
        (snapshot.routes, snapshot.rules) = (routes.items, rules.items);
        snapshot.links.sort();
        snapshot.addresses.sort();
        snapshot.routes.sort();
        Ok(snapshot)
    }

    /// Waits until something changes, and then until the changes pause. What it was, if anything that counts,
    /// is seen in the next snapshot. Cancel safe, but for the pause.
    ///
    /// # Errors
    /// The socket broke.
    pub async fn changed(&mut self) -> Result<(), Error> {
        let read = |source| Error::Read { what: "network changes", source };
        self.event().await.map_err(read)?;
        let end = Instant::now() + PATIENCE;
        loop {
            let quiet = (Instant::now() + QUIET).min(end);
            match timeout_at(quiet, self.event()).await {
                Ok(event) => event.map_err(read)?,
                Err(_elapsed) => return Ok(()),
            }
            if Instant::now() >= end {
                return Ok(());
            }
        }
    }

    async fn event(&mut self) -> io::Result<()> {
        // What the event says is not looked at, so it may be cut off.
        let mut buffer = [0u8; 64];
        match self.events.recv(&mut &mut buffer[..]).await {
            // The kernel had more events than the socket's buffer holds: that is a change, too.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => Ok(()),
            result => result,
        }
    }
}

/// The socket that asks. It lives for one snapshot: a future that is dropped in the middle of a dump leaves
/// the rest of it behind, and the kernel runs one dump a socket (EBUSY).
struct Requests {
    socket: TokioSocket,
    sequence: u32,
}

impl Requests {
    fn open() -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        socket.socket_mut().bind_auto()?;
        socket.socket_ref().connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    async fn links(&mut self) -> Result<Dump<Link>, Error> {
        let mut request = LinkMessage::default();
        request.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let take = |message| {
            if let RouteNetlinkMessage::NewLink(link) = message { Some(link.into()) } else { None }
        };
        self.dump("links", RouteNetlinkMessage::GetLink(request), take).await
    }

    async fn addresses(&mut self) -> Result<Dump<Address>, Error> {
        let take = |message| {
            if let RouteNetlinkMessage::NewAddress(it) = message { message::address(it) } else { None }
        };
        self.dump("addresses", RouteNetlinkMessage::GetAddress(AddressMessage::default()), take).await
    }

    async fn routes(&mut self) -> Result<Dump<Route>, Error> {
        let take = |message| {
            if let RouteNetlinkMessage::NewRoute(it) = message { message::route(it) } else { None }
        };
        self.dump("routes", RouteNetlinkMessage::GetRoute(RouteMessage::default()), take).await
    }

    /// The rules of both families, in the kernel's order. A kernel without policy routing has none.
    async fn rules(&mut self) -> Result<Dump<Rule>, Error> {
        let uid = nix::unistd::geteuid().as_raw();
        let mut both = Dump::default();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut request = RuleMessage::default();
            request.header.family = family;
            let take = |message| {
                if let RouteNetlinkMessage::NewRule(it) = message { message::rule(it, uid) } else { None }
            };
            match self.dump("rules", RouteNetlinkMessage::GetRule(request), take).await {
                Ok(mut rules) => {
                    rules.items.sort_by_key(|rule| rule.priority); // Stable: equals keep their order.
                    both.items.append(&mut rules.items);
                    both.more |= rules.more;
                }
                Err(Error::Read { source, .. })
                    if matches!(source.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EAFNOSUPPORT)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(both)
    }

    /// Asks for all of something.
    async fn dump<T>(
        &mut self,
        what: &'static str,
        request: RouteNetlinkMessage,
        take: impl Fn(RouteNetlinkMessage) -> Option<T>,
    ) -> Result<Dump<T>, Error> {
        let read = |source| Error::Read { what, source };
        for _ in 1..ATTEMPTS {
            let dump = self.dump_once(request.clone(), &take).await.map_err(read)?;
            if !dump.interrupted {
                return Ok(dump);
            }
        }
        self.dump_once(request, &take).await.map_err(read)
    }

    async fn dump_once<T>(
        &mut self,
        request: RouteNetlinkMessage,
        take: impl Fn(RouteNetlinkMessage) -> Option<T>,
    ) -> io::Result<Dump<T>> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut request = NetlinkMessage::from(request);
        request.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        request.header.sequence_number = self.sequence;
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes).await?;

        let mut dump = Dump::default();
        let mut buffer = BytesMut::with_capacity(BUFFER);
        loop {
            buffer.clear();
            buffer.reserve(BUFFER);
            self.socket.recv(&mut buffer).await?;
            if dump.read(&buffer, self.sequence, &take)? {
                return Ok(dump);
            }
        }
    }
}

/// A dump under way.
struct Dump<T> {
    items: Vec<T>,
    more: bool,
    interrupted: bool,
}

impl<T> Default for Dump<T> {
    fn default() -> Self {
        Self { items: Vec::new(), more: false, interrupted: false }
    }
}

impl<T> Dump<T> {
    /// Reads one datagram of the kernel's; says whether the dump is complete.
    fn read(
        &mut self,
        mut bytes: &[u8],
        sequence: u32,
        take: impl Fn(RouteNetlinkMessage) -> Option<T>,
    ) -> io::Result<bool> {
        while let Ok(header) = NetlinkBuffer::new_checked(bytes) {
            let length = header.length() as usize;
            let (flags, ours) = (header.flags(), header.sequence_number() == sequence);
            let message = &bytes[..length];
            bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
            if !ours {
                continue;
            }
            self.interrupted |= flags & DUMP_INTERRUPTED != 0;
            match NetlinkMessage::<RouteNetlinkMessage>::deserialize(message).map(|it| it.payload) {
                Ok(NetlinkPayload::InnerMessage(inner)) => self.keep(take(inner)),
                // A dump that fails half-way says so in its last message.
                Ok(NetlinkPayload::Done(done)) if done.code < 0 => {
                    return Err(io::Error::from_raw_os_error(done.code.saturating_neg()));
                }
                Ok(NetlinkPayload::Done(_)) => return Ok(true),
                Ok(NetlinkPayload::Error(error)) if error.code.is_some() => return Err(error.to_io()),
                Ok(_) => {}
                Err(error) => debug!(%error, "passing over a netlink message"),
            }
        }
        Ok(false)
    }

    fn keep(&mut self, item: Option<T>) {
        let Some(item) = item else { return };
        if self.items.len() < MAX_ITEMS {
            self.items.push(item);
        } else if !self.more {
            self.more = true;
            warn!("this machine has more than {MAX_ITEMS} routes or links; the rest is not looked at");
        }
    }
}
