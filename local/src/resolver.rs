//! The laptop's resolver: answers DNS queries as a program on the laptop would see the answers.
//!
//! The laptop's own name in the codespace and its domain are answered here, without asking anyone. Every other query is
//! answered from, in this order:
//!
//! 1. /etc/hosts, for addresses, as the system's own lookups do;
//! 2. the system's nameservers, in the order of resolv.conf, by DNS messages: so every record type works, and
//!    negative answers keep their kind;
//! 3. getaddrinfo and getnameinfo, for addresses and reverse names that are not in DNS: multicast DNS, directory
//!    services, and VPN clients that only let the system's resolver through.
//!
//! The third is asked when the second has a negative answer, and also when it is slow: where a VPN client drops our
//! datagrams, each name would otherwise take seconds. Search domains are never appended; the resolver of the program in
//! the codespace does that. Nothing is cached.
//!
//! Queries come from the codespace, which is not trusted: parsing, concurrency and time are bounded. What a server or
//! the switch can do at a time is shared by zones ([`gh_net_common::turns`]), so a zone that nobody answers for, or many
//! that a program makes up, hold up no other.

mod addresses;
mod answer;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod group;
mod hosts;
mod message;
mod named;
mod nss;
mod own;
mod scope;
pub mod search;
mod source;
mod system;
mod upstream;
pub mod zones;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use gh_net_common::frame::Dns;
use gh_net_common::turns::{self, Limits, Refused, Turns};
use hickory_proto::op::{Query, ResponseCode};
use tokio::time::{Instant, timeout, timeout_at};

use group::group;
use message::{Received, Reply, Request, Transport};
use nss::{Found, Nss};
use scope::Scope;
use system::{Paths, System};

pub use answer::{Answer, Lookup, Outcome};
pub use named::Named;
pub use source::Source;
pub use system::Error;

/// Time for one query. Clients give up after 5 s; the rest is for the link and the sidecar.
const BUDGET: Duration = Duration::from_secs(4);

/// How long DNS may take before getaddrinfo is asked as well.
const HEDGE: Duration = Duration::from_millis(250);

/// How long an NXDOMAIN is held back in case getaddrinfo finds the name.
const SECOND_OPINION: Duration = Duration::from_secs(1);

/// Queries to the nameservers. Each uses one or two sockets, and dnsmasq allows 150 at a time. A server on the internet
/// answers within half a second.
const QUERIES: Limits = Limits {
    turns: 128,
    per_group: 128,
    reserved: 0,
    waiting: 4096,
    evict_after: Some(Duration::from_millis(500)),
    hold_down: true,
};

/// The laptop's resolver. Clones share one. See the [module's documentation](self).
#[derive(Debug, Clone)]
pub struct Resolver {
    shared: Arc<Shared>,
}

/// What the codespace follows of the resolver's configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Configuration {
    /// The laptop's search domains, without trailing dots.
    pub search: Vec<String>,
    /// Counts the changes after which the resolver may answer otherwise.
    pub changes: u64,
}

#[derive(Debug)]
struct Shared {
    paths: Paths,
    system: RwLock<Arc<System>>,
    /// How often the configuration has changed.
    changes: AtomicU64,
    nss: Nss,
    queries: Arc<Turns>,
    /// The laptop's own addresses in the tunnel.
    gateways: RwLock<Vec<IpAddr>>,
    scope: RwLock<Scope>,
}

impl Resolver {
    /// The resolver configured on this machine. Without nameservers, only getaddrinfo is asked.
    pub fn system() -> Result<Self, Error> {
        Self::new(Paths::default(), Nss::default())
    }

    fn new(paths: Paths, nss: Nss) -> Result<Self, Error> {
        let system = System::load(&paths)?;
        Ok(Self {
            shared: Arc::new(Shared {
                paths,
                system: RwLock::new(Arc::new(system)),
                changes: AtomicU64::new(0),
                nss,
                queries: Turns::new(QUERIES),
                gateways: RwLock::default(),
                scope: RwLock::default(),
            }),
        })
    }

    /// The answer to a query that arrived over UDP, truncated to the size that the client accepts. `None` if the
    /// message is not a query. Not async: the message is not kept.
    pub fn answer_udp(&self, query: &[u8]) -> impl Future<Output = Option<Answer>> + Send + use<> {
        self.answer(message::receive(query, Transport::Udp))
    }

    /// The answer to a query that arrived over TCP, both without the length field. `None` if the message is not a
    /// query. Not async: the message is not kept.
    pub fn answer_tcp(&self, query: &[u8]) -> impl Future<Output = Option<Answer>> + Send + use<> {
        self.answer(message::receive(query, Transport::Tcp))
    }

    /// Reads the configuration again, after a change of the networks. If that fails, the old one stays.
    pub fn reload(&self) {
        match System::load(&self.shared.paths) {
            Ok(system) => self.replace(system),
            Err(error) => {
                tracing::warn!("can't reload the resolver's configuration, the old one stays in use: {error}")
            }
        }
    }

    /// These are the laptop's own addresses in the tunnel, to which its name in the codespace resolves.
    pub fn set_gateways(&self, gateways: Vec<IpAddr>) {
        *self.shared.gateways.write().unwrap_or_else(PoisonError::into_inner) = gateways;
    }

    /// Answers only the names that these settings send to the laptop.
    pub fn set_scope(&self, dns: &Dns) {
        *self.shared.scope.write().unwrap_or_else(PoisonError::into_inner) = Scope::of(dns);
    }

    fn refused(&self, question: &Query) -> Option<Reply> {
        let scope = self.shared.scope.read().unwrap_or_else(PoisonError::into_inner);
        (!scope.contains(question.name())).then(|| Reply::of(ResponseCode::Refused))
    }

    fn own_name(&self, question: &Query) -> Option<Reply> {
        let gateways = self.shared.gateways.read().unwrap_or_else(PoisonError::into_inner);
        own::answer(question, &gateways)
    }

    /// The files of the configuration, whose changes call for [`Self::reload`].
    pub fn files(&self) -> Vec<PathBuf> {
        let Paths { resolv_conf, hosts, .. } = &self.shared.paths;
        vec![resolv_conf.clone(), hosts.clone()]
    }

    /// What the codespace follows of the configuration.
    pub fn configuration(&self) -> Configuration {
        let search = self.current().search.clone();
        Configuration { search, changes: self.shared.changes.load(Ordering::Relaxed) }
    }

    /// The laptop's nameservers.
    pub fn nameservers(&self) -> Vec<IpAddr> {
        self.current().upstream.addresses()
    }

    fn replace(&self, system: System) {
        {
            let mut current = self.shared.system.write().unwrap_or_else(PoisonError::into_inner);
            if current.may_answer_otherwise_than(&system) {
                self.shared.changes.fetch_add(1, Ordering::Relaxed);
            }
            *current = Arc::new(system);
        }
        self.shared.queries.forget();
        self.shared.nss.forget();
    }

    /// The configuration. VPN clients may rewrite its files some time after the change of networks that led to
    /// [`Self::reload`], so the files are checked again at intervals.
    fn current(&self) -> Arc<System> {
        let system = Arc::clone(&self.shared.system.read().unwrap_or_else(PoisonError::into_inner));
        if system.is_outdated(&self.shared.paths) {
            self.reload();
            return Arc::clone(&self.shared.system.read().unwrap_or_else(PoisonError::into_inner));
        }
        system
    }

    fn answer(&self, received: Received) -> impl Future<Output = Option<Answer>> + Send + use<> {
        let resolver = self.clone();
        async move {
            let request = match received {
                Received::Request(request) => request,
                Received::Answer(message) => return Some(Answer { message, lookup: None, named: None }),
                Received::Nothing => return None,
            };
            let question = request.question();
            let reply = match resolver.own_name(question).or_else(|| resolver.refused(question)) {
                Some(reply) => Some(reply),
                None => resolver.resolve(&request, Instant::now() + BUDGET).await,
            };
            let lookup = Some(Lookup::new(&request, reply.as_ref()));
            let named = reply.as_ref().and_then(|reply| Named::of(request.question(), reply));
            let message = request.answer(&reply.unwrap_or_else(Reply::unanswered));
            Some(Answer { message, lookup, named })
        }
    }

    async fn resolve(&self, request: &Request, deadline: Instant) -> Option<Reply> {
        let system = self.current();
        match system.hosts.answer(request.question()) {
            Some(found) => Some(found.into_reply(request.question(), Source::Hosts)),
            None if nss::can_answer(request.question()) => {
                self.resolve_both_ways(&system, request, deadline).await
            }
            None => self.ask_servers(&system, request, deadline).await,
        }
    }

    async fn ask_servers(&self, system: &System, request: &Request, deadline: Instant) -> Option<Reply> {
        let group = group(request.question());
        match timeout_at(deadline, self.shared.queries.take(group)).await.ok()? {
            Ok(turn) => {
                let work = async {
                    let reply = timeout_at(deadline, system.upstream.ask(request)).await.ok().flatten();
                    (reply.as_ref().map_or(turns::Outcome::InVain, Reply::outcome), reply)
                };
                turn.run(work).await.flatten()
            }
            Err(Refused::InVain) => Some(Reply::unanswered()),
            Err(Refused::Crowded) => Some(Reply::crowded()),
        }
    }

    /// DNS, and the name service switch if DNS has no answer or is slow.
    async fn resolve_both_ways(
        &self,
        system: &System,
        request: &Request,
        deadline: Instant,
    ) -> Option<Reply> {
        let question = request.question();
        let dns = self.ask_servers(system, request, deadline);
        let nss = self.shared.nss.lookup(question);
        tokio::pin!(dns, nss);
        let mut in_time = timeout(HEDGE, &mut dns).await.ok();
        if in_time.is_none() {
            tokio::select! {
                reply = &mut dns => in_time = Some(reply),
                found = &mut nss => match found {
                    Some(found @ (Found::Records(_) | Found::NoData)) => return Some(found.into_reply(question, Source::Nss)),
                    found => return decide(dns.await, found, question),
                },
            }
        }
        let reply = in_time.flatten();
        let patience = match reply.as_ref().map(|reply| reply.code) {
            Some(ResponseCode::NoError) => return reply,
            Some(ResponseCode::NXDomain) => deadline.min(Instant::now() + SECOND_OPINION),
            _ => deadline,
        };
        let found = timeout_at(patience, nss).await.ok().flatten();
        decide(reply, found, question)
    }
}

/// A resolver that only asks the name service switch.
#[cfg(test)]
impl Default for Resolver {
    fn default() -> Self {
        let nothing = Paths { resolv_conf: Default::default(), hosts: Default::default(), port: 53 };
        Self::new(nothing, Nss::default()).unwrap()
    }
}

#[cfg(test)]
impl Resolver {
    /// A resolver that only asks a name service switch whose lookups never end.
    pub(crate) fn hanging() -> Self {
        let nothing = Paths { resolv_conf: Default::default(), hosts: Default::default(), port: 53 };
        fn hang<T>() -> T {
            loop {
                std::thread::park();
            }
        }
        Self::new(nothing, Nss::new(|_| hang(), |_| hang())).unwrap()
    }
}

/// Decides between DNS and the name service switch: a positive answer wins. Of negative answers that of DNS wins,
/// because it carries the zone's SOA.
fn decide(dns: Option<Reply>, found: Option<Found>, question: &Query) -> Option<Reply> {
    match (dns, found) {
        (Some(reply), _) if reply.code == ResponseCode::NoError => Some(reply),
        (_, Some(found @ (Found::Records(_) | Found::NoData))) => {
            Some(found.into_reply(question, Source::Nss))
        }
        (Some(reply), _) if reply.code == ResponseCode::NXDomain => Some(reply),
        (_, Some(found @ Found::NoName)) => Some(found.into_reply(question, Source::Nss)),
        (reply, None) => reply,
    }
}

#[cfg(test)]
mod tests;
