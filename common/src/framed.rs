//! The wire on async streams: [`FrameReader`] and [`FrameWriter`].

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::time::timeout;

use crate::frame::{
    Frame, FrameError, HEADER_LEN, PREAMBLE, announced_len, numbered_packet_header, packet_header,
};
use crate::hello::printable;

/// Bytes requested from the stream at a time. A pipe holds 64 KiB by default.
const READ_SIZE: usize = 256 * 1024;
/// A buffer is reused for further reads until less than this is left of it. With a fresh buffer for each read, one
/// retained packet would pin the whole buffer.
const MIN_READ: usize = 64 * 1024;
/// Slices handed to one vectored write. Linux takes 1024 (`UIO_MAXIOV`).
const MAX_SLICES: usize = 128;

/// Bounds on what may precede the preamble.
#[derive(Debug, Clone, Copy)]
pub struct NoiseLimit {
    /// Maximum number of bytes before the preamble.
    pub bytes: usize,
    /// Maximum time until the preamble is complete.
    pub time: Duration,
}

impl Default for NoiseLimit {
    /// 64 KiB of banners, 20 seconds for a slow login.
    fn default() -> Self {
        Self { bytes: 64 * 1024, time: Duration::from_secs(20) }
    }
}

/// No preamble was received. The message shows what was received instead.
#[derive(Debug, thiserror::Error)]
pub enum PreambleError {
    /// The stream ended first.
    #[error("the other side closed the connection before it spoke the gh-net protocol{}", instead(.0))]
    Ended(Vec<u8>),
    /// Too much came first.
    #[error("the other side does not speak the gh-net protocol{}", instead(.0))]
    Noise(Vec<u8>),
    /// It took too long.
    #[error("the other side did not speak the gh-net protocol within {} seconds{}", .1.as_secs(), instead(.0))]
    Silence(Vec<u8>, Duration),
    /// The stream failed.
    #[error("reading from the other side failed: {0}")]
    Io(#[from] io::Error),
}

/// What was received instead, truncated to fit a message.
fn instead(seen: &[u8]) -> String {
    const SHOWN: usize = 400;
    if seen.is_empty() {
        return "; received nothing".to_owned();
    }
    let text = printable(&String::from_utf8_lossy(&seen[..seen.len().min(SHOWN)]));
    let more = if seen.len() > SHOWN { " …" } else { "" };
    format!("; received instead ({} bytes): {}{more}", seen.len(), text.trim_end())
}

/// Why no further frame can be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The other side broke the protocol.
    #[error("the other side broke the protocol: {0}")]
    Frame(#[from] FrameError),
    /// The stream ended within a frame.
    #[error("the connection ended in the middle of a message")]
    Truncated,
    /// The stream failed.
    #[error("reading from the other side failed: {0}")]
    Io(#[from] io::Error),
}

/// Frames from a stream. Memory is bounded by one frame and one read.
#[derive(Debug)]
pub struct FrameReader<R> {
    stream: R,
    buffer: BytesMut,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// A reader at the very start of `stream`.
    pub fn new(stream: R) -> Self {
        Self { stream, buffer: BytesMut::new() }
    }

    /// Skips noise until the preamble has been read. Returns the noise.
    ///
    /// # Errors
    /// See [`PreambleError`]. The stream is unusable afterwards.
    pub async fn preamble(&mut self, limit: NoiseLimit) -> Result<Vec<u8>, PreambleError> {
        match timeout(limit.time, self.find_preamble(limit.bytes)).await {
            Ok(found) => found,
            Err(_) => Err(PreambleError::Silence(self.buffer.to_vec(), limit.time)),
        }
    }

    async fn find_preamble(&mut self, max_noise: usize) -> Result<Vec<u8>, PreambleError> {
        // Where the preamble may begin at the earliest: everything before that has been searched.
        let mut from = 0;
        loop {
            let unsearched = self.buffer.get(from..).unwrap_or_default();
            let found = unsearched.windows(PREAMBLE.len()).position(|window| window == PREAMBLE);
            let found = found.map(|at| from + at);
            if let Some(at) = found.filter(|at| *at <= max_noise) {
                let noise = self.buffer.split_to(at).to_vec();
                self.buffer.advance(PREAMBLE.len());
                return Ok(noise);
            }
            if found.is_some() || self.buffer.len() >= max_noise + PREAMBLE.len() {
                return Err(PreambleError::Noise(self.buffer.to_vec()));
            }
            from = (self.buffer.len() + 1).saturating_sub(PREAMBLE.len());
            if self.fill(max_noise + PREAMBLE.len()).await? == 0 {
                return Err(PreambleError::Ended(self.buffer.to_vec()));
            }
        }
    }

    async fn fill(&mut self, most: usize) -> io::Result<usize> {
        poll_fn(|cx| self.poll_fill(cx, 1, most)).await
    }

    /// Reads what is available, at most `most` bytes, in one call. Makes room for at least `missing` bytes.
    fn poll_fill(&mut self, cx: &mut Context<'_>, missing: usize, most: usize) -> Poll<io::Result<usize>> {
        if self.buffer.capacity() - self.buffer.len() < MIN_READ.max(missing) {
            self.buffer.reserve(READ_SIZE.max(missing));
        }
        pin!(self.stream.read_buf(&mut (&mut self.buffer).limit(most))).poll(cx)
    }

    /// The next frame, or `None` at the end of the stream. Cancel safe.
    ///
    /// # Errors
    /// See [`ReadError`]. Nothing more can be read from the stream.
    pub async fn next(&mut self) -> Result<Option<Frame>, ReadError> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// The poll form of [`Self::next`]. It reads from the stream only when no whole frame is buffered.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame>, ReadError>> {
        loop {
            if let Some(frame) = Frame::decode(&mut self.buffer)? {
                return Poll::Ready(Ok(Some(frame)));
            }
            // The rest of a frame already begun, and room for what may follow it.
            let missing = announced_len(&self.buffer)?.map_or(0, |len| len - self.buffer.len());
            if ready!(self.poll_fill(cx, missing, READ_SIZE))? == 0 {
                return Poll::Ready(if self.buffer.is_empty() {
                    Ok(None)
                } else {
                    Err(ReadError::Truncated)
                });
            }
        }
    }
}

/// Frames to a stream. Pushed frames are queued and leave, as many as fit, in one vectored write. The queue is
/// unbounded: check [`Self::queued`] before pushing.
#[derive(Debug)]
pub struct FrameWriter<W> {
    stream: W,
    chunks: VecDeque<Bytes>,
    queued: usize,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    /// A writer at the very start of `stream`, with the preamble queued.
    pub fn new(stream: W) -> Self {
        let preamble = Bytes::from_static(&PREAMBLE);
        Self { stream, queued: preamble.len(), chunks: VecDeque::from([preamble]) }
    }

    /// Bytes queued and not yet written.
    pub fn queued(&self) -> usize {
        self.queued
    }

    /// Queues a frame.
    pub fn push(&mut self, frame: &Frame) {
        let mut bytes = BytesMut::new();
        frame.encode(&mut bytes);
        self.push_chunk(bytes.freeze());
    }

    /// Queues a packet of one piece without copying it.
    pub fn push_packet(&mut self, packet: Bytes) {
        self.push_chunk(Bytes::copy_from_slice(&packet_header(packet.len())));
        self.push_chunk(packet);
    }

    /// Queues a packet that consists of its headers and its payload, without copying the payload.
    pub fn push_packet_parts(&mut self, headers: &[u8], payload: Bytes) {
        let mut front = BytesMut::with_capacity(HEADER_LEN + headers.len());
        front.extend_from_slice(&packet_header(headers.len() + payload.len()));
        front.extend_from_slice(headers);
        self.push_chunk(front.freeze());
        self.push_chunk(payload);
    }

    /// The same with a number.
    pub fn push_numbered_packet(&mut self, number: u64, headers: &[u8], payload: Bytes) {
        let numbered = numbered_packet_header(number, headers.len() + payload.len());
        let mut front = BytesMut::with_capacity(numbered.len() + headers.len());
        front.extend_from_slice(&numbered);
        front.extend_from_slice(headers);
        self.push_chunk(front.freeze());
        self.push_chunk(payload);
    }

    fn push_chunk(&mut self, chunk: Bytes) {
        if !chunk.is_empty() {
            self.queued += chunk.len();
            self.chunks.push_back(chunk);
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
        while !self.chunks.is_empty() {
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let mut count = 0;
            for (slice, chunk) in slices.iter_mut().zip(&self.chunks) {
                *slice = IoSlice::new(chunk);
                count += 1;
            }
            let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, &slices[..count]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(written);
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn advance(&mut self, mut written: usize) {
        self.queued -= written;
        while let Some(chunk) = self.chunks.front_mut() {
            if written < chunk.len() {
                chunk.advance(written);
                return;
            }
            written -= chunk.len();
            self.chunks.pop_front();
        }
    }
}

#[cfg(test)]
mod tests;
