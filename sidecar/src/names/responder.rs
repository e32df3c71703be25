//! The responder: answers DNS on the tunnel's own addresses, by asking others.
//!
//! It forwards and keeps nothing. [`choice`] says who is asked, the codespace's own resolvers or the
//! laptop's resolver, which is reached like any other server, through the tunnel at the gateway's address.
//! Queries are passed on as they came, over the transport they came by: the same bytes but for the id, so
//! every record type, EDNS and truncation mean to the client what they mean to the upstream.
//!
//! ```text
//!   client ── UDP or TCP 53 ── listen ── Service::answer ── upstream ── codespace's resolvers
//!                                             │ choice                └ laptop's resolver
//! ```
//!
//! A side *has no answer* if it says NXDOMAIN, reports a failure, or is silent; then the next one is asked.
//! That the name exists without such records (NODATA) is an answer. If nobody has one, the client gets the
//! most telling of what was said: NXDOMAIN stays NXDOMAIN.

mod choice;
mod listen;
mod message;
mod upstream;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gh_net_common::frame::{Dns, DnsMode};
use hickory_proto::op::ResponseCode;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use choice::{Domains, Side, choose};
use message::{Query, Received, rcode};
use upstream::{STEP, Transport, Upstream};

const DNS_PORT: u16 = 53;

/// The libcs give up after 5 s. We answer before, be it with an error.
const BUDGET: Duration = Duration::from_millis(4500);

/// Queries under way. Beyond, those over UDP are dropped, those over TCP wait.
const MAX_IN_FLIGHT: usize = 4096;

/// Where the responder listens and whom it may ask.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// The tunnel's own addresses.
    pub(crate) listen: Vec<IpAddr>,
    /// The gateway's addresses, where the laptop's resolver answers.
    pub(crate) laptop: Vec<IpAddr>,
    /// The codespace's own resolvers; empty leaves everything to the laptop.
    pub(crate) resolvers: Vec<IpAddr>,
}

/// A running responder. Dropping it stops it and all that it has under way.
#[derive(Debug)]
pub(crate) struct Responder {
    state: watch::Sender<State>,
    _listeners: JoinSet<()>,
}

/// What the choice of upstream turns on, as the session changes it.
#[derive(Debug, Clone)]
struct State {
    mode: DnsMode,
    domains: Arc<Domains>,
    link_up: bool,
}

impl Responder {
    /// Listens on UDP and TCP port 53 of each address. The link is taken to be up, the mode to be split.
    ///
    /// Wants to be called inside a tokio runtime.
    pub(crate) fn start(config: Config) -> io::Result<Self> {
        Self::start_on(config, DNS_PORT)
    }

    fn start_on(config: Config, port: u16) -> io::Result<Self> {
        let state = State { mode: DnsMode::Split, domains: Arc::default(), link_up: true };
        let (state, watched) = watch::channel(state);
        let service = Arc::new(Service::new(&config, port, watched));
        let mut listeners = JoinSet::new();
        for address in config.listen {
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

    /// The laptop's wishes have changed.
    pub(crate) fn set(&self, dns: Dns) {
        let domains = Arc::new(Domains::new(dns.domains.iter().map(String::as_str)));
        self.state.send_modify(|state| {
            state.mode = dns.mode;
            state.domains = domains;
        });
    }

    /// The link to the laptop has come or gone. What is being asked of the laptop fails when it goes.
    pub(crate) fn set_link(&self, up: bool) {
        self.state.send_modify(|state| state.link_up = up);
    }
}

/// Finds answers.
#[derive(Debug)]
struct Service {
    state: watch::Receiver<State>,
    codespace: Upstream,
    laptop: Upstream,
    in_flight: Arc<Semaphore>,
}

impl Service {
    fn new(config: &Config, port: u16, state: watch::Receiver<State>) -> Self {
        let upstream = |addresses: &[IpAddr]| {
            // Our own address among them would be a loop.
            let others = addresses.iter().filter(|address| !config.listen.contains(address));
            Upstream::new(others.map(|&address| SocketAddr::new(address, port)).collect())
        };
        Self {
            state,
            codespace: upstream(&config.resolvers),
            laptop: upstream(&config.laptop),
            in_flight: Arc::new(Semaphore::new(MAX_IN_FLIGHT)),
        }
    }

    /// The answer to a client's message; `None` if it deserves none.
    async fn answer(&self, message: Bytes, transport: Transport) -> Option<Bytes> {
        match message::receive(message) {
            Received::Query(query) => Some(self.forward(&query, transport).await),
            Received::Answer(answer) => Some(answer),
            Received::Nothing => None,
        }
    }

    async fn forward(&self, query: &Query, transport: Transport) -> Bytes {
        let state = self.state.borrow().clone();
        let sides = choose(state.mode, &state.domains, &query.name(), state.link_up);
        let deadline = Instant::now() + BUDGET;
        let mut best: Option<Bytes> = None;
        for (index, &side) in sides.iter().enumerate() {
            // Whoever comes later is left a chance.
            let later = (sides.len() - 1 - index) as u32;
            let time = deadline.saturating_duration_since(Instant::now()).saturating_sub(STEP * later);
            if let Some(answer) = self.ask(side, query, transport, time).await {
                if message::code(&answer) == rcode::NOERROR {
                    return answer;
                }
                if best.as_deref().is_none_or(|best| is_more_telling(&answer, best)) {
                    best = Some(answer);
                }
            }
        }
        best.unwrap_or_else(|| {
            let why =
                if sides.is_empty() { "gh-net: the laptop is not connected" } else { "gh-net: no answer" };
            query.error(ResponseCode::ServFail, why)
        })
    }

    async fn ask(&self, side: Side, query: &Query, by: Transport, time: Duration) -> Option<Bytes> {
        match side {
            Side::Codespace => self.codespace.ask(query, by, time).await,
            Side::Laptop => {
                let mut state = self.state.clone();
                tokio::select! {
                    answer = self.laptop.ask(query, by, time) => answer,
                    _ = state.wait_for(|state| !state.link_up) => None,
                }
            }
        }
    }
}

/// That a name does not exist says more than that a server failed. Else the first word counts.
fn is_more_telling(answer: &[u8], than: &[u8]) -> bool {
    message::code(answer) == rcode::NXDOMAIN && message::code(than) != rcode::NXDOMAIN
}

#[cfg(test)]
mod tests;
