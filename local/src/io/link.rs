//! One link to the sidecar: its two streams, and how it can end.

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use gh_net_common::frame::{FrameError, Goodbye};
use gh_net_common::framed::{FrameReader, FrameWriter};
use tokio::sync::{oneshot, watch};

/// Whether a link is quiet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quiet {
    /// Whether it is.
    pub quiet: bool,
    /// When payload last passed, if it did.
    pub payload: Option<Instant>,
}

/// Both directions of a link, past the handshake.
#[derive(Debug)]
pub struct LinkIo<R, W> {
    /// Frames from the sidecar.
    pub reader: FrameReader<R>,
    /// Frames to the sidecar.
    pub writer: FrameWriter<W>,
    /// Signalled once the sidecar has processed the first frames of the session.
    pub settled: Option<oneshot::Sender<()>>,
    /// Whether the link is quiet.
    pub quiet: watch::Sender<Quiet>,
}

impl<R, W> LinkIo<R, W> {
    /// A link on these streams.
    pub fn new(reader: FrameReader<R>, writer: FrameWriter<W>) -> Self {
        Self { reader, writer, settled: None, quiet: watch::Sender::default() }
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
