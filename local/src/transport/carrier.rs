//! A connection to a sidecar, and the processes under it.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::pipes::{Reader, Writer};
use super::ssh::channels::Channels;
use super::stderr_tail::StderrTail;

/// How long a process may take to end by itself after its stdin was closed, and again after SIGTERM.
pub(super) const TERMINATION_TIMEOUT: Duration = Duration::from_secs(2);

/// A connected pair of streams.
pub struct Connection {
    /// What the sidecar writes.
    pub reader: Reader,
    /// What the sidecar reads.
    pub writer: Writer,
    /// The processes under both.
    pub carrier: Carrier,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("carrier", &self.carrier).finish_non_exhaustive()
    }
}

/// The processes under a connection. Dropping it ends them.
#[derive(Debug)]
pub struct Carrier {
    stderr: StderrTail,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Option<i32>>,
    end: Option<Option<i32>>,
    channels: Option<Channels>,
}

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExitReport {
    /// The exit status of the remote command; `None` if the connection was cut or a signal ended it.
    pub status: Option<i32>,
    /// The last lines of its stderr, and of ssh's, from before the session was open.
    pub stderr: String,
}

impl ExitReport {
    /// All that is known, for an error message.
    pub fn explained(&self) -> String {
        let status = match self.status {
            Some(status) => format!("it ended with exit status {status}"),
            // ssh itself often prints nothing in this case.
            None => {
                "it ended without an exit status: the connection was cut, or a signal ended it".to_owned()
            }
        };
        if self.stderr.is_empty() { status } else { format!("{}\n{status}", self.stderr) }
    }
}

impl Carrier {
    /// `task` ends when the connection has ended; it ends the connection when `stop` is dropped.
    pub(super) fn new(stderr: StderrTail, stop: oneshot::Sender<()>, task: JoinHandle<Option<i32>>) -> Self {
        Self { stderr, stop: Some(stop), task, end: None, channels: None }
    }

    /// A connection beside which others to the same command can be had.
    pub(super) fn with_channels(self, channels: Channels) -> Self {
        Self { channels: Some(channels), ..self }
    }

    /// How to get further connections to the same command, if they can be had.
    pub fn channels(&self) -> Option<Channels> {
        self.channels.clone()
    }

    /// The session is open: from here on, stderr is logged and not kept.
    pub fn opened(&self) {
        self.stderr.opened();
    }

    /// Waits until the connection has ended by itself. Cancel safe.
    pub async fn ended(&mut self) -> ExitReport {
        let status = match self.end {
            Some(status) => status,
            None => *self.end.insert((&mut self.task).await.unwrap_or(None)),
        };
        ExitReport { status, stderr: self.stderr.complete().await }
    }

    /// Ends the connection. Drop both streams first: a running sidecar ends by itself at the end of its stdin.
    pub async fn close(mut self) -> ExitReport {
        self.stop.take();
        self.ended().await
    }
}
