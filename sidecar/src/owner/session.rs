//! A session: the gateway hook, the resolver hook and the current link, from the first `Open` until everything is undone.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use gh_net_common::debounce::Changes;
use gh_net_common::frame::{Codespace, Frame, Goodbye, Level, Notice, Open, Opened, Reason, Sources, Token};
use tokio::select;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};

use super::handover;
use super::link::{Link, protocol, pump::Event};
use super::uplink::Uplink;
use crate::attempts::Attempts;
use crate::hook::plan::Plan;
use crate::hook::{Buffers, Hook};
use crate::journal::{Journal, Report};
use crate::liveness::{LinkMonitor, Liveness};
use crate::names::resolv;
use crate::notify::Notifier;
use crate::own_sockets::OwnSockets;
use crate::status::{self, Counters};
use crate::watch::{Seen, Watch};
use crate::{program, undo};

mod follow;
mod holder;
mod names;
mod own;
mod repairs;
mod report;
mod sources;
mod start;

pub(crate) use holder::Holder;
use names::Names;
use own::Own;
use repairs::Repairs;
use sources::Known;

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
    /// Whose packets are taken, besides the host's own.
    from: Sources,
    /// What says which packets these are.
    known: Known,
    /// Tells others about the link.
    monitor: LinkMonitor,
    /// The other end of the last link's ssh connection.
    peer: Option<IpAddr>,
    plan: Plan,
    hook: Hook,
    watch: Watch,
    own: Own,
    /// Whether the laptop is told of a change of it only when the quiet link wakes.
    is_untold: bool,
    /// How many changes of the codespace's networks its user is told.
    told: Attempts,
    /// What there is no room for, as its user was told.
    left_out: Vec<String>,
    repairs: Repairs,
    /// Packets that wait for the link.
    uplink: Uplink,
    names: Names,
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
fn hold(cx: &mut Context<'_>, hook: &Hook, buffers: &mut Buffers, uplink: &mut Uplink) -> Poll<io::Error> {
    for _ in 0..HOLD_BATCH {
        if let Poll::Ready(error) = hook.poll_lost(cx) {
            return Poll::Ready(error);
        }
        match hook.poll_read(cx, buffers) {
            Poll::Ready(Ok(packet)) => uplink.hold(&packet),
            Poll::Ready(Err(error)) => return Poll::Ready(error),
            Poll::Pending => return Poll::Pending,
        }
    }
    cx.waker().wake_by_ref();
    Poll::Pending
}

/// What a session handles next.
enum Next {
    Pump(Event),
    Over(Goodbye),
    Seen(Seen),
}

fn device_lost(hook: &Hook, error: &io::Error) -> Goodbye {
    let text = format!("another program removed the device {}: {error}", hook.name());
    Goodbye { reason: Reason::Tun, text }
}

fn grace_over() -> Goodbye {
    Goodbye { reason: Reason::Done, text: "the session was not resumed within its grace".to_owned() }
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
        let sockets = OwnSockets::default();
        let names = Names::new(hook.addresses(), notifier.clone(), sockets.clone());
        let watch = Watch::new(Path::new(resolv::RESOLV_CONF), notifier.clone());
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
            from: open.from.clone(),
            known: Known::default(),
            monitor: LinkMonitor::new(),
            peer,
            plan,
            hook,
            watch,
            own: Own::default(),
            is_untold: false,
            told: own::told(),
            left_out: Vec::new(),
            repairs: Repairs::default(),
            uplink: Uplink::new(sockets),
            names,
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
        self.peer = link.peer;
        self.from = open.from.clone();
        self.names.begin_anew();
        self.look_after();
        self.own.resolvers = self.names.resolvers().to_vec();
        self.read_networks(Changes::Settled);
        link.pump.writer.push(&self.opened(open.resume.is_some()));
        self.holder = Holder::new(open, link.peer);
        self.number = open.link;
        self.grace = Duration::from_secs(open.grace.into());
        self.deadline = None;
        self.counters.uplink_dropped += self.uplink.resume();
        link.pump.count_into(self.monitor.connected());
        self.is_untold = false;
        let old = self.link.replace(link);
        self.follow_plan();
        self.repairs.warn_of_bypass(&self.hook, &self.notifier);
        old
    }

    fn opened(&self, resumed: bool) -> Frame {
        let Codespace { networks, resolvers } = self.own.codespace();
        Frame::Opened(Opened {
            session: self.id,
            token: self.token,
            resumed,
            mtu: self.hook.mtu(),
            addresses: self.hook.addresses().to_vec(),
            device: self.hook.name().to_owned(),
            networks,
            resolvers,
        })
    }

    /// The current link gets another lane. It never takes the link's place.
    ///
    /// # Errors
    /// The lane is of another link, or not the next one that this link may have.
    pub(crate) fn add_lane(&mut self, lane: Link, open: &Open) -> Result<(), Box<(Link, Goodbye)>> {
        let answer = self.opened(true);
        let refused =
            |lane, reason, text: &str| Err(Box::new((lane, Goodbye { reason, text: text.to_owned() })));
        match self.link.as_mut().filter(|_| open.link == self.number) {
            None => refused(lane, Reason::Stale, "the lane is of a link that the session does not have"),
            Some(link) if link.takes_lane(&lane, open.lane) => {
                link.add_lane(lane, &answer);
                Ok(())
            }
            Some(_) => refused(lane, Reason::Failed, "the session's link can't have this lane"),
        }
    }

    /// Runs until the owner has something to deal with. Cancel safe.
    pub(crate) async fn run(&mut self) -> SessionEvent {
        loop {
            let event = match self.next().await {
                Next::Pump(event) => self.handle(event),
                Next::Over(goodbye) => Some(SessionEvent::Over(goodbye)),
                Next::Seen(seen) => {
                    self.follow(seen);
                    None
                }
            };
            if let Some(event) = event {
                return event;
            }
            // A flood of events from the laptop must not keep the owner from signals and other clients.
            yield_now().await;
        }
    }

    async fn next(&mut self) -> Next {
        let Self { link, hook, watch, uplink, counters, deadline, .. } = self;
        let hook = &*hook;
        let Some(link) = link else {
            let mut buffers = Buffers::default();
            let lost = poll_fn(|cx| hold(cx, hook, &mut buffers, uplink));
            let grace = async {
                match *deadline {
                    Some(deadline) => sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            return select! {
                () = grace => Next::Over(grace_over()),
                error = lost => Next::Over(device_lost(hook, &error)),
                seen = watch.seen(|event| hook.concern(event)) => Next::Seen(seen),
            };
        };
        let (pump, controls) = link.parts();
        // Polled only when it is woken itself, and not for each packet.
        let mut watched = FuturesUnordered::from_iter([watch.seen(|event| hook.concern(event))]);
        select! {
            event = poll_fn(|cx| pump.poll(cx, hook, uplink, counters)) => Next::Pump(event),
            () = handover::any_closed(controls) => Next::Pump(Event::Cut("attach was ended".to_owned())),
            Some(seen) = watched.next() => Next::Seen(seen),
        }
    }

    /// Not async: `run` may be cancelled wherever it waits, and this must not be left half done.
    fn handle(&mut self, event: Event) -> Option<SessionEvent> {
        match event {
            Event::Routes(change) => {
                let refused = self.plan.update(&change);
                self.report(refused);
                self.follow_plan();
                self.names.routes_changed();
                None
            }
            Event::Dns(dns) => {
                self.names.set(dns, &self.monitor, &mut self.journal);
                self.look_after();
                None
            }
            Event::AskStatus => {
                let status = Frame::SidecarStatus(self.wire_status());
                if let Some(link) = &mut self.link {
                    link.pump.send(&status);
                }
                None
            }
            Event::Quiet(quiet) => {
                tracing::debug!(quiet, "the link");
                self.monitor.set(if quiet { Liveness::Quiet } else { Liveness::Up });
                if !quiet {
                    self.tell_laptop();
                }
                None
            }
            Event::Alive => Some(SessionEvent::Alive),
            Event::Goodbye => Some(SessionEvent::Over(Goodbye { reason: Reason::Done, text: String::new() })),
            Event::Violation(text) => Some(SessionEvent::Over(protocol(text))),
            Event::DeviceLost(error) => Some(SessionEvent::Over(device_lost(&self.hook, &error))),
            Event::Cut(why) => Some(self.cut(why, Instant::now())),
            Event::Silent { time, promised } => {
                let why = format!("no data from the laptop for {} seconds", time.as_secs());
                // The laptop does not know yet that a quiet link is dead.
                let known = promised.map_or_else(Instant::now, Instant::from_std).max(Instant::now());
                Some(self.cut(why, known))
            }
        }
    }

    /// The link is gone. The session waits for the next one, if it was asked to.
    /// The laptop knows of it at `known` at the latest.
    fn cut(&mut self, why: String, known: Instant) -> SessionEvent {
        tracing::info!(why, grace = ?self.grace, "the link was cut");
        if self.grace.is_zero() {
            return SessionEvent::Over(Goodbye { reason: Reason::Done, text: why });
        }
        let Some(link) = self.link.take() else { return SessionEvent::Over(grace_over()) };
        self.monitor.set(Liveness::Down);
        self.uplink.hold_all();
        self.deadline = Some(known + self.grace);
        SessionEvent::Cut(Box::new(link), why)
    }

    fn notify(&self, level: Level, code: &'static str, text: String) {
        self.notifier.notify(level, code, text);
    }

    /// Tells the laptop, if there is one, that the session is about to end.
    pub(crate) fn announce_end(&mut self) -> bool {
        let Some(link) = &mut self.link else { return false };
        link.pump.send(&Frame::Ending);
        true
    }

    /// Words for the laptop's user.
    pub(crate) fn notice(&mut self, notice: Notice) {
        if let Some(link) = &mut self.link {
            link.pump.send(&Frame::Notice(notice));
        }
    }

    /// Undoes everything, in reverse. Returns the link, if there is one, for the goodbye.
    pub(crate) fn undo(self) -> (Option<Link>, Report) {
        let Self { link, hook, mut journal, mut names, .. } = self;
        let failure = names.follow_last();
        let mut report = undo::all(&mut journal);
        if let Some(failure) = failure.filter(|failure| !report.failed.contains(failure)) {
            report.failed.push(failure);
        }
        // Stopped only after resolv.conf no longer names the responder.
        drop(names);
        report.undone.push(format!("device {}", hook.name()));
        drop(hook);
        (link, report)
    }
}
