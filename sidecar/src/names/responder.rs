//! The DNS responder: answers on the tunnel's own addresses by asking other resolvers.
//!
//! It forwards and caches nothing. [`choice`] decides who is asked: the codespace's own resolvers or the laptop's
//! resolver, which is reached like any other server, through the tunnel at the gateway's address. Queries are passed on
//! unchanged except for the id, over the transport they came by, so every record type, EDNS and truncation mean to the
//! client what they mean to the upstream.
//!
//! ```text
//!   client ── UDP or TCP 53 ── listen ── Service::answer ── upstream ── codespace's resolvers
//!                                             │ choice                └ laptop's resolver
//! ```
//!
//! A side *has no answer* if it says NXDOMAIN, reports a failure, or is silent; then the next one is asked. A name that
//! exists without such records (NODATA) is an answer. If no side has one, the client gets the most specific negative
//! answer: NXDOMAIN stays NXDOMAIN.

mod choice;
mod listen;
mod message;
mod service;
mod upstream;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use gh_net_common::frame::{Dns, DnsMode};
use tokio::sync::watch;
use tokio::task::JoinSet;

use choice::Domains;
use service::{Service, State};

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
}

/// A running responder. Dropping it stops it and every query in progress.
#[derive(Debug)]
pub(crate) struct Responder {
    state: watch::Sender<State>,
    _listeners: JoinSet<()>,
}

impl Responder {
    /// Listens on UDP and TCP port 53 of each address. Assumes that the link is up and the mode is split.
    ///
    /// Must be called inside a tokio runtime.
    pub(crate) fn start(config: Config) -> io::Result<Self> {
        Self::start_on(config, DNS_PORT)
    }

    fn start_on(config: Config, port: u16) -> io::Result<Self> {
        let Config { listen: own, laptop, resolvers } = config;
        let state = State { mode: DnsMode::Split, domains: Arc::default(), link_up: true };
        let (state, watched) = watch::channel(state);
        let service = Arc::new(Service::new(&own, &resolvers, &laptop, port, watched));
        let mut listeners = JoinSet::new();
        for address in own {
            let address = SocketAddr::new(address, port);
            let named = |error: io::Error| {
                io::Error::new(error.kind(), format!("listening for DNS on {address}: {error}"))
            };
            let (udp, tcp) = (listen::udp(address).map_err(named)?, listen::tcp(address).map_err(named)?);
            listeners.spawn(listen::serve_udp(udp, Arc::clone(&service)));
            listeners.spawn(listen::serve_tcp(tcp, Arc::clone(&service)));
        }
        Ok(Self { state, _listeners: listeners })
    }

    /// Follows a change of the laptop's DNS settings.
    pub(crate) fn set(&self, dns: Dns) {
        let domains = Arc::new(Domains::new(dns.domains.iter().map(String::as_str)));
        self.state.send_modify(|state| {
            state.mode = dns.mode;
            state.domains = domains;
        });
    }

    /// Follows the link to the laptop. When it goes down, queries that wait for the laptop fail.
    pub(crate) fn set_link(&self, up: bool) {
        self.state.send_modify(|state| state.link_up = up);
    }
}

#[cfg(test)]
mod tests;
