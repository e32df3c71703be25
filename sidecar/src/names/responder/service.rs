//! Answers one client's message: chooses the sides to ask, and asks them in turn.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gh_net_common::frame::DnsMode;
use hickory_proto::op::ResponseCode;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use super::choice::{Domains, Side, choose};
use super::message::{self, Query, Received, rcode};
use super::upstream::{STEP, Transport, Upstream};

/// The libcs give up after 5 s. The client is answered before that, if only with an error.
const BUDGET: Duration = Duration::from_millis(4500);

/// Maximum number of queries in progress. Beyond it, queries over UDP are dropped and those over TCP wait.
const MAX_IN_FLIGHT: usize = 4096;

/// What the choice of upstream depends on, as the session changes it.
#[derive(Debug, Clone)]
pub(super) struct State {
    pub(super) mode: DnsMode,
    pub(super) domains: Arc<Domains>,
    pub(super) link_up: bool,
}

/// Finds answers.
#[derive(Debug)]
pub(super) struct Service {
    state: watch::Receiver<State>,
    codespace: Upstream,
    laptop: Upstream,
    /// Limits the queries in progress, over all listening sockets.
    pub(super) in_flight: Arc<Semaphore>,
}

impl Service {
    /// Asks the codespace's `resolvers` and the `laptop`'s, except those at `own` addresses, which would be a loop.
    pub(super) fn new(
        own: &[IpAddr],
        resolvers: &[IpAddr],
        laptop: &[IpAddr],
        port: u16,
        state: watch::Receiver<State>,
    ) -> Self {
        let upstream = |addresses: &[IpAddr]| {
            let others = addresses.iter().filter(|address| !own.contains(address));
            Upstream::new(others.map(|&address| SocketAddr::new(address, port)).collect())
        };
        Self {
            state,
            codespace: upstream(resolvers),
            laptop: upstream(laptop),
            in_flight: Arc::new(Semaphore::new(MAX_IN_FLIGHT)),
        }
    }

    /// The answer to a client's message; `None` if it gets none.
    pub(super) async fn answer(&self, message: Bytes, transport: Transport) -> Option<Bytes> {
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
            // Leaves time for the sides that come later.
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

/// NXDOMAIN says more than a server failure. Otherwise the first answer counts.
fn is_more_telling(answer: &[u8], than: &[u8]) -> bool {
    message::code(answer) == rcode::NXDOMAIN && message::code(than) != rcode::NXDOMAIN
}
