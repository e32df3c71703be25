//! What the sidecar sends: every frame that has arrived on the link.

use std::task::{Context, Poll};
use std::time::Instant;

use gh_net_common::frame::{Frame, Goodbye};
use gh_net_common::framed::ReadError;
use gh_net_common::hello::printable;
use tokio::io::AsyncRead;

use super::{Io, LinkEnd, Linked, LostLink, ProtocolError};

/// Maximum number of frames taken per turn.
const FRAMES: usize = 256;
/// Once this many bytes of packets are taken, the turn takes no more frames.
const FRAME_BYTES: usize = 1024 * 1024;

impl Io {
    /// Takes the frames that have arrived. Returns whether there may be more of them.
    pub(super) fn take_frames<R: AsyncRead + Unpin, W>(
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

    /// Takes one frame. Returns the length of the packet in it.
    fn take_frame<R, W>(
        &mut self,
        frame: Frame,
        linked: &mut Linked<'_, R, W>,
        now: Instant,
    ) -> Result<usize, LinkEnd> {
        let Linked { link, control, .. } = linked;
        control.frame_received(now);
        match frame {
            Frame::Packet(packet) => {
                let len = packet.len();
                control.packet_received(len, now);
                self.counters.uplink_bytes += len as u64;
                self.engine.handle_packet(packet, now);
                return Ok(len);
            }
            Frame::Delivered { total, micros } => {
                control.delivered(total, micros, now);
                link.writer.delivered(total);
                self.engine.handle_delivered(total);
            }
            Frame::Ping(value) => control.ping_received(value),
            Frame::Pong(value) => {
                if let Some(trip) = control.pong_received(value, Instant::now()) {
                    self.counters.round_trip = Some(trip);
                    // The sidecar processes frames in order: it has processed all that was sent before the ping.
                    if let Some(settled) = link.settled.take() {
                        // The session may no longer wait for it.
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
            Frame::Standby(_) => return Err(unexpected("a standby packet")),
            Frame::Numbered(..) => return Err(unexpected("a numbered frame")),
            Frame::WantLane => link.want_lane(),
            Frame::Quiet(0) => control.quiet_received(0, now),
            Frame::Quiet(_) => return Err(unexpected("a request to be quiet")),
            Frame::Ending => return Err(LinkEnd::Ending),
            Frame::SidecarStatus(status) => self.sidecar = Some((status, now)),
            Frame::Codespace(codespace) => drop(self.codespace.send_replace(codespace)),
        }
        Ok(0)
    }
}

/// The end of a lost link: with the error of the write that failed before, if one did.
fn lost<R, W>(linked: &mut Linked<'_, R, W>) -> LinkEnd {
    LinkEnd::Lost(linked.failed.take().map_or(LostLink::Ended, |(error, _)| LostLink::Write(error)))
}

fn unexpected(what: &'static str) -> LinkEnd {
    LinkEnd::Protocol(ProtocolError::Unexpected(what))
}
