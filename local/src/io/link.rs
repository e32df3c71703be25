//! One link to the sidecar: its two streams, and how it can end.

use std::fmt;
use std::io;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use gh_net_common::frame::{FrameError, Goodbye};
use gh_net_common::framed::{FrameReader, FrameWriter};
use gh_net_common::lanes::{LinkReader, LinkWriter};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot, watch};

/// Whether a link is quiet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quiet {
    /// Whether it is.
    pub quiet: bool,
    /// When payload last passed, if it did.
    pub payload: Option<Instant>,
}

/// Both directions of a further lane, past its handshake.
pub type Lane<R, W> = (FrameReader<R>, FrameWriter<W>);

/// Both directions of a link, past the handshake.
#[derive(Debug)]
pub struct LinkIo<R, W> {
    /// Frames from the sidecar.
    pub reader: LinkReader<R>,
    /// Frames to the sidecar.
    pub writer: LinkWriter<W>,
    /// Signalled once the sidecar has processed the first frames of the session.
    pub settled: Option<oneshot::Sender<()>>,
    /// Whether the link is quiet.
    pub quiet: watch::Sender<Quiet>,
    /// Where further lanes come from, if the link may have any.
    pub lanes: Option<LaneSource<R, W>>,
}

/// Where io gets further lanes.
#[derive(Debug)]
pub struct LaneSource<R, W> {
    /// Asks for one.
    pub wanted: mpsc::Sender<()>,
    /// Those that have been opened.
    pub opened: mpsc::Receiver<Lane<R, W>>,
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> LinkIo<R, W> {
    /// A link on these streams.
    pub fn new(reader: FrameReader<R>, writer: FrameWriter<W>) -> Self {
        Self {
            reader: LinkReader::new(reader),
            writer: LinkWriter::new(writer),
            settled: None,
            quiet: watch::Sender::default(),
            lanes: None,
        }
    }

    /// Lets the link have further lanes, which are asked for over the first channel and come over the second one.
    pub fn allow_lanes(&mut self) -> (mpsc::Receiver<()>, mpsc::Sender<Lane<R, W>>) {
        let ((wanted, asked), (ready, opened)) = (mpsc::channel(1), mpsc::channel(1));
        self.lanes = Some(LaneSource { wanted, opened });
        self.writer.allow_lanes();
        (asked, ready)
    }

    /// Uses the lanes that have been opened. Returns how many the link has now.
    pub(super) fn take_lanes(&mut self, cx: &mut Context<'_>) -> usize {
        while let Some(lanes) = &mut self.lanes
            && let Poll::Ready(opened) = lanes.opened.poll_recv(cx)
        {
            match opened {
                Some((reader, writer)) => {
                    self.reader.add_lane(reader);
                    self.writer.add_lane(writer);
                }
                None => self.lanes = None,
            }
        }
        self.writer.lane_count()
    }
}

impl<R, W> LinkIo<R, W> {
    /// Asks for another lane, if the link may have one and none is being opened.
    pub(super) fn want_lane(&self) {
        if let Some(lanes) = self.lanes.as_ref().filter(|_| self.writer.may_have_another()) {
            // Full: one is asked for already.
            let _ = lanes.wanted.try_send(());
        }
    }

    /// Tells the session whether the link is quiet.
    pub(super) fn show_quiet(&self, quiet: bool, payload: Option<Instant>) {
        self.quiet
            .send_if_modified(|shown| std::mem::replace(shown, Quiet { quiet, payload }).quiet != quiet);
    }
}

/// How a link ended.
#[derive(Debug)]
pub enum LinkEnd {
    /// The link broke; the session can be resumed on another.
    Lost(LostLink),
    /// The sidecar ended the session. The text is printable.
    Goodbye(Goodbye),
    /// The sidecar is about to end the session and waits for our goodbye.
    Ending,
    /// The sidecar violated the protocol.
    Protocol(ProtocolError),
    /// The session stopped io.
    Shutdown,
}

/// Why a link is lost.
#[derive(Debug, thiserror::Error)]
pub enum LostLink {
    /// The stream from the sidecar ended.
    #[error("the connection to the codespace ended")]
    Ended,
    /// The stream ended within a frame.
    #[error("the connection to the codespace was cut")]
    Cut,
    /// Reading failed.
    #[error("the connection to the codespace failed: {0}")]
    Read(#[source] io::Error),
    /// Writing failed.
    #[error("the connection to the codespace failed: {0}")]
    Write(#[source] io::Error),
    /// Nothing arrived for too long.
    #[error("no data from the codespace for {} seconds", .0.as_secs())]
    Silent(Duration),
}

/// How the sidecar violated the protocol.
#[derive(Debug, thiserror::Error)]
pub enum ProtocolError {
    /// It sent bytes that are not a frame.
    #[error("the sidecar broke the protocol: {0}")]
    Frame(#[from] FrameError),
    /// It sent a frame that is not allowed after the handshake.
    #[error("the sidecar broke the protocol: it sent {0}, which is not allowed after the handshake")]
    Unexpected(&'static str),
}

impl fmt::Display for LinkEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost(lost) => lost.fmt(f),
            Self::Goodbye(goodbye) if goodbye.text.is_empty() => f.write_str("the sidecar ended the session"),
            Self::Goodbye(goodbye) => write!(f, "the sidecar ended the session: {}", goodbye.text),
            Self::Protocol(error) => error.fmt(f),
            Self::Ending => f.write_str("the sidecar is ending the session"),
            Self::Shutdown => f.write_str("the session was stopped"),
        }
    }
}
