//! The driver of the [`engine`]: the link's frames on one side, the user's sockets on the other.
//!
//! One task owns everything: the engine, all sockets, the questions to the resolver. Nothing is locked, and no
//! flow has a task of its own. The task sleeps until something is ready and then takes turns:
//!
//! 1. *In*: control messages; every frame the link has ready; what the reactor, the resolver and the clock say.
//! 2. *Sockets*: the engine's commands are carried out, and flows that are ready are served.
//! 3. *Out*: the engine's packets are written until the link takes no more, never waiting for it.
//!
//! That order is what makes acknowledgements few: by the time one is built, everything it can acknowledge has
//! been taken in. Each source is bounded a turn, so that none starves the others, and what it could not do in
//! this turn it does in the next one.
//!
//! Little is queued towards the link ([`HIGH_WATER`]): what waits, waits in the engine, where it is scheduled.

mod arena;
mod datagram;
mod dns;
mod flows;
mod icmp;
mod limit;
mod link;
mod notices;
mod reactor;
mod served;
mod sockopt;
mod tcp;
mod udp;

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use gh_net_common::frame::{Frame, Goodbye, HEADER_LEN};
use gh_net_common::framed::{FrameWriter, ReadError};
use gh_net_common::hello::printable;
use gh_net_common::window::Window;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

use crate::engine::{self, Engine};
use crate::policy::Policy;
use crate::resolver::Resolver;
use dns::Questions;
use flows::Flows;
use link::Pulse;
use reactor::Alarm;

pub use link::{LinkEnd, LinkIo, LostLink, ProtocolError};
pub use notices::Notices;

/// Bytes queued towards the link at which the engine is no longer asked for packets. More than a pipe holds
/// (64 KiB), so that one write can fill it.
const HIGH_WATER: usize = 128 * 1024;
/// Frames taken a turn at most.
const FRAMES: usize = 256;
/// Bytes of packets taken a turn at most, give or take one.
const FRAME_BYTES: usize = 1024 * 1024;
/// Answers of the resolver taken a turn at most.
const ANSWERS: usize = 64;
/// How often a turn fills and flushes the queue towards the link at most.
const FLUSHES: usize = 8;
/// Turns before the runtime's other tasks get theirs.
const TURNS: usize = 16;
/// How long a link that can't be written to is still read from: the goodbye that explains it may be there.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What the session tells its io.
#[derive(Debug)]
pub enum Control {
    /// The rules have changed.
    Policy(Policy),
    /// Send this frame (routes, DNS settings). Without a link it is dropped: a new link begins with full sets.
    Send(Frame),
    /// Stop.
    Shutdown,
}

/// Counts since the start, and what there is now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// The engine's.
    pub engine: engine::Counters,
    /// Bytes of packets from the codespace.
    pub uplink_bytes: u64,
    /// Bytes of packets to the codespace.
    pub downlink_bytes: u64,
    /// The last round trip of a ping over the link.
    pub round_trip: Option<Duration>,
    /// Sockets open now.
    pub sockets: usize,
    /// Sockets that could not be opened.
    pub sockets_refused: u64,
    /// Datagrams and echo requests that the laptop's kernel did not take.
    pub datagrams_dropped: u64,
    /// DNS questions dropped for want of room.
    pub questions_dropped: u64,
}

/// See the [module's documentation](self).
#[derive(Debug)]
pub struct Io {
    engine: Engine,
    flows: Flows,
    alarm: Alarm,
    counters: Counters,
    notices: Notices,
}

/// A link and what is known of it.
struct Linked<'a, R, W> {
    link: &'a mut LinkIo<R, W>,
    pulse: Pulse,
    window: Window,
    /// Writing has failed with this error; until when to listen still.
    failed: Option<(std::io::Error, Instant)>,
}

impl Io {
    /// An io without a link. Must be called within a tokio runtime with its I/O and time enabled.
    ///
    /// # Errors
    /// The laptop gives us no epoll instance.
    pub fn new(engine: Engine, resolver: Arc<Resolver>) -> std::io::Result<Self> {
        Ok(Self {
            engine,
            flows: Flows::new(Questions::new(resolver))?,
            alarm: Alarm::new(),
            counters: Counters::default(),
            notices: Notices::default(),
        })
    }

    /// A snapshot of the counters.
    pub fn counters(&self) -> Counters {
        let failures = self.flows.failures();
        Counters {
            engine: self.engine.counters(),
            sockets: self.flows.count(),
            sockets_refused: failures.sockets,
            datagrams_dropped: failures.datagrams,
            questions_dropped: self.flows.questions_dropped(),
            ..self.counters
        }
    }

    /// Carries packets over `link` until it ends. The flows survive it and go on with the next link. A closed
    /// `control` means [`Control::Shutdown`].
    ///
    /// To stop it, send [`Control::Shutdown`]; dropped half-way, it leaves the engine believing in the link.
    pub async fn run<R, W>(
        &mut self,
        link: &mut LinkIo<R, W>,
        control: &mut mpsc::Receiver<Control>,
    ) -> LinkEnd
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let now = Instant::now();
        self.engine.handle_link_up(now);
        let mut linked = Linked { link, pulse: Pulse::new(now), window: Window::default(), failed: None };
        let end = poll_fn(|cx| self.poll_linked(cx, &mut linked, control)).await;
        self.engine.handle_link_down();
        end
    }

    /// Serves the sockets without a link until `until` is done. `None` if told to stop first.
    pub async fn run_unlinked<F: Future>(
        &mut self,
        until: F,
        control: &mut mpsc::Receiver<Control>,
    ) -> Option<F::Output> {
        let mut until = pin!(until);
        poll_fn(|cx| {
            if let Poll::Ready(output) = until.as_mut().poll(cx) {
                return Poll::Ready(Some(output));
            }
            self.poll_unlinked(cx, control).map(|Shutdown| None)
        })
        .await
    }

    fn poll_linked<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        linked: &mut Linked<'_, R, W>,
        control: &mut mpsc::Receiver<Control>,
    ) -> Poll<LinkEnd> {
        for _ in 0..TURNS {
            match self.turn(cx, linked, control, Instant::now()) {
                Ok(true) => {}
                Ok(false) => return Poll::Pending,
                Err(end) => return Poll::Ready(end),
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
    ) -> Result<bool, LinkEnd> {
        self.take_control(cx, control, Some(&mut linked.link.writer))
            .map_err(|Shutdown| LinkEnd::Shutdown)?;
        let mut more = self.take_frames(cx, linked, now)?;
        if let Some(silence) = linked.pulse.silence(now) {
            return Err(LinkEnd::Lost(LostLink::Silent(silence)));
        }
        more |= self.serve_sockets(cx, now);
        more |= self.put_out(cx, linked, now)?;
        // What left made room: for more to read, for answers that waited.
        more |= self.carry_out(now) | self.flows.has_ready();
        let link_deadline = match &linked.failed {
            Some((_, until)) => Some(*until),
            None => linked.pulse.deadline(linked.link.writer.queued() >= HIGH_WATER),
        };
        more |= self.rings(cx, [link_deadline, self.flows.deadline()]);
        Ok(more)
    }

    fn poll_unlinked(
        &mut self,
        cx: &mut Context<'_>,
        control: &mut mpsc::Receiver<Control>,
    ) -> Poll<Shutdown> {
        for _ in 0..TURNS {
            let now = Instant::now();
            if let Err(Shutdown) = self.take_control::<tokio::io::Sink>(cx, control, None) {
                return Poll::Ready(Shutdown);
            }
            let more = self.serve_sockets(cx, now) | self.flows.has_ready();
            if !(more | self.rings(cx, [self.flows.deadline(), None])) {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Whether one of the deadlines, or the engine's, has come. If not, the task will be woken for it.
    fn rings(&mut self, cx: &mut Context<'_>, deadlines: [Option<Instant>; 2]) -> bool {
        let deadline = deadlines.into_iter().chain([self.engine.poll_timeout()]).flatten().min();
        self.alarm.poll(cx, deadline).is_ready()
    }

    fn take_control<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        control: &mut mpsc::Receiver<Control>,
        mut writer: Option<&mut FrameWriter<W>>,
    ) -> Result<(), Shutdown> {
        while let Poll::Ready(message) = control.poll_recv(cx) {
            match message {
                Some(Control::Policy(policy)) => self.engine.set_policy(Box::new(policy), Instant::now()),
                Some(Control::Send(frame)) => {
                    if let Some(writer) = &mut writer {
                        writer.push(&frame);
                    }
                }
                Some(Control::Shutdown) | None => return Err(Shutdown),
            }
        }
        Ok(())
    }

    /// Takes the frames that are ready. Returns whether there may be more of them.
    fn take_frames<R: AsyncRead + Unpin, W>(
        &mut self,
        cx: &mut Context<'_>,
        linked: &mut Linked<'_, R, W>,
        now: Instant,
    ) -> Result<bool, LinkEnd> {
        if linked.failed.as_ref().is_some_and(|(_, until)| *until <= now) {
            return Err(lost(linked));
        }
        let mut bytes = 0;
        for _ in 0..FRAMES {
            let Poll::Ready(read) = linked.link.reader.poll_next(cx) else { return Ok(false) };
            let frame = match read {
                Ok(Some(frame)) => frame,
                Ok(None) => return Err(lost(linked)),
                Err(ReadError::Frame(error)) => return Err(LinkEnd::Protocol(error.into())),
                Err(ReadError::Truncated) => return Err(LinkEnd::Lost(LostLink::Cut)),
                Err(ReadError::Io(error)) => return Err(LinkEnd::Lost(LostLink::Read(error))),
            };
            bytes += self.take_frame(frame, linked, now)?;
            if bytes >= FRAME_BYTES {
                break;
            }
        }
        Ok(true)
    }

    /// Takes one frame. Returns how many bytes of packet it was.
    fn take_frame<R, W>(
        &mut self,
        frame: Frame,
        linked: &mut Linked<'_, R, W>,
        now: Instant,
    ) -> Result<usize, LinkEnd> {
        let Linked { link, pulse, window, .. } = linked;
        pulse.heard(now);
        match frame {
            Frame::Packet(packet) => {
                let len = packet.len();
                pulse.packet_taken(len, now);
                self.counters.uplink_bytes += len as u64;
                self.engine.handle_packet(packet, now);
                return Ok(len);
            }
            Frame::Delivered(total) => {
                window.delivered(total, now);
                self.engine.handle_delivered(total);
            }
            Frame::Ping(value) => pulse.pinged(value),
            Frame::Pong(value) => {
                if let Some(trip) = pulse.ponged(value, Instant::now()) {
                    self.counters.round_trip = Some(trip);
                    window.measured(trip, now);
                    // Frames are dealt with in order: what was sent before the ping is done.
                    if let Some(settled) = link.settled.take() {
                        // A session that does not care is no error.
                        let _ = settled.send(());
                    }
                }
            }
            Frame::Notice(notice) => self.notices.show(&notice, now),
            Frame::Goodbye(Goodbye { reason, text }) => {
                return Err(LinkEnd::Goodbye(Goodbye { reason, text: printable(&text) }));
            }
            Frame::Hello(_) => return Err(unexpected("a Hello")),
            Frame::Open(_) => return Err(unexpected("an Open")),
            Frame::Opened(_) => return Err(unexpected("an Opened")),
            Frame::Routes(_) => return Err(unexpected("Routes")),
            Frame::Dns(_) => return Err(unexpected("DNS settings")),
            Frame::AskStatus => return Err(unexpected("a request for the status")),
            Frame::Ending | Frame::SidecarStatus(_) => {}
        }
        Ok(0)
    }

    /// Everything between the engine and the sockets, once. Returns whether there is more to do at once.
    fn serve_sockets(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        if self.engine.poll_timeout().is_some_and(|due| due <= now) {
            self.engine.handle_timeout(now);
        }
        self.flows.handle_timeout(now);
        let mut more = self.flows.poll_events(cx).is_ready();
        self.carry_out(now);
        self.flows.serve(&mut self.engine, now);
        self.carry_out(now);
        more |= self.take_answers(cx, now);
        more
    }

    /// Carries all of the engine's commands out. Returns whether there were any.
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

    /// Writes what the link takes. Returns whether there may be more to write at once.
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
            let Linked { link, pulse, window, .. } = &mut *linked;
            let writer = &mut link.writer;
            let congested = writer.queued() >= HIGH_WATER;
            while let Some(frame) = pulse.next_due(congested, now) {
                writer.push(&frame);
            }
            self.fill(writer, pulse, window, now);
            if writer.queued() == 0 {
                return Ok(false);
            }
            if !congested && let Some(report) = pulse.report() {
                writer.push(&report);
            }
            match writer.poll_flush(cx) {
                Poll::Pending => return Ok(false),
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => {
                    linked.failed = Some((error, now + LAST_WORDS));
                    return Ok(true);
                }
            }
        }
        Ok(true)
    }

    /// Takes packets from the engine until enough are queued.
    fn fill<W: AsyncWrite + Unpin>(
        &mut self,
        writer: &mut FrameWriter<W>,
        pulse: &mut Pulse,
        window: &mut Window,
        now: Instant,
    ) {
        while writer.queued() < HIGH_WATER {
            let Some(packet) = self.engine.poll_transmit(window.is_open(), now) else { return };
            window.sent((HEADER_LEN + packet.len()) as u64, now);
            let headers = packet.headers.as_slice();
            self.counters.downlink_bytes += packet.len() as u64;
            pulse.packet_sent();
            writer.push_packet_parts(headers, packet.payload);
        }
    }
}

/// We were told to stop.
struct Shutdown;

/// The link is over: for the reason that writing gave, if it gave one.
fn lost<R, W>(linked: &mut Linked<'_, R, W>) -> LinkEnd {
    LinkEnd::Lost(linked.failed.take().map_or(LostLink::Ended, |(error, _)| LostLink::Write(error)))
}

fn unexpected(what: &'static str) -> LinkEnd {
    LinkEnd::Protocol(ProtocolError::Unexpected(what))
}

#[cfg(test)]
mod tests;
