//! Starting the ssh master, and making sure that it ends.

use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::timeout;

use super::super::stderr_tail::StderrTail;
use super::error::Error;
use super::terminal::{self, TerminalLoan};

/// The master's socket within its directory; the `openssh` crate expects this name.
pub(super) const SOCKET: &str = "master";

/// The ssh process that connects and authenticates. It exits once the master is in the background, or when it has
/// failed. Dropping this ends it.
pub(super) struct Dialling {
    ssh: Child,
    /// Dropped after ssh has been signalled, which returns the terminal to us.
    _terminal: Option<TerminalLoan>,
}

impl Dialling {
    pub(super) fn start(arguments: &[String], terminal: Option<TerminalLoan>) -> Result<Self, Error> {
        tracing::debug!("ssh {}", arguments.join(" "));
        let mut command = Command::new("ssh");
        command
            .args(arguments)
            // If stdin is not a terminal, ssh asks by SSH_ASKPASS instead of on the terminal.
            .stdin(if terminal.is_some() { Stdio::inherit() } else { Stdio::null() })
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        terminal::prepare(&mut command, terminal.is_some());
        let spawned = command.spawn();
        spawned.map(|ssh| Self { ssh, _terminal: terminal }).map_err(|source| {
            if source.kind() == io::ErrorKind::NotFound {
                return Error::Missing;
            }
            Error::Local { what: "ssh could not be started", source }
        })
    }

    /// Reads the stderr of ssh, which is later that of the master. Until the returned flag is set, lines are shown
    /// as part of ssh's dialogue with the user (`shown`) or kept for an error; from then on they are logged.
    pub(super) fn read_stderr(&mut self, tail: &StderrTail, shown: bool) -> Arc<AtomicBool> {
        let connected = Arc::new(AtomicBool::new(false));
        let flag = connected.clone();
        if let Some(stderr) = self.ssh.stderr.take() {
            tail.read(stderr, move |line| {
                let is_connected = flag.load(Ordering::Relaxed);
                if is_connected && !is_refused_channel(line) {
                    tracing::warn!("ssh: {line}");
                } else if !is_connected && shown && !line.starts_with("Warning: Permanently added") {
                    let _ = writeln!(io::stderr(), "{line}");
                } else {
                    tracing::debug!("ssh: {line}");
                }
            });
        }
        connected
    }

    /// Waits for ssh to exit, and tells whether it has connected. Returns the terminal to us.
    pub(super) async fn finish(mut self) -> Result<bool, Error> {
        let status = self.ssh.wait().await;
        let status = status.map_err(|source| Error::Local { what: "waiting for ssh failed", source })?;
        // Ctrl-C in the terminal reaches the foreground process group, which is ssh's meanwhile.
        if status.signal() == Some(Signal::SIGINT as i32) {
            return Err(Error::Interrupted);
        }
        Ok(status.success())
    }
}

/// Whether ssh says that the server has opened no channel. Who asked for it is told, too, and knows what that means.
fn is_refused_channel(line: &str) -> bool {
    line.starts_with("channel ") && line.contains(": open failed: ")
}

impl Drop for Dialling {
    fn drop(&mut self) {
        // There is an id only until ssh has been waited for, so it can't have been reused.
        if let Some(id) = self.ssh.id().and_then(|id| i32::try_from(id).ok()) {
            let _ = kill(Pid::from_raw(id), Signal::SIGTERM);
        }
    }
}

/// A shell that ends the ssh that is connecting, or the master, and removes their directory, once its stdin ends: a
/// pipe whose other end only we hold. So it does that even after we were killed.
pub(super) struct Watcher {
    child: Child,
    stdin: Option<ChildStdin>,
}

/// A master that is stopped does not answer. As long as it lives, so does its socket, and its id is still its own.
const WATCH: &str = r#"
read -r dialled || kill "$1"
master=$(ssh -S "$2" -O check none 2>&1)
read -r end
timeout 2 ssh -S "$2" -O exit none
if [ $? = 124 ]; then
    master=${master##*pid=}
    kill -9 "${master%%)*}"
fi
rm -rf "$3""#;

/// How long the watcher may take: the two seconds above, on a busy machine.
const WATCHER_TIMEOUT: Duration = Duration::from_secs(5);

impl Watcher {
    pub(super) fn start(ssh: &Dialling, directory: &Path) -> Result<Self, Error> {
        let mut child = Command::new("sh")
            .args(["-c", WATCH, "gh-net-watcher"])
            .arg(ssh.ssh.id().unwrap_or_default().to_string())
            .arg(directory.join(SOCKET))
            .arg(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // So that Ctrl-C does not reach it.
            .process_group(0)
            .spawn()
            .map_err(|source| Error::Local { what: "sh could not be started", source })?;
        let stdin = child.stdin.take();
        Ok(Self { child, stdin })
    }

    /// The connecting ssh has exited, so its id must not be signalled any more.
    pub(super) async fn dialled(&mut self) {
        if let Some(stdin) = &mut self.stdin {
            let _ = stdin.write_all(b"dialled\n").await;
        }
    }

    /// Ends the master, and waits until it has ended.
    pub(super) async fn finish(mut self) {
        self.stdin.take();
        let _ = timeout(WATCHER_TIMEOUT, self.child.wait()).await;
    }
}
