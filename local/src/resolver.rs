//! The laptop's resolver: answers DNS messages with what a program on the laptop would learn.
//!
//! A question is put, in this order, to
//!
//! 1. /etc/hosts, for addresses, as the system's own lookups would do;
//! 2. the system's nameservers, in resolv.conf's order, as DNS messages: so every record type works and
//!    negative answers keep their kind;
//! 3. getaddrinfo and getnameinfo, for addresses and reverse names that DNS does not know or not tell:
//!    VPN clients that let only the system's resolver through, multicast DNS, directory services.
//!
//! The third is asked when the second says no, and also when it is slow to say anything: where a VPN client
//! swallows our datagrams, names would otherwise take seconds each. Search domains are never appended; that
//! is the asking program's own resolver's work, in the codespace. Nothing is cached.
//!
//! Queries come from the codespace, which is not trusted: parsing, concurrency and time are bounded.

mod hosts;
mod message;
mod nss;
mod system;
mod upstream;
pub mod zones;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use hickory_proto::op::{Query, ResponseCode};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use message::{Received, Reply, Request, Transport};
use nss::{Found, Nss};
use system::{Paths, System};

/// Clients give up after 5 s; the way there and back and the sidecar's own patience fit in between.
const BUDGET: Duration = Duration::from_secs(4);

/// How long DNS may be silent before getaddrinfo is asked beside it.
const HEDGE: Duration = Duration::from_millis(250);

/// Queries under way at a time; each holds a socket or two. dnsmasq refuses beyond 150.
const MAX_ASKING: usize = 128;

/// Queries that may wait for their turn. Beyond, they fail at once.
const MAX_WAITING: usize = 4096;

/// Why the resolver can't work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the configuration is there and can't be read.
    #[error("can't read {path}, which says who resolves names on this machine: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
}

/// The laptop's resolver. Clones share one. See the [module's documentation](self).
#[derive(Debug, Clone)]
pub struct Resolver {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    paths: Paths,
    system: RwLock<Arc<System>>,
    nss: Nss,
    waiting: Semaphore,
    turns: Semaphore,
}

impl Resolver {
    /// The resolver of this machine's configuration. Without nameservers there is still getaddrinfo.
    pub fn system() -> Result<Self, Error> {
        Self::new(Paths::default(), Nss::default())
    }

    fn new(paths: Paths, nss: Nss) -> Result<Self, Error> {
        let system = System::load(&paths)?;
        Ok(Self {
            shared: Arc::new(Shared {
                paths,
                system: RwLock::new(Arc::new(system)),
                nss,
                waiting: Semaphore::new(MAX_WAITING),
                turns: Semaphore::new(MAX_ASKING),
            }),
        })
    }

    /// The answer to a query that came over UDP, made to fit what the client takes there. `None` if it
    /// is not a query.
    pub async fn answer_udp(&self, query: Bytes) -> Option<Bytes> {
        self.answer(&query, Transport::Udp).await
    }

    /// The answer to a query that came over TCP (without the length in front). `None` if it is not a query.
    pub async fn answer_tcp(&self, query: Bytes) -> Option<Bytes> {
        self.answer(&query, Transport::Tcp).await
    }

    /// The network has changed: the configuration is read again. If it can't be, the old one stays.
    pub fn reload(&self) {
        match System::load(&self.shared.paths) {
            Ok(system) => self.replace(system),
            Err(error) => tracing::warn!("the resolver keeps its configuration: {error}"),
        }
    }

    /// The laptop's search domains, without trailing dots, as the sidecar is told.
    pub fn search(&self) -> Vec<String> {
        self.current().search.clone()
    }

    /// The laptop's nameservers.
    pub fn nameservers(&self) -> Vec<IpAddr> {
        self.current().upstream.addresses()
    }

    fn replace(&self, system: System) {
        *self.shared.system.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(system);
    }

    /// The configuration. VPN clients rewrite its files some time after the network's change that led to
    /// [`Self::reload`], so they are looked at again every now and then.
    fn current(&self) -> Arc<System> {
        let system = Arc::clone(&self.shared.system.read().unwrap_or_else(PoisonError::into_inner));
        if system.is_outdated(&self.shared.paths) {
            self.reload();
            return Arc::clone(&self.shared.system.read().unwrap_or_else(PoisonError::into_inner));
        }
        system
    }

    async fn answer(&self, query: &[u8], transport: Transport) -> Option<Bytes> {
        let request = match message::receive(query, transport) {
            Received::Request(request) => request,
            Received::Answer(answer) => return Some(answer),
            Received::Nothing => return None,
        };
        let reply = match self.shared.waiting.try_acquire() {
            Ok(_place) => timeout(BUDGET, self.resolve_in_turn(&request)).await.ok().flatten(),
            Err(_) => None,
        };
        Some(request.answer(&reply.unwrap_or_else(|| Reply::of(ResponseCode::ServFail))))
    }

    async fn resolve_in_turn(&self, request: &Request) -> Option<Reply> {
        let _turn = self.shared.turns.acquire().await.ok()?;
        let system = self.current();
        match system.hosts.answer(request.question()) {
            Some(found) => Some(found.into_reply(request.question())),
            None if nss::knows(request.question()) => self.resolve_both_ways(&system, request).await,
            None => system.upstream.ask(request).await,
        }
    }

    /// DNS and, where that has no answer or none yet, the name service switch.
    async fn resolve_both_ways(&self, system: &System, request: &Request) -> Option<Reply> {
        let dns = system.upstream.ask(request);
        tokio::pin!(dns);
        let early = timeout(HEDGE, &mut dns).await;
        if let Ok(Some(reply)) = &early
            && reply.code == ResponseCode::NoError
        {
            return early.ok().flatten();
        }
        let nss = self.shared.nss.lookup(request.question());
        tokio::pin!(nss);
        let (reply, found) = match early {
            Ok(reply) => (reply, nss.await),
            Err(_) => tokio::select! {
                reply = &mut dns => match reply {
                    Some(reply) if reply.code == ResponseCode::NoError => return Some(reply),
                    reply => (reply, nss.await),
                },
                found = &mut nss => match found {
                    Some(found @ (Found::Records(_) | Found::NoData)) => {
                        return Some(found.into_reply(request.question()));
                    }
                    found => (dns.await, found),
                },
            },
        };
        decide(reply, found, request.question())
    }
}

/// What is true, if DNS and the name service switch do not agree: who knows the name is right. A negative
/// answer of DNS is better than one of the switch, for it carries the zone's SOA.
fn decide(dns: Option<Reply>, found: Option<Found>, question: &Query) -> Option<Reply> {
    match (dns, found) {
        (Some(reply), _) if reply.code == ResponseCode::NoError => Some(reply),
        (_, Some(found @ (Found::Records(_) | Found::NoData))) => Some(found.into_reply(question)),
        (Some(reply), _) if reply.code == ResponseCode::NXDomain => Some(reply),
        (_, Some(found @ Found::NoName)) => Some(found.into_reply(question)),
        (reply, None) => reply,
    }
}

#[cfg(test)]
mod tests;
