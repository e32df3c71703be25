//! Answers one client's message: chooses the sides to ask, and asks them in turn.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use gh_net_common::frame::{DnsMode, Rebind};
use hickory_proto::op::ResponseCode;
use ipnet::IpNet;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::addresses::has_answers;
use super::choice::{Choice, Domains, Side, choose};
use super::codespace::Codespace;
use super::laptop::{Asked, Laptop};
use super::message::{self, Query, Received, rcode};
use super::rebind::{Forwarded, Refusals};
use super::upstream::{STEP, Transport};
use crate::liveness::LinkWatch;
use crate::notify::Notifier;
use crate::own_sockets::OwnSockets;

/// glibc and musl give up after 5 s. The client is answered before that, if only with an error: a client without an
/// answer asks again, and then waits for as long once more.
const BUDGET: Duration = Duration::from_millis(4500);

/// Maximum number of queries over UDP in progress: more than may wait for two of the three sets of servers (the
/// codespace's, and the laptop's for names of its own and for others). Further ones are dropped.
const MAX_IN_FLIGHT: usize = 8192;

/// What the choice of upstream depends on, as the session changes it.
#[derive(Debug, Clone)]
struct Settings {
    mode: DnsMode,
    domains: Arc<Domains>,
    /// The codespace's own resolvers.
    codespace: Arc<Codespace>,
    rebind: Rebind,
    forwarded: Arc<Forwarded>,
}

/// Finds answers.
#[derive(Debug)]
pub(super) struct Service {
    settings: Mutex<Settings>,
    laptop: Laptop,
    sockets: OwnSockets,
    pub(super) refusals: Refusals,
    /// The networks whose questions are answered: others may reach our address, too.
    clients: Mutex<Vec<IpNet>>,
    /// Limits the queries over UDP in progress, over all listening sockets.
    pub(super) in_flight: Arc<Semaphore>,
}

impl Service {
    /// Asks the resolvers at these addresses. The mode is split, and the laptop has no domains.
    pub(super) fn new(
        codespace: Vec<SocketAddr>,
        laptop: Vec<SocketAddr>,
        link: LinkWatch,
        notifier: Notifier,
        sockets: OwnSockets,
    ) -> Self {
        let codespace = Arc::new(Codespace::new(codespace, sockets.clone()));
        let settings = Settings {
            mode: DnsMode::Split,
            domains: Arc::default(),
            codespace,
            rebind: Rebind::default(),
            forwarded: Arc::default(),
        };
        Self {
            settings: Mutex::new(settings),
            laptop: Laptop::new(laptop, link, sockets.clone()),
            sockets,
            refusals: Refusals::new(notifier),
            clients: Mutex::default(),
            in_flight: Arc::new(Semaphore::new(MAX_IN_FLIGHT)),
        }
    }

    /// Follows a change of the laptop's DNS settings.
    pub(super) fn set(&self, mode: DnsMode, domains: Domains, rebind: Rebind) {
        let mut settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        // The laptop sends its settings after each resume and each change of its networks, changed or not.
        self.laptop.changed();
        if *settings.domains != domains {
            self.laptop.domains_changed(|name| settings.domains.contain(name) == domains.contain(name));
        }
        (settings.mode, settings.domains, settings.rebind) = (mode, Arc::new(domains), rebind);
    }

    /// Other addresses lead to the laptop from now on.
    pub(super) fn set_forwarded(&self, forwarded: Arc<Forwarded>) {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner).forwarded = forwarded;
    }

    /// Other networks are the laptop's now.
    pub(super) fn routes_changed(&self) {
        self.laptop.changed();
    }

    /// Asks the resolvers at these addresses for the codespace from now on.
    pub(super) fn set_codespace(&self, codespace: Vec<SocketAddr>) {
        let mut settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        settings.codespace = Arc::new(Codespace::new(codespace, self.sockets.clone()));
    }

    /// Answers the questions of these networks only.
    pub(super) fn set_clients(&self, clients: Vec<IpNet>) {
        *self.clients.lock().unwrap_or_else(PoisonError::into_inner) = clients;
    }

    /// Whether the questions from this address are answered.
    pub(super) fn serves(&self, client: IpAddr) -> bool {
        let clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.iter().any(|net| net.contains(&client))
    }

    /// The answer to a client's message; `None` if it gets none.
    pub(super) async fn answer(&self, message: Bytes, by: Transport, client: IpAddr) -> Option<Bytes> {
        match message::receive(message) {
            Received::Query(query) => Some(self.forward(&query, by, client).await),
            Received::Answer(answer) => Some(answer),
            Received::Nothing => None,
        }
    }

    async fn forward(&self, query: &Query, by: Transport, client: IpAddr) -> Bytes {
        let Settings { mode, domains, codespace, .. } = self.settings();
        let deadline = Instant::now() + BUDGET;
        let answer = match choose(mode, &domains, &query.name()) {
            Choice::LaptopOnly => self.laptop.ask_patiently(query, by, client, deadline).await,
            Choice::InTurn(sides) => self.ask_in_turn(sides, &codespace, query, by, deadline).await,
        };
        answer.unwrap_or_else(|why| query.error(ResponseCode::ServFail, why))
    }

    /// The first positive answer, or else the most telling negative one; in place of one that leads a public name to the
    /// laptop, a refusal.
    async fn ask_in_turn(
        &self,
        sides: &[Side],
        codespace: &Codespace,
        query: &Query,
        by: Transport,
        deadline: Instant,
    ) -> Result<Bytes, &'static str> {
        let mut best: Option<Bytes> = None;
        let mut laptop_unreachable = false;
        let mut is_public = false;
        for (index, &side) in sides.iter().enumerate() {
            // Leaves time for the sides that come later.
            let later = (sides.len() - 1 - index) as u32;
            let time = deadline.saturating_duration_since(Instant::now()).saturating_sub(STEP * later);
            let asked = match side {
                Side::Codespace => codespace.ask(query, by, time).await.map_or(Asked::Nothing, Asked::Answer),
                Side::Laptop => self.laptop.ask(query, by, time).await,
            };
            if let Asked::Answer(answer) = &asked {
                // An alias alone is public as well, and the laptop's resolver may know where it leads.
                is_public |= side == Side::Codespace && has_answers(answer);
                if is_public && let Some(refusal) = self.refusal(query, answer) {
                    return Ok(refusal);
                }
            }
            match asked {
                Asked::Answer(answer) if message::code(&answer) == rcode::NOERROR => return Ok(answer),
                Asked::Answer(answer) => {
                    if best.as_deref().is_none_or(|best| is_more_telling(&answer, best)) {
                        best = Some(answer);
                    }
                }
                Asked::Nothing => {}
                Asked::Unreachable => laptop_unreachable = true,
            }
        }
        // Some names outside of its domains exist on the laptop only. Its memory comes last, so that a public name leads
        // to where the codespace can go, and negative answers in it say nothing about other resolvers.
        if laptop_unreachable
            && let Some(answer) = self.laptop.kept(query, by)
            && message::code(&answer) == rcode::NOERROR
        {
            let refusal = if is_public { self.refusal(query, &answer) } else { None };
            return Ok(refusal.unwrap_or(answer));
        }
        best.ok_or("gh-net: no answer")
    }

    /// What takes the place of the answer to a public name, if it must not be given.
    fn refusal(&self, query: &Query, answer: &[u8]) -> Option<Bytes> {
        let Settings { rebind, forwarded, .. } = self.settings();
        match rebind {
            Rebind::Allow => None,
            Rebind::Refuse => {
                let address = forwarded.first_in(answer)?;
                Some(self.refusals.refuse(query, address))
            }
        }
    }

    fn settings(&self) -> Settings {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// NXDOMAIN says more than a server failure. Otherwise the first answer counts.
fn is_more_telling(answer: &[u8], than: &[u8]) -> bool {
    message::code(answer) == rcode::NXDOMAIN && message::code(than) != rcode::NXDOMAIN
}
