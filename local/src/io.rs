//! The driver of the [engine](crate::engine): the link's frames on one side, the user's sockets on the other.
//!
//! One task owns everything: the engine, all sockets, the queries to the resolver. Nothing is locked, and no
//! flow has a task of its own. The task sleeps until something is ready and then works in turns:
//!
//! 1. *In*: control messages; every frame that has arrived on the link; events of the reactor, answers of the
//!    resolver, and deadlines.
//! 2. *Sockets*: the engine's commands are carried out, and flows that are ready are served.
//! 3. *Out*: the engine's packets are written until the link accepts no more. Writing never blocks.
//!
//! This order keeps acknowledgements few: when one is built, everything it can acknowledge has been taken in.
//! Each source is bounded per turn, so that none starves the others; the rest follows in the next turn.
//!
//! Little is queued towards the link ([`HIGH_WATER`]): packets wait in the engine, where they are scheduled.

mod arena;
mod control;
mod datagram;
mod dns;
mod events;
mod flows;
mod frames;
mod icmp;
mod idle;
mod link;
mod names;
mod notices;
mod own;
mod reactor;
mod report;
mod served;
mod snapshot;
mod sockopt;
mod stream;
mod tcp;
mod udp;
mod warning;

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use gh_net_common::alarm::Alarm;
use gh_net_common::frame::{Codespace, Frame, MAX_STANDBY, SidecarStatus};
use gh_net_common::lanes::LinkWriter;
use gh_net_common::link::{LinkControl, PROBE};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, watch};

use crate::engine::Engine;
use crate::limit::RateLimit;
use crate::resolver::Resolver;
use dns::Queries;
use events::Events;
use flows::Flows;

pub use control::{CONTROLS, Control};
pub use events::Denial;
pub use idle::IdleTimeout;
pub use link::{Lane, LinkEnd, LinkIo, LostLink, ProtocolError, Quiet};
pub use names::Lookup;
pub use notices::Notices;
pub use own::OwnAddresses;
pub use report::{Counters, Report};
pub use warning::Warning;

/// Once this many bytes are queued towards the link, the engine is not asked for more packets. More than the
/// capacity of a pipe (64 KiB), so that one write can fill it.
const HIGH_WATER: usize = 128 * 1024;
/// Maximum number of the resolver's answers taken per turn.
const ANSWERS: usize = 64;
/// Maximum number of times a turn fills and flushes the queue towards the link.
const FLUSHES: usize = 8;
/// Turns before the task yields to the runtime's other tasks.
const TURNS: usize = 16;
/// How long a link that can't be written to is still read from: a goodbye that explains the failure may arrive.
const READ_AFTER_FAILED_WRITE: Duration = Duration::from_secs(2);
/// Minimum time between two requests for the sidecar's status.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);

/// The sockets can't be watched any more, so nothing can be carried.
#[derive(Debug, thiserror::Error)]
#[error("the laptop's kernel no longer reports events of sockets: {0}")]
pub struct ReactorError(#[source] std::io::Error);

/// See the [module's documentation](self).
#[derive(Debug)]
pub struct Io {
    engine: Engine,
    idle: IdleTimeout,
    /// How many flows there was no room for, as far as the user was warned.
    full: u64,
    flows: Flows,
    events: Events,
    alarm: Alarm,
    counters: Counters,
    notices: Notices,
    sidecar: Option<(SidecarStatus, Instant)>,
    codespace: watch::Sender<Codespace>,
    status_requests: RateLimit,
}

/// A link and its state.
struct Linked<'a, R, W> {
    link: &'a mut LinkIo<R, W>,
    control: LinkControl,
    /// When the sidecar was last asked to be quiet.
    asked: Option<Instant>,
    /// The error of a failed write, and how long the link is still read from.
    failed: Option<(std::io::Error, Instant)>,
}

/// Why io stops carrying packets over a link.
enum StopReason {
    Link(LinkEnd),
    Reactor(ReactorError),
}

impl From<LinkEnd> for StopReason {
    fn from(end: LinkEnd) -> Self {
        Self::Link(end)
    }
}

impl From<ReactorError> for StopReason {
    fn from(error: ReactorError) -> Self {
        Self::Reactor(error)
    }
}

impl Io {
    /// An io without a link. Must be called within a tokio runtime with its I/O and time enabled.
    ///
    /// # Errors
    /// The kernel provides no epoll instance.
    pub fn new(
        engine: Engine,
        idle: IdleTimeout,
        own: OwnAddresses,
        resolver: Arc<Resolver>,
    ) -> std::io::Result<Self> {
        Ok(Self {
            engine,
            idle,
            full: 0,
            flows: Flows::new(own, Queries::new(resolver))?,
            events: Events::default(),
            alarm: Alarm::new(),
            counters: Counters::default(),
            notices: Notices::default(),
            sidecar: None,
            codespace: watch::Sender::default(),
            status_requests: RateLimit::new(STATUS_INTERVAL, 1),
        })
    }

    /// What the codespace has of its own, whenever that changes. Only the latest is kept.
    pub fn codespace(&self) -> watch::Receiver<Codespace> {
        self.codespace.subscribe()
    }

    /// Number of flows, not counting TCP connections in TIME-WAIT.
    pub fn flow_count(&self) -> usize {
        self.flows.count()
    }

    /// Carries packets over `link` until it ends. The flows survive a lost link and continue on the next one.
    /// At an orderly end ([`LinkEnd::Shutdown`], [`LinkEnd::Ending`]) and when the reactor fails, all flows are
    /// reset, and the resets are queued in the link's writer. A closed `control` means [`Control::Shutdown`].
    ///
    /// Don't drop the future to stop it, send [`Control::Shutdown`]: otherwise the engine assumes that the link
    /// still exists.
    ///
    /// # Errors
    /// The sockets can't be watched any more.
    pub async fn run<R, W>(
        &mut self,
        link: &mut LinkIo<R, W>,
        control: &mut mpsc::Receiver<Control>,
    ) -> Result<LinkEnd, ReactorError>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let now = Instant::now();
        self.engine.handle_link_up(now);
        let mut linked = Linked { link, control: LinkControl::new(PROBE, now), asked: None, failed: None };
        let end = match poll_fn(|cx| self.poll_linked(cx, &mut linked, control)).await {
            StopReason::Link(end) => Ok(end),
            StopReason::Reactor(error) => Err(error),
        };
        if matches!(end, Ok(LinkEnd::Shutdown | LinkEnd::Ending) | Err(_)) {
            self.reset_flows(&mut linked.link.writer, Instant::now());
        }
        self.engine.handle_link_down(Instant::now());
        end
    }

    /// Resets all flows over a link of another session: the programs in the codespace still wait for them, and the
    /// sidecar of the new session does not know them.
    pub fn reset_over<W: AsyncWrite + Unpin>(mut self, writer: &mut LinkWriter<W>) {
        let now = Instant::now();
        self.engine.handle_link_up(now);
        self.reset_flows(writer, now);
    }

    /// Resets the connections to the hosts only: without a link the codespace can't be informed.
    pub fn abort(mut self) {
        self.abort_sockets(Instant::now());
    }

    /// Serves the sockets without a link until `until` is done. `None` if the session is stopped first; then all
    /// flows' sockets are aborted.
    ///
    /// # Errors
    /// The sockets can't be watched any more.
    pub async fn run_unlinked<F: Future>(
        &mut self,
        until: F,
        control: &mut mpsc::Receiver<Control>,
    ) -> Result<Option<F::Output>, ReactorError> {
        let mut until = pin!(until);
        let output = poll_fn(|cx| {
            // Control messages first: the Ctrl-C behind a shutdown may also have ended `until`.
            if let Poll::Ready(stopped) = self.poll_unlinked(cx, control) {
                return Poll::Ready(stopped.map(|Shutdown| None));
            }
            until.as_mut().poll(cx).map(|output| Ok(Some(output)))
        })
        .await?;
        if output.is_none() {
            self.abort_sockets(Instant::now());
        }
        Ok(output)
    }

    /// Resets all flows towards the hosts. The resets for the codespace wait in the engine.
    fn abort_sockets(&mut self, now: Instant) {
        self.engine.reset_all(now);
        self.carry_out(now);
        self.events.take(&mut self.engine, now);
    }

    /// Resets all flows towards both sides. Nothing but the resets is left in the engine, and they wait for no window.
    fn reset_flows<W: AsyncWrite + Unpin>(&mut self, writer: &mut LinkWriter<W>, now: Instant) {
        self.abort_sockets(now);
        while let Some(packet) = self.engine.poll_transmit(true, now) {
            writer.push_packet_parts(packet.headers.as_slice(), packet.payload);
        }
    }

    fn poll_linked<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        linked: &mut Linked<'_, R, W>,
        control: &mut mpsc::Receiver<Control>,
    ) -> Poll<StopReason> {
        for _ in 0..TURNS {
            match self.turn(cx, linked, control, Instant::now()) {
                Ok(true) => {}
                Ok(false) => return Poll::Pending,
                Err(stop) => return Poll::Ready(stop),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Takes one turn. Returns whether there is more to do at once; if not, the task will be woken.
    fn turn<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        linked: &mut Linked<'_, R, W>,
        control: &mut mpsc::Receiver<Control>,
        now: Instant,
    ) -> Result<bool, StopReason> {
        self.take_control(cx, control, Some((&mut linked.link.writer, &mut linked.control)), now)
            .map_err(|Shutdown| LinkEnd::Shutdown)?;
        self.counters.lanes = linked.link.take_lanes(cx);
        let mut more = self.take_frames(cx, linked, now)?;
        if let Some(silence) = linked.control.silence(now) {
            return Err(LinkEnd::Lost(LostLink::Silent(silence)).into());
        }
        self.engine.set_quiet(linked.control.is_quiet(), now);
        more |= self.serve_sockets(cx, now)?;
        let idle = self.idle.due(self.engine.last_active(), self.engine.last_exchange(), linked.asked);
        if idle.is_some_and(|due| due <= now) {
            self.ask_quiet(linked, now);
        }
        more |= self.put_out(cx, linked, now)?;
        if linked.link.writer.wants_lane(linked.control.path_bytes()) {
            linked.link.want_lane();
        }
        linked.link.show_quiet(linked.control.is_quiet(), self.engine.last_active());
        // Packets that left made room to read more from sockets and to deliver answers.
        more |= self.carry_out(now) | self.flows.has_ready();
        let link_deadline = match &linked.failed {
            Some((_, until)) => Some(*until),
            None => linked.control.poll_timeout(linked.link.writer.queued_first() >= HIGH_WATER, now),
        };
        more |=
            self.deadline_passed(cx, [link_deadline, self.flows.deadline(), idle.filter(|due| *due > now)]);
        Ok(more)
    }

    /// Asks the sidecar to be quiet, and leaves answers to keepalives with it. Not while anything is still under way.
    fn ask_quiet<R, W: AsyncWrite + Unpin>(&mut self, linked: &mut Linked<'_, R, W>, now: Instant) {
        let Linked { link: LinkIo { writer, .. }, control, asked, failed } = linked;
        if writer.queued() > 0 || failed.is_some() || !control.has_nothing_pending() {
            return;
        }
        for acknowledgment in self.engine.standby(MAX_STANDBY) {
            writer.push(&Frame::Standby(Bytes::copy_from_slice(acknowledgment.headers.as_slice())));
        }
        control.ask_quiet();
        *asked = Some(now);
    }

    fn poll_unlinked(
        &mut self,
        cx: &mut Context<'_>,
        control: &mut mpsc::Receiver<Control>,
    ) -> Poll<Result<Shutdown, ReactorError>> {
        for _ in 0..TURNS {
            let now = Instant::now();
            if let Err(Shutdown) = self.take_control::<tokio::io::Sink>(cx, control, None, now) {
                return Poll::Ready(Ok(Shutdown));
            }
            let more = self.serve_sockets(cx, now)? | self.flows.has_ready();
            if !(more | self.deadline_passed(cx, [self.flows.deadline(), None, None])) {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Whether one of the deadlines, or the engine's, has passed. If not, the task will be woken for it.
    fn deadline_passed(&mut self, cx: &mut Context<'_>, deadlines: [Option<Instant>; 3]) -> bool {
        let deadline = deadlines.into_iter().chain([self.engine.poll_timeout()]).flatten().min();
        self.alarm.poll(cx, deadline).is_ready()
    }

    fn take_control<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        control: &mut mpsc::Receiver<Control>,
        mut link: Option<(&mut LinkWriter<W>, &mut LinkControl)>,
        now: Instant,
    ) -> Result<(), Shutdown> {
        while let Poll::Ready(message) = control.poll_recv(cx) {
            match message {
                Some(Control::Policy(policy)) => self.events.set_policy(policy, &mut self.engine, now),
                Some(Control::Send(frame)) => {
                    if let Some((writer, control)) = &mut link {
                        control.frame_sent(now);
                        writer.push(&frame);
                    }
                }
                Some(Control::Probe) => {
                    if let Some((_, control)) = &mut link {
                        control.probe(PROBE, now);
                    }
                }
                Some(Control::Gone(addresses)) => self.flows.fail_bound_to(&addresses, &mut self.engine, now),
                Some(Control::Names(address, answer)) => {
                    drop(answer.send(self.engine.names_of(address, now)));
                }
                Some(Control::Report(answer)) => {
                    // Whoever looks at the status must not keep the codespace awake.
                    if let Some((writer, control)) = &mut link
                        && !control.is_quiet()
                        && self.status_requests.admits(now)
                    {
                        control.frame_sent(now);
                        writer.push(&Frame::AskStatus);
                    }
                    // The requester may be gone.
                    let _ = answer.send(self.report());
                }
                Some(Control::Shutdown) | None => return Err(Shutdown),
            }
        }
        Ok(())
    }

    /// Everything between the engine and the sockets, once. Returns whether there is more to do at once.
    fn serve_sockets(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<bool, ReactorError> {
        let before = self.engine.counters();
        if self.engine.poll_timeout().is_some_and(|due| due <= now) {
            self.engine.handle_timeout(now);
            let ended = self.engine.counters().revoked - before.revoked;
            if ended > 0 {
                tracing::info!("{ended} connections ended: their network did not come back");
            }
        }
        if before.full > std::mem::replace(&mut self.full, before.full) {
            self.flows.note_full(now);
        }
        self.flows.handle_timeout(now);
        let mut more = match self.flows.poll_events(cx) {
            Poll::Ready(events) => events.map(|()| true).map_err(ReactorError)?,
            Poll::Pending => false,
        };
        self.carry_out(now);
        self.flows.serve(&mut self.engine, now);
        self.carry_out(now);
        more |= self.take_answers(cx, now);
        self.events.take(&mut self.engine, now);
        Ok(more)
    }

    /// Carries out all commands of the engine. Returns whether there were any.
    fn carry_out(&mut self, now: Instant) -> bool {
        let mut any = false;
        while let Some(command) = self.engine.poll_command() {
            self.flows.carry_out(command, &mut self.engine, now);
            any = true;
        }
        any
    }

    /// Takes the resolver's answers. Returns whether there may be more of them.
    fn take_answers(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        for _ in 0..ANSWERS {
            if self.flows.poll_answer(cx, &mut self.engine, now).is_pending() {
                return false;
            }
        }
        true
    }

    /// Writes as much as the link accepts. Returns whether there may be more to write at once.
    fn put_out<R, W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        linked: &mut Linked<'_, R, W>,
        now: Instant,
    ) -> Result<bool, LinkEnd> {
        if linked.failed.is_some() {
            return Ok(false);
        }
        for _ in 0..FLUSHES {
            let Linked { link, control, .. } = &mut *linked;
            let writer = &mut link.writer;
            let congested = writer.queued_first() >= HIGH_WATER;
            while let Some(frame) = control.poll_frame(congested, now) {
                writer.push(&frame);
            }
            self.fill(writer, control, congested, now);
            if writer.queued() == 0 {
                return Ok(false);
            }
            match writer.poll_flush(cx) {
                Poll::Pending => return Ok(false),
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => {
                    linked.failed = Some((error, now + READ_AFTER_FAILED_WRITE));
                    return Ok(true);
                }
            }
        }
        Ok(true)
    }

    /// Queues packets of the engine up to [`HIGH_WATER`], and ahead of them the report of what was received, unless the link
    /// is `congested`.
    fn fill<W: AsyncWrite + Unpin>(
        &mut self,
        writer: &mut LinkWriter<W>,
        control: &mut LinkControl,
        congested: bool,
        now: Instant,
    ) {
        self.engine.set_largest_packet(control.largest_packet());
        while writer.queued() < HIGH_WATER {
            let has_room = control.has_room(now) && writer.has_room(control.path_bytes());
            let Some(packet) = self.engine.poll_transmit(has_room, now) else {
                return;
            };
            if !congested && let Some(report) = control.poll_report() {
                writer.push(&report);
            }
            control.packet_sent(packet.len(), now);
            let headers = packet.headers.as_slice();
            self.counters.downlink_bytes += packet.len() as u64;
            writer.push_packet_parts(headers, packet.payload);
        }
    }
}

/// The session has stopped io.
struct Shutdown;

#[cfg(test)]
mod tests;
