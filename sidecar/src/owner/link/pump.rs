//! The pump: moves packets between the device and the link, as fast as both accept them.
//!
//! One turn handles what the link has brought, then reads all packets that the device has, then writes as many as the
//! link has room for; turns follow each other until nothing more is ready.
//!
//! The [`LinkControl`] bounds what is under way to the laptop. The device is read even if there is no room: its own queue
//! is first in, first out, and what it has no place for is lost, whoever sent it. What has to wait waits in [`Uplink`],
//! which says what goes next.

use std::io;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use gh_net_common::alarm::Alarm;
use gh_net_common::frame::{Dns, Frame, Routes};
use gh_net_common::framed::ReadError;
use gh_net_common::lanes::{LinkReader, LinkWriter};
use gh_net_common::link::{LinkControl, SILENCE};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::hook::{Buffers, Hook};
use crate::liveness::Heard;
use crate::owner::segment;
use crate::owner::standby::Standby;
use crate::owner::uplink::Uplink;
use crate::status::Counters;

/// Maximum bytes of packets queued for the link. Frames queued behind them, including control frames, wait no longer
/// than these take.
const BATCH: usize = 256 * 1024;
/// Above this many queued bytes the link is not read either. Only answers to a peer that does not read can exceed it.
const MAX_QUEUED: usize = 2 * BATCH;
/// Packets of this many bytes are taken off the link before the other direction has its turn.
const DOWNLINK_BATCH: usize = 128 * 1024;
/// Packets of this number, and of this many bytes, are read from the device before the other direction has its turn.
const UPLINK_PACKETS: usize = 256;
const UPLINK_BATCH: usize = 256 * 1024;
/// Turns until other tasks get their turn.
const TURNS: usize = 16;

/// What the session has to handle.
#[derive(Debug)]
pub(crate) enum Event {
    /// The laptop's networks changed.
    Routes(Routes),
    /// The laptop's DNS settings changed.
    Dns(Dns),
    /// The laptop asks for the status.
    AskStatus,
    /// The laptop ends the session.
    Goodbye,
    /// The link has become quiet, or has ceased to be.
    Quiet(bool),
    /// The laptop has given the sign of life that [`Pump::probe`] asked for.
    Alive,
    /// The link ended without a goodbye.
    Cut(String),
    /// The laptop was silent for too long.
    Silent {
        /// For how long.
        time: Duration,
        /// When it will find out at the latest, if the link was quiet.
        promised: Option<Instant>,
    },
    /// The laptop violated the protocol.
    Violation(String),
    /// The device is gone.
    DeviceLost(io::Error),
}

/// A sign of life that was asked for.
#[derive(Debug, PartialEq, Eq)]
enum Probe {
    /// None was.
    None,
    /// No frame has come since.
    Unanswered,
    /// A frame has come, and the session has not been notified yet.
    Answered,
}

/// Moves one link's frames and bounds the bytes in flight.
#[derive(Debug)]
pub(crate) struct Pump<S> {
    /// Frames from the laptop.
    pub(crate) reader: LinkReader<S>,
    /// Frames to the laptop.
    pub(crate) writer: LinkWriter<S>,
    control: LinkControl,
    standby: Standby,
    /// Whether the link was quiet when the session was last notified.
    quiet: bool,
    alarm: Alarm,
    probe: Probe,
    heard: Heard,
    buffers: Buffers,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Pump<S> {
    /// A pump for a new link.
    pub(crate) fn new(reader: LinkReader<S>, writer: LinkWriter<S>) -> Self {
        Self {
            reader,
            writer,
            // A sidecar can't dial, so it gains nothing by giving a link up early.
            control: LinkControl::new(SILENCE, Instant::now()),
            standby: Standby::default(),
            quiet: false,
            alarm: Alarm::new(),
            probe: Probe::None,
            heard: Heard::default(),
            buffers: Buffers::default(),
        }
    }

    /// Counts in `heard` what arrives from the laptop.
    pub(crate) fn count_into(&mut self, heard: Heard) {
        self.heard = heard;
    }

    /// Asks the laptop for a sign of life: [`Event::Alive`] is the answer.
    pub(crate) fn probe(&mut self) {
        self.control.probe(SILENCE, Instant::now());
        self.probe = Probe::Unanswered;
    }

    /// Whether the link is quiet.
    pub(crate) fn is_quiet(&self) -> bool {
        self.control.is_quiet()
    }

    /// Sends a frame that is no packet. It wakes a quiet link.
    pub(crate) fn send(&mut self, frame: &Frame) {
        self.writer.push(frame);
        self.control.frame_sent(Instant::now());
    }

    /// Pumps until there is an event for the session.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        hook: &Hook,
        uplink: &mut Uplink,
        counters: &mut Counters,
    ) -> Poll<Event> {
        if let Poll::Ready(error) = hook.poll_lost(cx) {
            return Poll::Ready(Event::DeviceLost(error));
        }
        for _ in 0..TURNS {
            let brought = match self.poll_downlink(cx, hook, uplink, counters) {
                Ok(progress) => progress,
                Err(event) => return Poll::Ready(event),
            };
            let read = match self.read_ahead(cx, hook, uplink, counters) {
                Ok(progress) => progress,
                Err(error) => return Poll::Ready(Event::DeviceLost(error)),
            };
            let now = Instant::now();
            if let Some(time) = self.control.silence(now) {
                return Poll::Ready(Event::Silent { time, promised: self.control.promised() });
            }
            while let Some(frame) = self.control.poll_frame(self.is_congested(), now) {
                self.writer.push(&frame);
            }
            // Ahead of packets, behind which it would be late; and at once, while the processes of ssh are awake: with a report
            // 5 ms later, an echo takes a fifth longer (measured).
            if brought
                && !self.is_congested()
                && let Some(report) = self.control.poll_report()
            {
                self.writer.push(&report);
            }
            let sent = self.send_waiting(uplink, counters, now);
            let queued = self.writer.queued();
            if let Poll::Ready(Err(error)) = self.writer.poll_flush(cx) {
                return Poll::Ready(Event::Cut(format!("writing to the link failed: {error}")));
            }
            // The link may not have been read because the queue was full.
            let written = self.writer.queued() < queued;
            if let Some(quiet) = self.quiet_changed() {
                return Poll::Ready(Event::Quiet(quiet));
            }
            if !(brought || read || sent || written) {
                let deadline = self.control.poll_timeout(self.is_congested(), now);
                if self.alarm.poll(cx, deadline).is_pending() {
                    return Poll::Pending;
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Whether frames about the link would wait.
    fn is_congested(&self) -> bool {
        self.writer.queued_first() >= BATCH
    }

    fn quiet_changed(&mut self) -> Option<bool> {
        let quiet = self.control.is_quiet();
        if std::mem::replace(&mut self.quiet, quiet) == quiet {
            return None;
        }
        if !quiet {
            self.standby.end();
        }
        Some(quiet)
    }

    /// From the link to the device. Returns whether there was anything.
    fn poll_downlink(
        &mut self,
        cx: &mut Context<'_>,
        hook: &Hook,
        uplink: &mut Uplink,
        counters: &mut Counters,
    ) -> Result<bool, Event> {
        // Reported only now, because a frame may be an event by itself.
        if self.probe == Probe::Answered {
            self.probe = Probe::None;
            return Err(Event::Alive);
        }
        let now = Instant::now();
        let mut bytes = 0;
        let mut progress = false;
        while self.writer.queued() <= MAX_QUEUED && bytes <= DOWNLINK_BATCH {
            let frame = match self.reader.poll_next(cx) {
                Poll::Pending => break,
                Poll::Ready(Ok(Some(frame))) => frame,
                Poll::Ready(Ok(None)) => return Err(Event::Cut("the link was closed".to_owned())),
                Poll::Ready(Err(error @ ReadError::Frame(_))) => {
                    return Err(Event::Violation(error.to_string()));
                }
                Poll::Ready(Err(error)) => return Err(Event::Cut(error.to_string())),
            };
            self.control.frame_received(now);
            self.heard.count();
            if self.probe == Probe::Unanswered {
                self.probe = Probe::Answered;
            }
            if let Frame::Packet(packet) = frame {
                bytes += packet.len();
                self.control.packet_received(packet.len(), now);
                self.standby.discard();
                counters.uplink_dropped += uplink.heard(&packet);
                deliver(&packet, hook, counters);
            } else {
                self.take_frame(frame, now)?;
            }
            progress = true;
        }
        Ok(progress)
    }

    fn take_frame(&mut self, frame: Frame, now: Instant) -> Result<(), Event> {
        match frame {
            Frame::Delivered { total, micros } => {
                self.control.delivered(total, micros, now);
                self.writer.delivered(total);
            }
            Frame::Ping(value) => self.control.ping_received(value),
            Frame::Pong(value) => {
                self.control.pong_received(value, now);
            }
            Frame::Routes(routes) => return Err(Event::Routes(routes)),
            Frame::Dns(dns) => return Err(Event::Dns(dns)),
            Frame::Goodbye(goodbye) => {
                tracing::info!(?goodbye, "the laptop ends the session");
                return Err(Event::Goodbye);
            }
            Frame::Packet(_) => {}
            Frame::AskStatus => return Err(Event::AskStatus),
            // An answer has nothing to answer here.
            Frame::Quiet(0) => {}
            Frame::Quiet(seconds) => {
                self.standby.begin();
                self.control.quiet_received(seconds, now);
            }
            Frame::Standby(packet) => self.standby.add(&packet),
            Frame::Hello(_)
            | Frame::Open(_)
            | Frame::Opened(_)
            | Frame::Notice(_)
            | Frame::Ending
            | Frame::Numbered(..)
            | Frame::WantLane
            | Frame::SidecarStatus(_)
            | Frame::Codespace(_) => {
                return Err(Event::Violation("a message that is not allowed after the handshake".to_owned()));
            }
        }
        Ok(())
    }

    /// From the device to what waits for the link. Tells whether there was anything.
    fn read_ahead(
        &mut self,
        cx: &mut Context<'_>,
        hook: &Hook,
        uplink: &mut Uplink,
        counters: &mut Counters,
    ) -> io::Result<bool> {
        let (mut packets, mut bytes) = (0, 0);
        while packets < UPLINK_PACKETS && bytes < UPLINK_BATCH {
            let Poll::Ready(packet) = hook.poll_read(cx, &mut self.buffers)? else { break };
            packets += 1;
            bytes += packet.len();
            if !(self.control.is_quiet() && self.handle_background(&packet, hook, counters)) {
                counters.uplink_dropped += uplink.push(packet);
            }
        }
        Ok(packets > 0)
    }

    /// From what waits to the link, as long as that has room. Tells whether there was anything.
    fn send_waiting(&mut self, uplink: &mut Uplink, counters: &mut Counters, now: Instant) -> bool {
        let mut progress = false;
        while self.control.has_room(now)
            && self.writer.has_room(self.control.path_bytes())
            && self.writer.queued() < BATCH
            && let Some(piece) = uplink.pop(self.control.largest_packet())
        {
            counters.uplink_packets += 1;
            counters.uplink_bytes += piece.len() as u64;
            self.control.packet_sent(piece.len(), now);
            self.writer.push_packet_parts(&piece.headers, piece.payload);
            progress = true;
        }
        if self.writer.wants_lane(self.control.path_bytes()) {
            self.send(&Frame::WantLane);
        }
        progress
    }
}

impl<S> Pump<S> {
    /// Handles a packet that must not wake a quiet link: a keepalive is answered, a multicast is dropped, because nobody
    /// on the laptop's side would receive it. Returns whether it was one.
    fn handle_background(&self, packet: &[u8], hook: &Hook, counters: &mut Counters) -> bool {
        if let Some(answer) = self.standby.answer(packet) {
            deliver(answer, hook, counters);
            return true;
        }
        segment::is_multicast(packet)
    }
}

/// Hands a packet to the kernel. One bad packet never ends anything: it is dropped and counted.
fn deliver(packet: &Bytes, hook: &Hook, counters: &mut Counters) {
    if !is_packet(packet) {
        counters.downlink_malformed += 1;
        return;
    }
    match hook.write(packet) {
        Ok(()) => {
            counters.downlink_packets += 1;
            counters.downlink_bytes += packet.len() as u64;
        }
        Err(error) => {
            counters.downlink_refused += 1;
            tracing::debug!(%error, "the kernel refused a packet of {} bytes", packet.len());
        }
    }
}

/// Whether the header of `packet` says that it is one whole IP packet of this length.
fn is_packet(packet: &[u8]) -> bool {
    let length = |at: usize| packet.get(at..at + 2).map(|two| usize::from(two[0]) << 8 | usize::from(two[1]));
    match packet.first().map(|byte| byte >> 4) {
        Some(4) => packet.len() >= 20 && length(2) == Some(packet.len()),
        Some(6) => packet.len() >= 40 && length(4) == Some(packet.len() - 40),
        Some(_) | None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_packets_are_recognised() {
        let mut v4 = vec![0x45, 0, 0, 28];
        v4.resize(28, 0);
        assert!(is_packet(&v4));
        v4.push(0);
        assert!(!is_packet(&v4));
        let mut v6 = vec![0x60, 0, 0, 0, 0, 8];
        v6.resize(48, 0);
        assert!(is_packet(&v6));
        assert!(!is_packet(&v6[..47]));
        for junk in [&[][..], &[0x45], &[0x45, 0, 0, 4], &[0; 40], &[0xff; 60], &[0x60; 5]] {
            assert!(!is_packet(junk));
        }
    }
}
