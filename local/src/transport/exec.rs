//! A command of the user's whose stdin and stdout lead to `gh-net-sidecar attach`.

use std::io;
use std::process::Stdio;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::carrier::{Carrier, Connection, TERMINATION_TIMEOUT};
use super::stderr_tail::StderrTail;
use crate::exit::{Exit, Explain};
use crate::sys::child;

/// Why the command could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such program.
    #[error("the command {0:?} was not found")]
    NotFound(String),
    /// It can't be started.
    #[error("the command {command:?} could not be started: {source}")]
    Spawn {
        /// The program.
        command: String,
        /// Why not.
        source: io::Error,
    },
}

impl Explain for Error {
    fn exit(&self) -> Exit {
        match self {
            Self::NotFound(_) => Exit::Usage,
            Self::Spawn { .. } => Exit::Failed,
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::NotFound(_) => Some(
                "--exec takes a program and its arguments, and runs it without a shell.\n\
                 To use a shell: --exec \"sh -c '…'\""
                    .to_owned(),
            ),
            Self::Spawn { .. } => None,
        }
    }
}

/// Starts the command in a session of its own, so that Ctrl-C in the terminal does not end it before our goodbye has
/// passed through it. Without a controlling terminal it can't ask questions either; from the background, it would be
/// stopped by the kernel for asking.
pub(super) fn connect(words: &[String]) -> Result<Connection, Error> {
    let name = words.first().cloned().unwrap_or_default();
    let mut command = Command::new(&name);
    command
        .args(words.get(1..).unwrap_or_default())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    child::start_in_session(&mut command);
    let mut child = command.spawn().map_err(|source| not_started(&name, source))?;
    let missing = || not_started(&name, io::ErrorKind::BrokenPipe.into());
    let writer = child.stdin.take().ok_or_else(missing)?;
    let reader = child.stdout.take().ok_or_else(missing)?;
    let tail = StderrTail::default();
    if let Some(stderr) = child.stderr.take() {
        tail.read_remote(stderr);
    }
    let (stop, stopped) = oneshot::channel();
    let carrier = Carrier::new(tail, stop, tokio::spawn(watch(Running(child), stopped)));
    Ok(Connection { reader: Box::new(reader), writer: Box::new(writer), carrier })
}

fn not_started(name: &str, source: io::Error) -> Error {
    if source.kind() == io::ErrorKind::NotFound {
        return Error::NotFound(name.to_owned());
    }
    Error::Spawn { command: name.to_owned(), source }
}

/// The command, which leads a process group of its own. Dropping it ends the group.
struct Running(Child);

impl Running {
    async fn ended(&mut self) -> Option<i32> {
        self.0.wait().await.ok()?.code()
    }

    fn signal(&self, signal: Signal) {
        // There is an id only until the command has been waited for, so it can't have been reused.
        if let Some(group) = self.0.id().and_then(|id| i32::try_from(id).ok()) {
            let _ = killpg(Pid::from_raw(group), signal);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
    }
}

/// Waits for the command's end; once `stopped`, signals it if it does not end by itself.
async fn watch(mut command: Running, stopped: oneshot::Receiver<()>) -> Option<i32> {
    tokio::select! {
        status = command.ended() => return status,
        _ = stopped => {}
    }
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        if let Ok(status) = timeout(TERMINATION_TIMEOUT, command.ended()).await {
            return status;
        }
        command.signal(signal);
    }
    command.ended().await
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::super::carrier::ExitReport;
    use super::*;

    fn words(line: &str) -> Vec<String> {
        shlex::split(line).unwrap()
    }

    #[tokio::test]
    async fn bytes_pass_both_ways_and_the_end_has_status_and_stderr() {
        let mut connection =
            connect(&words("sh -c 'read line; echo \"got $line\"; echo oops >&2; exit 3'")).unwrap();
        connection.writer.write_all(b"hello\n").await.unwrap();
        let mut answer = String::new();
        connection.reader.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "got hello\n");
        assert_eq!(connection.carrier.ended().await, ExitReport { status: Some(3), stderr: "oops".into() });
    }

    #[tokio::test]
    async fn a_command_that_does_not_exist_is_a_usage_error() {
        let error = connect(&words("gh-net-no-such-program attach")).unwrap_err();
        assert_eq!(error.to_string(), "the command \"gh-net-no-such-program\" was not found");
        assert_eq!(error.exit(), Exit::Usage);
    }

    #[tokio::test]
    async fn closing_ends_a_command_that_reads_to_the_end_of_its_stdin() {
        let Connection { reader, writer, carrier } =
            connect(&words("sh -c 'cat >/dev/null; exit 7'")).unwrap();
        drop((reader, writer));
        assert_eq!(carrier.close().await.status, Some(7));
    }

    #[tokio::test]
    async fn closing_ends_a_command_that_ignores_it_and_its_children() {
        let line = "sh -c 'trap \"\" TERM; sleep 600 & echo $!; wait; wait; sleep 600'";
        let Connection { mut reader, writer, carrier } = connect(&words(line)).unwrap();
        let mut buffer = [0; 32];
        assert!(reader.read(&mut buffer).await.unwrap() > 0);
        drop(writer);
        assert_eq!(carrier.close().await.status, None);
        // Every child holds the other end of this pipe, so its end means that all have ended.
        assert_eq!(reader.read(&mut buffer).await.unwrap(), 0);
    }
}
