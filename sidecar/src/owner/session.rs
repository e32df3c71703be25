//! A session: the gateway hook, the resolver hook and the current link, from the first `Open` until everything is undone.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::BytesMut;
use gh_net_common::frame::{
    self, DnsMode, Frame, Goodbye, Level, MAX_PREFIXES, Notice, Open, Opened, Reason, Token,
};
use gh_net_common::netlink::{MAIN_TABLE, Route, RouteKind};
use gh_net_common::reserved;
use ipnet::IpNet;
use tokio::select;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};

use super::handover;
use super::held::Held;
use super::link::{Link, protocol, pump::Event};
use crate::hook::plan::{MAX_ROUTES, Plan, Refused};
use crate::hook::{Hook, routes_of_codespace};
use crate::journal::{Journal, Report};
use crate::liveness::{LinkMonitor, Liveness};
use crate::names::resolv;
use crate::names::responder::{self, Responder};
use crate::notify::Notifier;
use crate::status::{self, Counters, Status};
use crate::{program, undo};

mod holder;
mod start;

pub(crate) use holder::Holder;
use start::exceptions;

/// Packets read without a link until other tasks get their turn.
const HOLD_BATCH: usize = 256;

/// What a session tells its owner.
#[derive(Debug)]
pub(crate) enum SessionEvent {
    /// The laptop has given the sign of life that [`Session::probe`] asked for.
    Alive,
    /// The session is over. `goodbye` is sent to the laptop once everything is undone.
    Over(Goodbye),
    /// The link was lost, for this reason; the session waits for the next one.
    Cut(Box<Link>, String),
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Session {
    id: [u8; 16],
    token: Token,
    started: Instant,
    since: SystemTime,
    /// The laptop that has the session.
    holder: Holder,
    grace: Duration,
    /// When the session ends if there is still no link.
    deadline: Option<Instant>,
    link: Option<Link>,
    /// The number of the newest link.
    number: u32,
    /// Tells others about the link.
    monitor: LinkMonitor,
    plan: Plan,
    hook: Hook,
    /// Packets that wait for the next link.
    held: Held,
    dns: Dns,
    journal: Journal,
    counters: Counters,
    notifier: Notifier,
    notified: BTreeSet<&'static str>,
}

/// Compares an id and its token in constant time.
pub(crate) fn is_same(one: &([u8; 16], Token), other: &([u8; 16], Token)) -> bool {
    let bytes = |(id, token): &([u8; 16], Token)| [&id[..], &token.0[..]].concat();
    bytes(one).iter().zip(bytes(other)).fold(0, |differences, (a, b)| differences | (a ^ b)) == 0
}

/// Reads the device while there is no link. Ready when the device is lost.
fn hold(cx: &mut Context<'_>, hook: &Hook, arena: &mut BytesMut, held: &mut Held) -> Poll<io::Error> {
    for _ in 0..HOLD_BATCH {
        if let Poll::Ready(error) = hook.poll_lost(cx) {
            return Poll::Ready(error);
        }
        match hook.poll_read(cx, arena) {
            Poll::Ready(Ok(packet)) => held.offer(&packet),
            Poll::Ready(Err(error)) => return Poll::Ready(error),
            Poll::Pending => return Poll::Pending,
        }
    }
    cx.waker().wake_by_ref();
    Poll::Pending
}

fn device_lost(hook: &Hook, error: &io::Error) -> Goodbye {
    let text = format!("another program removed the device {}: {error}", hook.name());
    Goodbye { reason: Reason::Tun, text }
}

fn grace_over() -> Goodbye {
    Goodbye { reason: Reason::Done, text: "the session was not resumed within its grace".to_owned() }
}

/// What names are resolved by.
#[derive(Debug)]
struct Dns {
    mode: DnsMode,
    responder: Option<Responder>,
    hook: Option<resolv::Hook>,
    search: Vec<String>,
}

impl Session {
    /// Installs the gateway hook. If that fails, changes already made are undone.
    ///
    /// # Errors
    /// The goodbye for the laptop.
    pub(crate) fn start(
        open: &Open,
        peer: Option<IpAddr>,
        mut journal: Journal,
        notifier: Notifier,
    ) -> Result<Self, Goodbye> {
        let made = start::identity()
            .and_then(|identity| Ok((identity, start::install_hook(open, peer, &mut journal, &notifier)?)));
        let ((id, token), (hook, plan)) = match made {
            Ok(made) => made,
            Err(mut goodbye) => {
                for failure in undo::all(&mut journal).failed {
                    goodbye.text.push_str(&format!("; not undone: {failure}"));
                }
                return Err(goodbye);
            }
        };
        Ok(Self {
            id,
            token,
            started: Instant::now(),
            since: SystemTime::now(),
            holder: Holder::new(open, peer),
            grace: Duration::from_secs(open.grace.into()),
            deadline: None,
            link: None,
            number: open.link,
            monitor: LinkMonitor::new(),
            plan,
            hook,
            held: Held::default(),
            dns: Dns { mode: DnsMode::Off, responder: None, hook: None, search: vec![] },
            journal,
            counters: Counters::default(),
            notifier,
            notified: BTreeSet::new(),
        })
    }

    /// Whether `claimed` is this session and its token.
    pub(crate) fn is_resumed_by(&self, claimed: &([u8; 16], Token)) -> bool {
        is_same(&self.credentials(), claimed)
    }

    /// Whether the link that `open` asks for is newer than all before.
    pub(crate) fn is_newest(&self, open: &Open) -> bool {
        open.link > self.number
    }

    /// Whether the laptop is connected.
    pub(crate) fn has_link(&self) -> bool {
        self.link.is_some()
    }

    /// The session's id and secret.
    pub(crate) fn credentials(&self) -> ([u8; 16], Token) {
        (self.id, self.token)
    }

    /// Which laptop has the session.
    pub(crate) fn holder(&self) -> &Holder {
        &self.holder
    }

    /// Asks the laptop for a sign of life: [`SessionEvent::Alive`] is the answer.
    pub(crate) fn probe(&mut self) {
        if let Some(link) = &mut self.link {
            link.pump.probe();
        }
    }

    /// The refusal for another laptop while this one's link is alive.
    pub(crate) fn busy(&self) -> Goodbye {
        let text = format!(
            "another gh-net session is in progress: {} has had it for {}. End it there, or run `{} cleanup` in the \
             codespace",
            self.holder,
            status::duration(self.started.elapsed()),
            program::command()
        );
        Goodbye { reason: Reason::Busy, text }
    }

    /// Continues over `link`. Returns the link it replaces, if there was one.
    pub(crate) fn attach(&mut self, mut link: Link, open: &Open) -> Option<Link> {
        self.plan.discard_parts();
        let routes = match routes_of_codespace() {
            Ok(routes) => {
                self.plan.set_exceptions(exceptions(&routes, link.peer));
                routes
            }
            Err(error) => {
                self.plan.add_exceptions(exceptions(&[], link.peer));
                self.notify(
                    Level::Warning,
                    "networks-unknown",
                    format!("the codespace's own networks are unknown: {error}"),
                );
                Vec::new()
            }
        };
        link.pump.writer.push(&Frame::Opened(Opened {
            session: self.id,
            token: self.token,
            resumed: open.resume.is_some(),
            mtu: self.hook.mtu(),
            addresses: self.hook.addresses().to_vec(),
            device: self.hook.name().to_owned(),
            networks: self.networks(&routes),
            resolvers: resolv::nameservers(),
        }));
        self.holder = Holder::new(open, link.peer);
        self.number = open.link;
        self.grace = Duration::from_secs(open.grace.into());
        self.deadline = None;
        link.pump.count_into(self.monitor.connected());
        let old = self.link.replace(link);
        self.follow_plan();
        old
    }

    /// The codespace's own networks: the routes of `main`, which take precedence over ours.
    fn networks(&self, routes: &[Route]) -> Vec<IpNet> {
        let own = |net: &IpNet| self.hook.addresses().iter().any(|a| a.sidecar.trunc().contains(net));
        let mut networks: Vec<IpNet> = routes
            .iter()
            .filter(|route| route.table == MAIN_TABLE && route.kind == RouteKind::Unicast)
            .map(|route| route.prefix)
            .filter(|net| net.prefix_len() > 0 && !reserved::contains(net) && !own(net))
            .collect();
        networks.sort();
        networks.dedup();
        networks.truncate(MAX_PREFIXES);
        networks
    }

    /// Runs until the owner has something to deal with. Cancel safe.
    pub(crate) async fn run(&mut self) -> SessionEvent {
        loop {
            let Some(link) = &mut self.link else {
                let mut arena = BytesMut::new();
                let lost = poll_fn(|cx| hold(cx, &self.hook, &mut arena, &mut self.held));
                return SessionEvent::Over(match self.deadline {
                    Some(deadline) => select! {
                        () = sleep_until(deadline) => grace_over(),
                        error = lost => device_lost(&self.hook, &error),
                    },
                    None => device_lost(&self.hook, &lost.await),
                });
            };
            let (pump, control) = link.parts();
            let event = select! {
                event = poll_fn(|cx| pump.poll(cx, &self.hook, &mut self.held, &mut self.counters)) => event,
                () = handover::closed(control) => Event::Cut("attach was ended".to_owned()),
            };
            if let Some(end) = self.handle(event) {
                return end;
            }
            // A flood of events from the laptop must not keep the owner from signals and other clients.
            yield_now().await;
        }
    }

    /// Not async: `run` may be cancelled wherever it waits, and this must not be left half done.
    fn handle(&mut self, event: Event) -> Option<SessionEvent> {
        match event {
            Event::Routes(change) => {
                let refused = self.plan.update(&change);
                self.report(refused);
                self.follow_plan();
                None
            }
            Event::Dns(dns) => {
                self.set_dns(dns);
                None
            }
            Event::AskStatus => {
                let status = Frame::SidecarStatus(self.wire_status());
                if let Some(link) = &mut self.link {
                    link.pump.writer.push(&status);
                }
                None
            }
            Event::Quiet(quiet) => {
                tracing::debug!(quiet, "the link");
                self.monitor.set(if quiet { Liveness::Quiet } else { Liveness::Up });
                None
            }
            Event::Alive => Some(SessionEvent::Alive),
            Event::Goodbye => Some(SessionEvent::Over(Goodbye { reason: Reason::Done, text: String::new() })),
            Event::Violation(text) => Some(SessionEvent::Over(protocol(text))),
            Event::DeviceLost(error) => Some(SessionEvent::Over(device_lost(&self.hook, &error))),
            Event::Cut(why) => Some(self.cut(why)),
        }
    }

    /// The link is gone. The session waits for the next one, if it was asked to.
    fn cut(&mut self, why: String) -> SessionEvent {
        tracing::info!(why, grace = ?self.grace, "the link was cut");
        if self.grace.is_zero() {
            return SessionEvent::Over(Goodbye { reason: Reason::Done, text: why });
        }
        let Some(link) = self.link.take() else { return SessionEvent::Over(grace_over()) };
        self.monitor.set(Liveness::Down);
        self.deadline = Some(Instant::now() + self.grace);
        SessionEvent::Cut(Box::new(link), why)
    }

    fn follow_plan(&mut self) {
        match self.hook.follow(&self.plan) {
            Ok(refused) => {
                if let Some(first) = refused.first()
                    && self.notified.insert("kernel")
                {
                    let count = refused.len();
                    self.notify(
                        Level::Warning,
                        "routes-refused",
                        format!("the kernel refused {count} routes, among them {first}"),
                    );
                }
            }
            Err(error) => self.notify(
                Level::Error,
                "routes-failed",
                format!("the routes could not be changed: {error}"),
            ),
        }
    }

    fn report(&mut self, refused: Refused) {
        let Refused { family, never, surplus } = refused;
        let family_text =
            format!("{family} routes are ignored: the tunnel does not have their address family");
        let never_text =
            format!("{never} routes are ignored: loopback, link-local, multicast or the tunnel itself");
        let surplus_text = format!("{surplus} routes are ignored: more than {MAX_ROUTES} at a time");
        for (code, count, text) in [
            ("routes-family", family, family_text),
            ("routes-reserved", never, never_text),
            ("routes-surplus", surplus, surplus_text),
        ] {
            // Only one notice of each kind: the laptop's routes may change every second.
            if count > 0 && self.notified.insert(code) {
                self.notify(Level::Warning, code, text);
            }
        }
    }

    fn notify(&self, level: Level, code: &'static str, text: String) {
        self.notifier.notify(level, code, text);
    }

    /// Tells the laptop, if there is one, that the session is about to end.
    pub(crate) fn announce_end(&mut self) -> bool {
        let Some(link) = &mut self.link else { return false };
        link.pump.writer.push(&Frame::Ending);
        true
    }

    /// Words for the laptop's user.
    pub(crate) fn notice(&mut self, notice: Notice) {
        if let Some(link) = &mut self.link {
            link.pump.writer.push(&Frame::Notice(notice));
        }
    }

    /// Follows the laptop's DNS settings.
    fn set_dns(&mut self, dns: frame::Dns) {
        self.dns.mode = dns.mode;
        if dns.mode == DnsMode::Off {
            self.unhook_dns();
        } else if let Err(error) = self.hook_dns(dns) {
            self.notify(
                Level::Warning,
                "names-unhooked",
                format!("names of the laptop's networks are not resolved: {error}"),
            );
        }
    }

    /// Starts the responder first, then makes resolv.conf name it.
    fn hook_dns(&mut self, dns: frame::Dns) -> anyhow::Result<()> {
        let listen: Vec<IpAddr> = self.hook.addresses().iter().map(|a| a.sidecar.addr()).collect();
        let search = dns.search.clone();
        let responder = match self.dns.responder.take() {
            Some(responder) => responder,
            None => {
                let config = responder::Config {
                    listen: listen.clone(),
                    laptop: self.hook.addresses().iter().map(|a| a.gateway).collect(),
                    resolvers: resolv::nameservers(),
                };
                Responder::start(config, self.monitor.watch())?
            }
        };
        responder.set(&dns);
        self.dns.responder = Some(responder);
        match &self.dns.hook {
            Some(hook) if self.dns.search != search => hook.update(&listen, &search)?,
            Some(_) => {}
            None => {
                self.dns.hook = Some(resolv::Hook::install(&mut self.journal, &listen, &search)?);
            }
        }
        self.dns.search = search;
        Ok(())
    }

    fn unhook_dns(&mut self) {
        self.dns.hook = None;
        let report = undo::names(&mut self.journal);
        for failure in report.failed {
            self.notify(Level::Error, "not-undone", failure);
        }
        // Stopped only after resolv.conf no longer names it.
        self.dns.responder = None;
    }

    /// The status for the laptop.
    fn wire_status(&self) -> frame::SidecarStatus {
        let Counters {
            uplink_packets,
            uplink_bytes,
            downlink_packets,
            downlink_bytes,
            downlink_malformed,
            downlink_refused,
        } = self.counters;
        frame::SidecarStatus {
            uptime: self.started.elapsed().as_secs(),
            dns: self.dns.mode,
            resolver_hook: self.dns.hook.is_some(),
            routes: u32::try_from(self.hook.forwarded(&self.plan).len()).unwrap_or(u32::MAX),
            counters: frame::SidecarCounters {
                uplink_packets,
                uplink_bytes,
                downlink_packets,
                downlink_bytes,
                downlink_malformed,
                downlink_refused,
            },
        }
    }

    /// The status for `gh-net-sidecar status`.
    pub(crate) fn status(&self) -> Status {
        let left = self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        Status {
            session: self.id.iter().map(|byte| format!("{byte:02x}")).collect(),
            since: self.since.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
            seconds: self.started.elapsed().as_secs(),
            link: match &self.link {
                Some(link) => status::LinkState::Up { peer: link.peer },
                None => status::LinkState::Grace { seconds: left.unwrap_or_default().as_secs() },
            },
            device: self.hook.name().to_owned(),
            mtu: self.hook.mtu(),
            addresses: self
                .hook
                .addresses()
                .iter()
                .map(|a| status::Address { sidecar: a.sidecar, gateway: a.gateway })
                .collect(),
            routes: self.hook.forwarded(&self.plan),
            dns: match self.dns.mode {
                DnsMode::Off => "off",
                DnsMode::Split => "split",
                DnsMode::Local => "local",
            }
            .to_owned(),
            owner: std::process::id(),
            counters: self.counters,
        }
    }

    /// Undoes everything, in reverse. Returns the link, if there is one, for the goodbye.
    pub(crate) fn undo(self) -> (Option<Link>, Report) {
        let Self { link, hook, mut journal, dns, .. } = self;
        let mut report = undo::all(&mut journal);
        // Stopped only after resolv.conf no longer names the responder.
        drop(dns);
        report.undone.push(format!("device {}", hook.name()));
        drop(hook);
        (link, report)
    }
}
