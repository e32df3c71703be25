//! Starting ssh, and seeing to its end.

use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStdin, Command};

use super::super::said::Said;
use super::terminal::{self, Lent};
use super::{Error, SOCKET};

/// ssh while it connects and authenticates: it ends by itself once the master is in the background, or it has
/// failed. Dropping it ends it.
pub(super) struct Dialling {
    ssh: Child,
    /// Dropped, and thereby taken back, after ssh has been told to end.
    _terminal: Option<Lent>,
}

impl Dialling {
    pub(super) fn start(arguments: &[String], terminal: Option<Lent>) -> Result<Self, Error> {
        tracing::debug!("ssh {}", arguments.join(" "));
        let mut command = Command::new("ssh");
        command
            .args(arguments)
            // Where stdin is no terminal, ssh asks by SSH_ASKPASS instead of on the terminal.
            .stdin(if terminal.is_some() { Stdio::inherit() } else { Stdio::null() })
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        terminal::arrange(&mut command, terminal.is_some());
        let spawned = command.spawn();
        spawned.map(|ssh| Self { ssh, _terminal: terminal }).map_err(|source| {
            if source.kind() == io::ErrorKind::NotFound {
                return Error::Missing;
            }
            Error::Local { what: "ssh could not be started", source }
        })
    }

    /// Listens to ssh, and goes on listening to the master. As long as the flag that is returned is not set,
    /// the words are part of a dialogue (`shown`) or of a later error; from then on they are news.
    pub(super) fn listen(&mut self, said: &Said, shown: bool) -> Arc<AtomicBool> {
        let connected = Arc::new(AtomicBool::new(false));
        let flag = connected.clone();
        if let Some(stderr) = self.ssh.stderr.take() {
            said.listen(stderr, move |line| {
                if flag.load(Ordering::Relaxed) {
                    tracing::warn!("ssh: {line}");
                } else if shown && !line.starts_with("Warning: Permanently added") {
                    let _ = writeln!(io::stderr(), "{line}");
                } else {
                    tracing::debug!("ssh: {line}");
                }
            });
        }
        connected
    }

    /// Whether it has connected. Takes the terminal back.
    pub(super) async fn finish(mut self) -> Result<bool, Error> {
        let status = self.ssh.wait().await;
        let status = status.map_err(|source| Error::Local { what: "waiting for ssh failed", source })?;
        // The terminal's Ctrl-C reaches whoever it is lent to.
        if status.signal() == Some(Signal::SIGINT as i32) {
            return Err(Error::Interrupted);
        }
        Ok(status.success())
    }
}

impl Drop for Dialling {
    fn drop(&mut self) {
        // There is an id only as long as ssh has not been waited for, so it can't be another's yet.
        if let Some(id) = self.ssh.id().and_then(|id| i32::try_from(id).ok()) {
            let _ = kill(Pid::from_raw(id), Signal::SIGTERM);
        }
    }
}

/// A shell that waits for our end, whatever ends us: its stdin is a pipe that only we hold the other end of.
/// Then it ends the ssh that still dials, or the master, and removes their directory.
pub(super) struct Watcher {
    _child: Child,
    stdin: Option<ChildStdin>,
}

const WATCH: &str = r#"read -r dialled || kill "$1"; read -r end; ssh -S "$2" -O exit none; rm -rf "$3""#;

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
            // Ctrl-C is not meant for it.
            .process_group(0)
            .spawn()
            .map_err(|source| Error::Local { what: "sh could not be started", source })?;
        let stdin = child.stdin.take();
        Ok(Self { _child: child, stdin })
    }

    /// The dialling ssh has ended, so its id may soon be another's.
    pub(super) async fn dialled(&mut self) {
        if let Some(stdin) = &mut self.stdin {
            let _ = stdin.write_all(b"dialled\n").await;
        }
    }
}
