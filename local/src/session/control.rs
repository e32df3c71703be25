//! The session's control plane: follows the laptop's networks, answers requests for the status, and stops io when the
//! user ends the session. It runs concurrently with io and controls it by messages.

mod reload;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use gh_net_common::frame::{Codespace, Notice, Opened};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use super::link::Signals;
use super::networks::{Networks, Update};
use super::record::Record;
use super::settings;
use super::wake::WakeWatch;
use crate::config::{Config, Sources};
use crate::io::{Control, LinkEnd, Quiet, ReactorError, Report};
use crate::judgement::{Judgement, Question};
use crate::limit::RateLimit;
use crate::netwatch::{self, Changes, Netwatch, Snapshot};
use crate::policy::Policy;
use crate::request::{Request, Requests};
use crate::resolver::Resolver;
use crate::status::{Status, lines};

/// How long connections from an address that the laptop has lost are kept, in case it comes back.
const ADDRESS_HOLD: Duration = Duration::from_secs(30);

/// Minimum time between two changes of the codespace that are applied: the sidecar sends no more, and a hostile one must
/// not flood the log.
const CODESPACE_INTERVAL: Duration = Duration::from_millis(250);

/// Maximum number of lines about the codespace's own networks in each such time.
const CODESPACE_LINES: u32 = 8;
const CODESPACE_LINE: Duration = Duration::from_secs(60);

/// Turns true when the user wants the session to end.
pub type Stop = watch::Receiver<bool>;

/// See the [module's documentation](self).
#[derive(Debug)]
pub(super) struct ControlPlane {
    stop: Stop,
    netwatch: Netwatch,
    requests: Requests,
    /// What io tells of the link.
    signals: Option<Signals>,
    /// What the codespace has of its own.
    codespace: CodespaceWatch,
    /// `None` where the kernel provides no timer for it.
    wake: Option<WakeWatch>,
    state: State,
}

/// How a control plane is connected.
#[derive(Debug)]
pub(super) struct Ports {
    /// Whether the user wants the session to end.
    pub(super) stop: Stop,
    /// Requests for the status.
    pub(super) requests: Requests,
    /// Messages to io.
    pub(super) io: mpsc::Sender<Control>,
}

/// The control plane's state, and its channel to io.
#[derive(Debug)]
struct State {
    config: Config,
    sources: Sources,
    networks: Networks,
    record: Record,
    resolver: Arc<Resolver>,
    /// Whether the session is open, so that changes concern the sidecar and the user.
    open: bool,
    /// Whether the link is resumed, and how many flows were kept; from a lost link until it is replaced and settled.
    lost: Option<Lost>,
    /// Limits the lines about the codespace's networks, which containers change all the time.
    codespace_lines: RateLimit,
    /// When payload had last passed when the link was last quiet.
    quiet_since: Option<Option<std::time::Instant>>,
    /// Addresses that the laptop has lost, and until when their sockets are kept.
    lost_addresses: BTreeMap<IpAddr, Instant>,
    nudge: Arc<Notify>,
    io: mpsc::Sender<Control>,
}

/// A lost link.
#[derive(Debug, Clone, Copy)]
struct Lost {
    since: Instant,
    outcome: lines::Reconnected,
}

impl ControlPlane {
    /// A control plane for a session with `target` that gives its messages to `io`.
    ///
    /// # Errors
    /// The laptop's networks can't be read.
    pub(super) fn new(
        config: Config,
        sources: Sources,
        target: String,
        resolver: Arc<Resolver>,
        ports: Ports,
    ) -> Result<Self, netwatch::Error> {
        let Ports { stop, requests, io } = ports;
        let mut netwatch = Netwatch::open()?.with_files(resolver.files());
        let snapshot = netwatch.snapshot()?;
        let choice = settings::choice(&config);
        let networks =
            Networks::new(choice, config.dns, snapshot, resolver.configuration()).with_rebind(config.rebind);
        let record = Record::new(target, config.dns);
        let wake = WakeWatch::new();
        if let Err(error) = &wake {
            tracing::debug!(%error, "can't detect wakes of this machine");
        }
        let state = State {
            config,
            sources,
            networks,
            record,
            resolver,
            open: false,
            lost: None,
            codespace_lines: RateLimit::new(CODESPACE_LINE, CODESPACE_LINES),
            quiet_since: None,
            lost_addresses: BTreeMap::new(),
            nudge: Arc::default(),
            io,
        };
        let codespace = CodespaceWatch { changes: None, next: Instant::now() };
        Ok(Self { stop, netwatch, requests, signals: None, codespace, wake: wake.ok(), state })
    }

    /// The laptop's networks.
    pub(super) fn networks(&self) -> &Networks {
        &self.state.networks
    }

    /// Reads the laptop's networks again. They may be changing: what is missing is left to [`Self::run`].
    ///
    /// # Errors
    /// They can't be read.
    pub(super) fn refresh(&mut self) -> Result<(), netwatch::Error> {
        let snapshot = self.netwatch.snapshot()?;
        self.state.update(snapshot, Changes::Ongoing);
        Ok(())
    }

    /// A link is being established.
    pub(super) fn connecting(&mut self) {
        self.state.record.connecting();
    }

    /// There is no link, and the next attempt is due after `wait`.
    pub(super) fn waiting(&mut self, wait: Duration) {
        self.state.record.waiting(wait);
    }

    /// Notified when an attempt to connect should be made at once: the laptop has woken or has a new default route.
    pub(super) fn nudge(&self) -> Arc<Notify> {
        Arc::clone(&self.state.nudge)
    }

    /// A link is up and the session open on it, with `flows` existing flows.
    pub(super) fn opened(&mut self, opened: &Opened, early: Vec<Notice>, flows: usize, signals: Signals) {
        self.state.opened(opened, early, flows);
        self.signals = Some(signals);
    }

    /// From now on `changes` says what the codespace has of its own, whenever that changes.
    pub(super) fn follow_codespace(&mut self, changes: watch::Receiver<Codespace>) {
        self.codespace.changes = Some(changes);
    }

    /// The link has ended; `waits` says whether the session waits for the next one.
    pub(super) fn link_ended(&mut self, end: &Result<LinkEnd, ReactorError>, waits: bool) {
        self.signals = None;
        self.state.record.link_ended(match end {
            Ok(end) => end.to_string(),
            Err(error) => error.to_string(),
        });
        if waits {
            self.state.link_lost();
        }
    }

    /// Works until dropped. When the user ends the session, io gets [`Control::Shutdown`].
    pub(super) async fn run(&mut self) -> Infallible {
        let Self { stop, netwatch, requests, signals, codespace, wake, state } = self;
        let mut following = true;
        loop {
            let changed =
                async { if following { netwatch.changed().await } else { std::future::pending().await } };
            tokio::select! {
                biased;
                () = stopped(stop) => {
                    // If there is no io yet, the session itself takes the message.
                    let _ = state.io.send(Control::Shutdown).await;
                    return std::future::pending().await;
                }
                signal = next_signal(signals) => match signal {
                    Signal::Settled => state.ready(),
                    Signal::Quiet(quiet) => state.quiet(quiet),
                },
                slept = woken(wake) => state.woken(slept),
                changed = codespace.changed() => state.follow_codespace(changed),
                () = sleep_until(state.next_expiry()) => state.expire_addresses(),
                Some(request) = requests.recv() => {
                    state.answer(request).await;
                }
                changes = changed => match changes {
                    Ok(changes) => state.follow(netwatch, changes),
                    Err(error) => {
                        following = false;
                        tracing::warn!("changes of the laptop's networks can't be followed any more: {error}");
                    }
                }
            }
        }
    }
}

impl State {
    fn link_lost(&mut self) {
        // A link that is lost before it is settled continues the same gap.
        let since = self.lost.map_or_else(Instant::now, |lost| lost.since);
        self.lost = Some(Lost { since, outcome: lines::Reconnected::default() });
        tracing::warn!("{}", lines::link_lost(self.record.link()));
    }

    fn opened(&mut self, opened: &Opened, early: Vec<Notice>, flows: usize) {
        let first = !std::mem::replace(&mut self.open, true);
        self.resolver.set_gateways(opened.addresses.iter().map(|address| address.gateway).collect());
        if let Some(lost) = &mut self.lost {
            lost.outcome = lines::Reconnected { resumed: opened.resumed, flows };
        }
        // Addresses still missing now did not return with the laptop's network.
        self.lost_addresses.values_mut().for_each(|until| *until = Instant::now());
        // The new link begins with full sets, so the frames of the change are not needed.
        let Update { notes, .. } = self.networks.set_codespace(opened);
        let notes = if first { self.networks.notes().to_vec() } else { notes };
        notes.iter().for_each(|note| tracing::warn!("{}", note.text));
        self.record.opened(opened, early);
        // Io may be a new one, which knows no policy yet.
        self.judge_by(Some(self.networks.policy().clone()));
        self.networks.link_frames().into_iter().for_each(|frame| self.tell(Control::Send(frame)));
    }

    /// The codespace's own networks or resolvers have changed.
    fn follow_codespace(&mut self, codespace: Codespace) {
        let (Update { policy, notes, .. }, change) = self.networks.follow_codespace(codespace);
        self.judge_by(policy);
        if let Some(line) = lines::codespace_change(&change) {
            if self.codespace_lines.admits(std::time::Instant::now()) {
                tracing::info!("{line}");
            } else {
                tracing::debug!("{line}");
            }
        }
        notes.iter().for_each(|note| tracing::warn!("{}", note.text));
    }

    fn ready(&mut self) {
        match self.lost.take() {
            Some(Lost { since, outcome }) => {
                tracing::info!("{}", lines::reconnected(since.elapsed(), outcome));
            }
            None => tracing::info!("{}", lines::ready(&self.record.status(Some(&self.networks), None))),
        }
    }

    fn quiet(&mut self, Quiet { quiet, payload }: Quiet) {
        self.record.quiet(quiet);
        // A link that only lookups or pings wake is said to be quiet once.
        if quiet && self.quiet_since.replace(payload) != Some(payload) {
            tracing::info!("{}", lines::quiet(quiet));
        } else {
            tracing::debug!("{}", lines::quiet(quiet));
        }
    }

    /// The laptop has slept: the link may be dead, and a network may have returned.
    fn woken(&self, slept: Duration) {
        tracing::debug!(?slept, "the laptop has woken");
        self.nudge.notify_waiters();
        self.tell(Control::Probe);
    }

    fn next_expiry(&self) -> Instant {
        // Far beyond the end of any session.
        let never = || Instant::now() + Duration::from_secs(365 * 86_400);
        self.lost_addresses.values().min().copied().unwrap_or_else(never)
    }

    /// Resets connections bound to addresses that did not return in time.
    fn expire_addresses(&mut self) {
        let now = Instant::now();
        let gone: Vec<IpAddr> = self
            .lost_addresses
            .iter()
            .filter(|(_, until)| **until <= now)
            .map(|(address, _)| *address)
            .collect();
        for address in &gone {
            self.lost_addresses.remove(address);
        }
        if !gone.is_empty() {
            self.tell(Control::Gone(gone));
        }
    }

    fn follow(&mut self, netwatch: &mut Netwatch, changes: Changes) {
        match netwatch.snapshot() {
            Ok(snapshot) => self.update(snapshot, changes),
            Err(error) => tracing::warn!("the laptop's networks have changed but can't be read: {error}"),
        }
    }

    fn update(&mut self, snapshot: Snapshot, changes: Changes) {
        self.resolver.reload();
        let configuration = self.resolver.configuration();
        let update = match changes {
            // The snapshot may be incomplete. The next change is reported soon.
            _ if snapshot.interrupted => return,
            Changes::Settled => self.networks.update(snapshot, configuration),
            Changes::Ongoing => self.networks.add(&snapshot, configuration),
        };
        let Some(update) = update else { return };
        if !self.open {
            return;
        }
        let Update { policy, frames, changes, notes, new_default_route, gained, lost } = update;
        let until = Instant::now() + ADDRESS_HOLD;
        self.lost_addresses.extend(lost.into_iter().map(|address| (address, until)));
        for address in gained {
            self.lost_addresses.remove(&address);
        }
        if new_default_route {
            self.nudge.notify_waiters();
            self.tell(Control::Probe);
        }
        self.judge_by(policy);
        frames.into_iter().for_each(|frame| self.tell(Control::Send(frame)));
        lines::route_changes(&changes).iter().for_each(|line| tracing::info!("{line}"));
        notes.iter().for_each(|note| tracing::warn!("{}", note.text));
    }

    async fn answer(&mut self, request: Request) {
        // The requester may be gone.
        match request {
            Request::Status(answer) => drop(answer.send(self.status().await)),
            Request::Reload(answer) => drop(answer.send(self.reload().await)),
            Request::Judge(question, answer) => drop(answer.send(self.judge(&question).await)),
        }
    }

    async fn status(&self) -> Status {
        let (answer, report) = oneshot::channel();
        self.tell(Control::Report(answer));
        let report: Option<Report> = report.await.ok();
        self.record.status(Some(&self.networks), report)
    }

    async fn judge(&self, question: &Question) -> Judgement {
        let (answer, names) = oneshot::channel();
        self.tell(Control::Names(question.destination.ip(), answer));
        let learnt = names.await.unwrap_or_default();
        Judgement::new(question, learnt, self.networks.policy(), self.networks.routes())
    }

    /// The networks have changed: flows are judged by this policy, if it is another one, and questions answered by the
    /// settings of DNS.
    fn judge_by(&self, policy: Option<Policy>) {
        if let Some(dns) = self.networks.dns() {
            self.resolver.set_scope(dns);
        }
        if let Some(policy) = policy {
            self.tell(Control::Policy(policy));
        }
    }

    fn tell(&self, control: Control) {
        // The session holds the receiver for its whole life, so the channel is never closed.
        if let Err(mpsc::error::TrySendError::Full(control)) = self.io.try_send(control) {
            tracing::error!(?control, "the control channel is full; a message is dropped");
        }
    }
}

/// The changes of what the codespace has of its own.
#[derive(Debug)]
struct CodespaceWatch {
    /// `None` before the first link.
    changes: Option<watch::Receiver<Codespace>>,
    /// When the next change may be applied.
    next: Instant,
}

impl CodespaceWatch {
    /// Waits for the next change. Cancel safe.
    async fn changed(&mut self) -> Codespace {
        if let Some(changes) = &mut self.changes {
            sleep_until(self.next).await;
            // The sender ends with its session.
            if changes.changed().await.is_ok() {
                self.next = Instant::now() + CODESPACE_INTERVAL;
                return changes.borrow_and_update().clone();
            }
        }
        std::future::pending().await
    }
}

/// Waits until the laptop has slept and woken.
async fn woken(wake: &mut Option<WakeWatch>) -> Duration {
    if let Some(watch) = wake {
        match watch.woken().await {
            Ok(slept) => return slept,
            Err(error) => tracing::debug!(%error, "can't detect wakes of this machine any more"),
        }
    }
    *wake = None;
    std::future::pending().await
}

/// Waits until the user ends the session.
async fn stopped(stop: &mut Stop) {
    // A dropped sender can no longer request the end, so the session goes on.
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// What io tells of a link.
enum Signal {
    /// The sidecar has processed the first frames.
    Settled,
    /// The link has become quiet, or has ceased to be.
    Quiet(Quiet),
}

async fn next_signal(signals: &mut Option<Signals>) -> Signal {
    let Some(Signals { settled, quiet }) = signals else { return std::future::pending().await };
    tokio::select! {
        true = received(settled) => Signal::Settled,
        Ok(()) = quiet.changed() => Signal::Quiet(*quiet.borrow_and_update()),
        // The link has ended, and the session will say so.
        else => std::future::pending().await,
    }
}

/// Whether the signal was given; waits for it. A sender that is dropped does not give it.
async fn received(signal: &mut Option<oneshot::Receiver<()>>) -> bool {
    let Some(receiver) = signal else { return std::future::pending().await };
    let given = receiver.await.is_ok();
    *signal = None;
    given
}

#[cfg(test)]
mod tests;
