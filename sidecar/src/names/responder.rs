//! The DNS responder: answers on the tunnel's own addresses by asking other resolvers.
//!
//! [`choice`] decides who is asked: the codespace's own resolvers or the laptop's resolver, which is reached like any
//! other server, through the tunnel at the gateway's address. Queries are passed on unchanged except for the id, over
//! the transport they came by, so every record type, EDNS and truncation mean to the client what they mean to the
//! upstream.
//!
//! ```text
//!   client ── UDP or TCP 53 ── listen ── Service::answer ── codespace ── upstream ── codespace's resolvers
//!                                             │ choice          └ cache
//!                                             └─ laptop ── upstream ── laptop's resolver
//!                                                   └ cache
//! ```
//!
//! A side *has no answer* if it says NXDOMAIN, reports a failure, or is silent; then the next one is asked. A name that
//! exists without such records (NODATA) is an answer. If no side has one, the client gets the most specific negative
//! answer: NXDOMAIN stays NXDOMAIN.
//!
//! Each set of servers is asked a bounded number of questions at a time, which zones share ([`gh_net_common::turns`]), so a
//! zone that nobody answers for holds up no other. A client's questions in progress are bounded as well, those over UDP apart
//! from those over TCP ([`connections`]).
//!
//! What leads a public name into the laptop's networks is not passed on ([`rebind`]).
//!
//! Without a link, or while it brings nothing, [`laptop`] stands for the laptop: it lets others answer what they can, and
//! has questions that only the laptop can answer wait, and at last answers them from its [`cache`].
//!
//! What either side said spares it the same question for a short while. Whatever the laptop tells of its networks or
//! names ends that for its answers, and so does a new link; other resolvers of the codespace end it for theirs. The
//! combined answer of both sides is no entry of its own: it is made of theirs.

mod addresses;
mod cache;
mod choice;
mod codespace;
mod connections;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod kept;
mod laptop;
mod listen;
mod message;
mod places;
mod rebind;
mod service;
mod upstream;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use gh_net_common::frame::Dns;
use ipnet::IpNet;
use tokio::task::JoinSet;

use crate::liveness::LinkWatch;
use crate::notify::Notifier;
use crate::own_sockets::OwnSockets;
use choice::Domains;
use connections::Connections;
pub(crate) use rebind::Forwarded;
use service::Service;

const DNS_PORT: u16 = 53;

/// Where the responder listens and which resolvers it may ask.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// The tunnel's own addresses.
    pub(crate) listen: Vec<IpAddr>,
    /// The gateway's addresses, where the laptop's resolver answers.
    pub(crate) laptop: Vec<IpAddr>,
    /// The codespace's own resolvers. If empty, everything goes to the laptop.
    pub(crate) resolvers: Vec<IpAddr>,
    /// Tells the user what is refused.
    pub(crate) notifier: Notifier,
    /// Has the sockets that it asks by.
    pub(crate) sockets: OwnSockets,
}

/// A running responder. Dropping it stops it and every query in progress.
#[derive(Debug)]
pub(crate) struct Responder {
    service: Arc<Service>,
    own: Vec<IpAddr>,
    port: u16,
    _listeners: JoinSet<()>,
}

impl Responder {
    /// Listens on UDP and TCP port 53 of each address. Assumes that the mode is split.
    ///
    /// Must be called inside a tokio runtime.
    pub(crate) fn start(config: Config, link: LinkWatch) -> io::Result<Self> {
        Self::start_on(config, link, DNS_PORT)
    }

    fn start_on(config: Config, link: LinkWatch, port: u16) -> io::Result<Self> {
        let Config { listen: own, laptop, resolvers, notifier, sockets } = config;
        let (codespace, laptop) = (servers(&resolvers, &own, port), servers(&laptop, &own, port));
        let service = Arc::new(Service::new(codespace, laptop, link, notifier, sockets));
        let connections = Connections::default();
        let mut listeners = JoinSet::new();
        for &address in &own {
            let address = SocketAddr::new(address, port);
            let named = |error: io::Error| {
                io::Error::new(error.kind(), format!("listening for DNS on {address}: {error}"))
            };
            let (udp, tcp) = (listen::udp(address).map_err(named)?, listen::tcp(address).map_err(named)?);
            listeners.spawn(listen::serve_udp(udp, Arc::clone(&service)));
            listeners.spawn(connections::serve_tcp(tcp, Arc::clone(&service), connections.clone()));
        }
        Ok(Self { service, own, port, _listeners: listeners })
    }

    /// Follows a change of the laptop's DNS settings.
    pub(crate) fn set(&self, dns: &Dns) {
        let domains = Domains::new(dns.domains.iter().map(String::as_str));
        self.service.set(dns.mode, domains, dns.rebind);
    }

    /// Other addresses lead to the laptop from now on.
    pub(crate) fn set_forwarded(&self, forwarded: Arc<Forwarded>) {
        self.service.set_forwarded(forwarded);
    }

    /// How many answers were refused because they lead public names to the laptop.
    pub(crate) fn refused(&self) -> u64 {
        self.service.refusals.count()
    }

    /// The laptop's networks have changed, and with them perhaps what its resolver says.
    pub(crate) fn routes_changed(&self) {
        self.service.routes_changed();
    }

    /// Answers the questions of these networks only. At first none are answered.
    pub(crate) fn set_clients(&self, clients: Vec<IpNet>) {
        self.service.set_clients(clients);
    }

    /// Follows a change of the codespace's own resolvers. Queries in progress still ask the old ones.
    pub(crate) fn set_resolvers(&self, resolvers: &[IpAddr]) {
        self.service.set_codespace(servers(resolvers, &self.own, self.port));
    }
}

/// The resolvers at `addresses`, except at our `own`, which would be a loop.
fn servers(addresses: &[IpAddr], own: &[IpAddr], port: u16) -> Vec<SocketAddr> {
    let others = addresses.iter().filter(|address| !own.contains(address));
    others.map(|&address| SocketAddr::new(address, port)).collect()
}

#[cfg(test)]
mod tests;
