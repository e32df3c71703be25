//! The channels of a master connection, each of which runs a command.

use std::sync::Arc;
use std::time::Duration;

use openssh::Session;
use tokio::time::timeout;

use super::super::pipes::{Reader, Writer};
use super::super::stderr_tail::StderrTail;
use super::error::Error;

/// How long the start of a remote command may take: a round trip to the codespace.
const SPAWN_TIMEOUT: Duration = Duration::from_secs(30);

/// A command that runs in a channel.
pub(super) type RemoteChild = openssh::Child<Arc<Session>>;

/// Starts `command` by the remote login shell.
///
/// # Errors
/// The server allows no more channels, or ssh does not answer.
pub(super) async fn spawn(session: &Arc<Session>, command: &str) -> Result<RemoteChild, Error> {
    let mut remote = session.clone().arc_raw_command(command);
    remote.stdin(openssh::Stdio::piped()).stdout(openssh::Stdio::piped()).stderr(openssh::Stdio::piped());
    let unanswered = || Error::Command("ssh does not answer".to_owned());
    let spawned = timeout(SPAWN_TIMEOUT, remote.spawn()).await.map_err(|_| unanswered())?;
    spawned.map_err(|error| Error::Command(chain(&error)))
}

/// Further channels of a master connection that run the same command. They end with the master.
#[derive(Clone)]
pub struct Channels {
    pub(super) session: Arc<Session>,
    pub(super) command: String,
    pub(super) stderr: StderrTail,
}

impl std::fmt::Debug for Channels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Channels").field("command", &self.command).finish_non_exhaustive()
    }
}

impl Channels {
    /// Opens another channel.
    ///
    /// # Errors
    /// The server allows no more, or ssh does not answer.
    pub async fn open(&self) -> Result<(Reader, Writer), Error> {
        let (child, streams, stderr) = self.start().await?;
        self.stderr.read(stderr, |line| tracing::debug!("codespace: {line}"));
        // Its exit status does not matter, because the streams end with it.
        tokio::spawn(child.wait());
        Ok(streams)
    }

    /// Starts the command in another channel.
    pub(super) async fn start(&self) -> Result<(RemoteChild, (Reader, Writer), openssh::ChildStderr), Error> {
        let mut child = spawn(&self.session, &self.command).await?;
        let missing = || Error::Command("its pipes are missing".to_owned());
        let writer = child.stdin().take().ok_or_else(missing)?;
        let reader = child.stdout().take().ok_or_else(missing)?;
        let stderr = child.stderr().take().ok_or_else(missing)?;
        Ok((child, (Box::new(reader), Box::new(writer)), stderr))
    }
}

/// An error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
