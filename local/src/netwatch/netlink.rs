//! Reading and watching the kernel's networks over netlink. It takes no privilege.
//!
//! One socket is subscribed to the kernel's multicast groups; each snapshot is dumped on a socket of its own. Neither
//! queues anything in this process: what is not read yet waits in the kernel's own bounded buffers, and an overflow
//! (ENOBUFS) also means that something changed.

use std::io;
use std::path::PathBuf;

use gh_net_common::debounce::{Changes, Debounce};
use gh_net_common::netlink::{Dump, NETWORK_GROUPS, Netlink};
use netlink_packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage};
use netlink_packet_route::rule::RuleMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket, AsyncSocketExt, TokioSocket};

use super::files::Files;
use super::machine::Machine;
use super::message;
use super::snapshot::{Interface, Rule, Snapshot};

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
        /// The system's error.
        #[source]
        source: io::Error,
    },
}

/// Reads and watches the networks of the network namespace it was opened in.
pub struct Netwatch {
    events: TokioSocket,
    files: Files,
    debounce: Debounce,
    machine: Machine,
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
    /// The system refused a netlink socket.
    pub fn open() -> Result<Self, Error> {
        let open = || {
            let mut events = TokioSocket::new(NETLINK_ROUTE)?;
            events.socket_mut().bind_auto()?;
            for group in NETWORK_GROUPS {
                events.socket_mut().add_membership(group)?;
            }
            let (files, debounce) = (Files::new(Vec::new()), Debounce::default());
            Ok(Self { events, files, debounce, machine: Machine::detect() })
        };
        open().map_err(Error::Open)
    }

    /// Watches these files as well.
    #[must_use]
    pub fn with_files(mut self, paths: Vec<PathBuf>) -> Self {
        self.files = Files::new(paths);
        self
    }

    /// The networks as they are now. If they change while they are read, [`Self::changed`] reports it soon.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn snapshot(&mut self) -> Result<Snapshot, Error> {
        let read = |what| move |source| Error::Read { what, source };
        let mut netlink = Netlink::open().map_err(Error::Open)?;
        let interfaces = interfaces(&mut netlink).map_err(read("interfaces"))?;
        let addresses = netlink.addresses().map_err(read("addresses"))?;
        let routes = netlink.routes(message::is_ordinary).map_err(read("routes"))?;
        let rules = rules(&mut netlink).map_err(read("rules"))?;
        let snapshot = Snapshot {
            truncated: interfaces.truncated || addresses.truncated || routes.truncated || rules.truncated,
            interrupted: interfaces.interrupted
                || addresses.interrupted
                || routes.interrupted
                || rules.interrupted,
            interfaces: interfaces.items,
            addresses: addresses.items,
            routes: routes.items,
            rules: rules.items,
            machine: self.machine,
        };
        if snapshot.interrupted {
            self.debounce.begin();
        }
        Ok(snapshot)
    }

    /// Waits until something changes, and then until the changes pause or have gone on for a while. The next snapshot
    /// shows what changed, if it was the networks. Cancel safe.
    ///
    /// # Errors
    /// The socket broke.
    pub async fn changed(&mut self) -> Result<Changes, Error> {
        let Self { events, files, debounce, machine: _ } = self;
        let changes = debounce.changes(async || {
            tokio::select! {
                event = event(events) => event,
                () = files.event() => Ok(()),
            }
        });
        let changes = changes.await;
        changes.map_err(|source| Error::Read { what: "network changes", source })
    }
}

async fn event(events: &mut TokioSocket) -> io::Result<()> {
    // The event's contents are not used, so they may be truncated.
    let mut buffer = [0u8; 64];
    match events.recv(&mut &mut buffer[..]).await {
        // There were more events than the socket's buffer holds, so something changed.
        Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => Ok(()),
        result => result,
    }
}

fn interfaces(netlink: &mut Netlink) -> io::Result<Dump<Interface>> {
    let mut request = LinkMessage::default();
    request.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    netlink.dump_sorted(RouteNetlinkMessage::GetLink(request), |message| {
        if let RouteNetlinkMessage::NewLink(link) = message { Some(link.into()) } else { None }
    })
}

/// The rules of both families, in the kernel's order. A kernel without policy routing has none.
fn rules(netlink: &mut Netlink) -> io::Result<Dump<Rule>> {
    let uid = nix::unistd::geteuid().as_raw();
    let mut both = Dump::default();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut request = RuleMessage::default();
        request.header.family = family;
        let dump = netlink.dump(RouteNetlinkMessage::GetRule(request), |message| {
            if let RouteNetlinkMessage::NewRule(it) = message { Rule::from_message(it, uid) } else { None }
        });
        match dump {
            Ok(mut rules) => {
                rules.items.sort_by_key(|rule| rule.priority); // Stable: equals keep their order.
                both.items.append(&mut rules.items);
                both.truncated |= rules.truncated;
                both.interrupted |= rules.interrupted;
            }
            Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EAFNOSUPPORT)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(both)
}
