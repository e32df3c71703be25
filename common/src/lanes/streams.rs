//! The lanes' streams: [`LinkReader`] and [`LinkWriter`], of one lane or several.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::limits::{MAX_LANES, MAX_WAIT};
use super::merge::Merge;
use super::striper::{Place, Striper};
use crate::alarm::Alarm;
use crate::frame::{Frame, FrameError, NUMBERED};
use crate::framed::{FrameReader, FrameWriter, ReadError};
use crate::link::OVERSLEPT;

/// How long the other lanes are read after one has ended: a goodbye may be on its way.
const LAST_FRAMES: Duration = Duration::from_secs(1);

/// The frames of a link, in order.
#[derive(Debug)]
pub struct LinkReader<R> {
    lanes: Vec<Lane<R>>,
    merge: Merge,
    /// The number of a frame for which others wait, and since when.
    missing: Option<(u64, Instant)>,
    /// When a lane that has ended ends the link.
    ending: Option<Instant>,
    alarm: Alarm,
}

#[derive(Debug)]
struct Lane<R> {
    reader: FrameReader<R>,
    has_ended: bool,
}

impl<R> Lane<R> {
    fn new(reader: FrameReader<R>) -> Self {
        Self { reader, has_ended: false }
    }
}

impl<R: AsyncRead + Unpin> LinkReader<R> {
    /// A link of one lane.
    pub fn new(first: FrameReader<R>) -> Self {
        Self {
            lanes: vec![Lane::new(first)],
            merge: Merge::default(),
            missing: None,
            ending: None,
            alarm: Alarm::new(),
        }
    }

    /// The first lane, for the handshake.
    pub fn first(&mut self) -> &mut FrameReader<R> {
        &mut self.lanes[0].reader
    }

    /// The lane of a link that has only one.
    pub fn into_first(mut self) -> FrameReader<R> {
        self.lanes.swap_remove(0).reader
    }

    /// Adds a lane, past its handshake.
    pub fn add_lane(&mut self, reader: FrameReader<R>) {
        self.lanes.push(Lane::new(reader));
        self.merge.add_lane();
    }

    /// The next frame, or `None` at the end of the link. Cancel safe.
    ///
    /// # Errors
    /// See [`ReadError`]. Nothing more can be read from the link.
    pub async fn next(&mut self) -> Result<Option<Frame>, ReadError> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// The poll form of [`Self::next`].
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame>, ReadError>> {
        loop {
            if let Some(frame) = self.release()? {
                return Poll::Ready(Ok(Some(frame)));
            }
            match self.poll_lanes(cx)? {
                Poll::Ready(Some((lane, frame))) => {
                    if let Some(frame) = self.take(lane, frame)? {
                        return Poll::Ready(Ok(Some(frame)));
                    }
                }
                Poll::Ready(None) => return Poll::Ready(Ok(None)),
                Poll::Pending => return self.poll_deadline(cx),
            }
        }
    }

    /// The frame that waited and whose turn has come. Frames of unknown kinds are skipped.
    fn release(&mut self) -> Result<Option<Frame>, ReadError> {
        while let Some(bytes) = self.merge.release() {
            if let Some(frame) = Frame::decode_numbered(bytes)? {
                return Ok(Some(frame));
            }
        }
        Ok(None)
    }

    /// Takes the next frame of a lane. Returns the one to handle now, if it is.
    fn take(&mut self, lane: usize, frame: Frame) -> Result<Option<Frame>, ReadError> {
        if let Frame::Numbered(number, bytes) = frame {
            let turn = self.merge.take(lane, number, bytes).map_err(malformed)?;
            return Ok(turn.map(Frame::decode_numbered).transpose()?.flatten());
        }
        let may_lack = lane == 0 && (frame.is_of_link() || !self.merge.has_begun());
        if may_lack { Ok(Some(frame)) } else { Err(malformed("it is missing")) }
    }

    /// The next frame of a lane that has to be read, and the lane; `None` once all have ended. The first lane is the
    /// first to be read: its frames wait for no other.
    fn poll_lanes(&mut self, cx: &mut Context<'_>) -> Result<Poll<Option<(usize, Frame)>>, ReadError> {
        let Self { lanes, merge, .. } = self;
        for (index, lane) in lanes.iter_mut().enumerate() {
            if lane.has_ended || !merge.needs(index) {
                continue;
            }
            match lane.reader.poll_next(cx)? {
                Poll::Pending => {}
                Poll::Ready(Some(frame)) => return Ok(Poll::Ready(Some((index, frame)))),
                Poll::Ready(None) => lane.has_ended = true,
            }
        }
        let has_ended = lanes.iter().all(|lane| lane.has_ended);
        Ok(if has_ended { Poll::Ready(None) } else { Poll::Pending })
    }

    /// Whether the link ends although lanes are open: another one has ended, or does not bring what is missing.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame>, ReadError>> {
        let now = Instant::now();
        if self.lanes.iter().any(|lane| lane.has_ended) {
            self.ending.get_or_insert(now + LAST_FRAMES);
        }
        let missing = self.merge.missing();
        if missing != self.missing.map(|(number, _)| number) {
            self.missing = missing.map(|number| (number, now));
        }
        loop {
            let stalled = self.missing.map(|(_, since)| since + MAX_WAIT);
            let next = [self.ending, stalled].into_iter().flatten().min();
            if self.alarm.poll(cx, next.map(Instant::into_std)).is_pending() {
                return Poll::Pending;
            }
            let now = Instant::now();
            if self.ending.is_some_and(|at| at <= now) {
                return Poll::Ready(Ok(None));
            }
            match stalled.and_then(|at| now.checked_duration_since(at)) {
                // This end was suspended, and the frame may be on its way.
                Some(late) if late > OVERSLEPT => self.missing = missing.map(|number| (number, now)),
                Some(_) => return Poll::Ready(Err(ReadError::Io(brings_nothing()))),
                None => {}
            }
        }
    }
}

fn malformed(what: &'static str) -> ReadError {
    FrameError::Malformed { kind: NUMBERED, what }.into()
}

fn brings_nothing() -> io::Error {
    let text = format!("one of its channels brought nothing for {} seconds", MAX_WAIT.as_secs());
    io::Error::new(io::ErrorKind::TimedOut, text)
}

/// Frames to a link. The queue is unbounded: check [`Self::queued`] before pushing.
#[derive(Debug)]
pub struct LinkWriter<W> {
    lanes: Vec<FrameWriter<W>>,
    striper: Striper,
    may_have_lanes: bool,
}

impl<W: AsyncWrite + Unpin> LinkWriter<W> {
    /// A link of one lane.
    pub fn new(first: FrameWriter<W>) -> Self {
        Self { lanes: vec![first], striper: Striper::default(), may_have_lanes: false }
    }

    /// The first lane, for the handshake.
    pub fn first(&mut self) -> &mut FrameWriter<W> {
        &mut self.lanes[0]
    }

    /// The lane of a link that has only one.
    pub fn into_first(mut self) -> FrameWriter<W> {
        self.lanes.swap_remove(0)
    }

    /// Adds a lane, past its handshake. From now on frames are numbered.
    pub fn add_lane(&mut self, writer: FrameWriter<W>) {
        self.lanes.push(writer);
        self.striper.add_lane();
    }

    /// Bytes queued and not yet written.
    pub fn queued(&self) -> usize {
        self.lanes.iter().map(FrameWriter::queued).sum()
    }

    /// Bytes queued and not yet written on the lane of frames about the link.
    pub fn queued_first(&self) -> usize {
        self.lanes[0].queued()
    }

    /// Queues a frame.
    pub fn push(&mut self, frame: &Frame) {
        if frame.is_of_link() {
            return self.first().push(frame);
        }
        let Place { lane, number } = self.striper.place_frame();
        match number {
            None => self.lanes[lane].push(frame),
            Some(number) => {
                let mut bytes = BytesMut::new();
                frame.encode(&mut bytes);
                self.lanes[lane].push(&Frame::Numbered(number, bytes.freeze()));
            }
        }
    }

    /// Queues a packet of one piece without copying it.
    pub fn push_packet(&mut self, packet: Bytes) {
        self.push_packet_parts(&[], packet);
    }

    /// Queues a packet that consists of its headers and its payload, without copying the payload.
    pub fn push_packet_parts(&mut self, headers: &[u8], payload: Bytes) {
        let Place { lane, number } = self.striper.place_packet(headers.len() + payload.len());
        match number {
            None => self.lanes[lane].push_packet_parts(headers, payload),
            Some(number) => self.lanes[lane].push_numbered_packet(number, headers, payload),
        }
    }

    /// Writes all that is queued. Cancel safe: what was written is off the queue.
    ///
    /// # Errors
    /// The stream's own.
    pub async fn flush(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// The poll form of [`Self::flush`].
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut all = Poll::Ready(Ok(()));
        for lane in &mut self.lanes {
            match lane.poll_flush(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(error) => return Poll::Ready(error),
                Poll::Pending => all = Poll::Pending,
            }
        }
        all
    }
}

impl<W> LinkWriter<W> {
    /// Both ends can use further lanes.
    pub fn allow_lanes(&mut self) {
        self.may_have_lanes = true;
    }

    /// Whether the link has room for a further lane.
    pub fn may_have_another(&self) -> bool {
        self.may_have_lanes && self.lanes.len() < MAX_LANES
    }

    /// How many lanes there are.
    pub fn lane_count(&self) -> usize {
        self.lanes.len()
    }

    /// Whether the lanes have room for another packet, besides the window of the link; see [`Striper::has_room`].
    pub fn has_room(&self, path: u64) -> bool {
        self.striper.has_room(path)
    }

    /// Whether to ask for another lane; see [`Striper::wants_lane`].
    pub fn wants_lane(&mut self, path: u64) -> bool {
        self.may_have_another() && self.striper.wants_lane(path)
    }

    /// The other end reports `total` bytes of packet frames.
    pub fn delivered(&mut self, total: u64) {
        self.striper.delivered(total);
    }
}
