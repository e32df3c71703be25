//! ssh: a master connection of our own, and commands that run through it.
//!
//! We start the master ourselves, because the `openssh` crate starts it without a terminal; ours can ask for
//! passphrases, passwords and host keys as usual. With `-f` it moves to the background, and to a session of its own,
//! once it is authenticated: Ctrl-C in the terminal cancels a question, but never ends a connection that our goodbye
//! has yet to pass through. From then on the crate speaks the master's multiplexing protocol: the pipes of a remote
//! command are passed to the master as file descriptors, without a process or a copy in between.
//!
//! A master in the background outlives us if we are killed, so a [watcher](dial::Watcher) process outlives us as well
//! and ends it, also if it no longer answers. ControlPersist with a time limit would also end it, but makes ssh discard
//! what a ProxyCommand (gh's, or the ssh of a jump host) prints on stderr.

pub mod channels;
mod dial;
mod error;
mod failure;
mod resolve;
mod terminal;

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::pin::pin;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use openssh::Session;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::carrier::{Carrier, Connection, TERMINATION_TIMEOUT};
use super::stderr_tail::StderrTail;
pub use channels::Channels;
use channels::{RemoteChild, spawn};
use dial::{Dialling, SOCKET, Watcher};
pub use error::Error;
pub use failure::Reason;
pub(super) use resolve::resolve;
use terminal::TerminalLoan;

/// The longest path of that directory in bytes: a socket's path is limited to 108 (`sun_path`), of which ssh needs 17
/// for a temporary suffix.
const MAX_DIRECTORY: usize = 80;
/// How much of each output of a remote command is kept, in bytes.
const MAX_OUTPUT: u64 = 256 * 1024;

/// What to connect to, and how.
#[derive(Debug)]
pub(super) struct Host {
    /// What ssh is given.
    pub(super) destination: String,
    /// The user's options.
    pub(super) options: Vec<String>,
    /// A configuration file that replaces the user's, and the name of the codespace that it is for.
    pub(super) codespace: Option<(PathBuf, String)>,
    /// Private to this connection.
    pub(super) directory: TempDir,
}

impl Host {
    /// An ssh destination that the user named.
    pub(super) fn of(destination: &str, options: &[String]) -> Result<Self, Error> {
        let directory = private_directory()?;
        Ok(Self {
            destination: destination.to_owned(),
            options: options.to_vec(),
            codespace: None,
            directory,
        })
    }

    fn name(&self) -> String {
        match &self.codespace {
            Some((_, name)) => format!("codespace {name}"),
            None => self.destination.clone(),
        }
    }

    /// ssh uses the first value of an option: required ones come first, then the user's, then our defaults.
    fn arguments(&self, interactive: bool) -> Vec<String> {
        let mut arguments = Vec::new();
        if let Some((file, _)) = &self.codespace {
            arguments.extend(["-F".to_owned(), file.display().to_string()]);
        }
        let socket = self.directory.path().join(SOCKET).display().to_string();
        // With -E, the log stays on our pipe when -f closes stderr.
        let flags = ["-M", "-N", "-f", "-T", "-S", &socket, "-E", "/dev/stderr"];
        arguments.extend(flags.map(str::to_owned));
        let mut option = |option: &str| arguments.extend(["-o".to_owned(), option.to_owned()]);
        REQUIRED.into_iter().for_each(&mut option);
        self.options.iter().map(String::as_str).for_each(&mut option);
        DEFAULTS.into_iter().for_each(&mut option);
        if !interactive {
            option("BatchMode=yes");
        }
        // gh's ProxyCommand takes longer to reach a codespace.
        option(if self.codespace.is_some() { "ConnectTimeout=60" } else { "ConnectTimeout=20" });
        if has_aes() {
            option("Ciphers=^aes128-gcm@openssh.com,aes256-gcm@openssh.com");
        }
        arguments.extend(["--".to_owned(), self.destination.clone()]);
        arguments
    }
}

/// A persistent master would outlive us, and the user's forwardings would conflict with those of an open shell.
const REQUIRED: [&str; 5] = [
    "ControlPersist=no",
    "ClearAllForwardings=yes",
    "RemoteCommand=none",
    "PermitLocalCommand=no",
    "ForwardAgent=no",
];

const DEFAULTS: [&str; 4] = [
    "ForwardX11=no",
    // It makes the transfer of compressed data ten times slower.
    "Compression=no",
    // The link has pings of its own, and a quiet one must have none.
    "ServerAliveInterval=0",
    // gh's configuration has `quiet`, which would hide the reason of a failure.
    "LogLevel=INFO",
];

/// Whether the CPU has AES instructions. Without them, ssh's own first choice, ChaCha20, is faster.
fn has_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

/// A directory that only the user can access, whose path is short enough for a socket in it.
pub(super) fn private_directory() -> Result<TempDir, Error> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let candidates = runtime.into_iter().chain([std::env::temp_dir(), PathBuf::from("/tmp")]);
    let mut failure = io::Error::from(io::ErrorKind::NotFound);
    for parent in candidates.filter(|parent| parent.is_absolute()) {
        // Created with mode 0700.
        match tempfile::Builder::new().prefix("gh-net-").tempdir_in(&parent) {
            Ok(made) if made.path().as_os_str().len() <= MAX_DIRECTORY => return Ok(made),
            Ok(_) => failure = io::Error::other(format!("{} is too long for a socket", parent.display())),
            Err(error) => failure = error,
        }
    }
    Err(Error::Local { what: "no private temporary directory can be created", source: failure })
}

/// An established master connection. Dropping it ends it.
pub(super) struct Master {
    /// Without a directory of its own: it would end the master when it is dropped, and wait for the answer, blocking
    /// everything if the master has been stopped.
    session: Arc<Session>,
    stderr: StderrTail,
    watcher: Watcher,
}

/// The result of a remote command. Both outputs are cut at [`MAX_OUTPUT`].
#[derive(Debug)]
pub(super) struct Output {
    /// Its exit status; `None` if the connection was lost or a signal ended the command.
    pub(super) status: Option<i32>,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

impl Master {
    /// Connects. ssh may ask questions on the terminal.
    pub(super) async fn dial(host: Host) -> Result<Self, Error> {
        let terminal = TerminalLoan::of_stdin();
        // The user sees ssh's messages once: directly if it asks questions on the terminal, else in our error.
        let shown = terminal.is_some() && io::stderr().is_terminal();
        let mut ssh = Dialling::start(&host.arguments(terminal.is_some()), terminal)?;
        let mut watcher = Watcher::start(&ssh, host.directory.path())?;
        let tail = StderrTail::default();
        let connected = ssh.read_stderr(&tail, shown);
        let success = ssh.finish().await;
        watcher.dialled().await;
        if success? {
            connected.store(true, Ordering::Relaxed);
            tail.clear();
            // The watcher removes the directory after the master has ended.
            let socket = host.directory.keep().join(SOCKET);
            let session = Arc::new(Session::resume_mux(socket.into(), None));
            return Ok(Self { session, stderr: tail, watcher });
        }
        let stderr = tail.complete().await;
        let reason = Reason::of(&stderr);
        let remedy = match &host.codespace {
            Some((_, name)) => reason.codespace_remedy(name),
            None => reason.remedy(&host.destination),
        };
        let stderr = (!shown && !stderr.is_empty()).then_some(stderr);
        Err(Error::Failed { reason, name: host.name(), stderr, remedy })
    }

    /// Runs `command` by the remote login shell with `input` as its stdin, and collects its output.
    pub(super) async fn run(&self, command: &str, input: &[u8], limit: Duration) -> Result<Output, Error> {
        let work = async {
            let mut child = spawn(&self.session, command).await?;
            let (stdin, stdout, stderr) =
                (child.stdin().take(), child.stdout().take(), child.stderr().take());
            let feed = async move {
                if let Some(mut stdin) = stdin {
                    // If a command ends without reading all of it, its status and stderr tell why.
                    let _ = stdin.write_all(input).await;
                }
            };
            let ((), stdout, stderr) = tokio::join!(feed, bounded(stdout), bounded(stderr));
            Ok(Output { status: code(child.wait().await), stdout, stderr })
        };
        let timed_out = || Error::Command(format!("it did not end within {} seconds", limit.as_secs()));
        timeout(limit, work).await.map_err(|_| timed_out())?
    }

    /// Runs `command`, and returns its stdin and stdout as a connection.
    pub(super) async fn attach(self, command: &str) -> Result<Connection, Error> {
        let channels = Channels {
            session: Arc::clone(&self.session),
            command: command.to_owned(),
            stderr: self.stderr.clone(),
        };
        let (child, (reader, writer), stderr) = channels.start().await?;
        self.stderr.read_remote(stderr);
        let (stop, stopped) = oneshot::channel();
        let tail = self.stderr.clone();
        let task = tokio::spawn(watch(child, self, stopped));
        Ok(Connection { reader, writer, carrier: Carrier::new(tail, stop, task).with_channels(channels) })
    }
}

/// Waits for the remote command's end, then ends the master. Once `stopped`, the command gets a short time to end.
async fn watch(child: RemoteChild, master: Master, stopped: oneshot::Receiver<()>) -> Option<i32> {
    let mut end = pin!(child.wait());
    let status = tokio::select! {
        status = &mut end => code(status),
        _ = stopped => timeout(TERMINATION_TIMEOUT, end).await.ok().and_then(code),
    };
    master.watcher.finish().await;
    status
}

/// The crate reports status 127, a shell's "not found", as an error.
fn code(status: Result<ExitStatus, openssh::Error>) -> Option<i32> {
    match status {
        Ok(status) => status.code(),
        Err(openssh::Error::Remote(error)) if error.kind() == io::ErrorKind::NotFound => Some(127),
        Err(_) => None,
    }
}

async fn bounded<R: AsyncRead + Unpin>(stream: Option<R>) -> String {
    let mut bytes = Vec::new();
    if let Some(stream) = stream {
        let _ = stream.take(MAX_OUTPUT).read_to_end(&mut bytes).await;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// `word` quoted for any remote login shell: in POSIX shells, fish and csh, single quotes mean the same as long as no
/// quote, backslash or exclamation mark is between them.
pub(super) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) { word.to_owned() } else { format!("'{word}'") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(options: &[&str], interactive: bool) -> Vec<String> {
        let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        Host::of("me@host", &options).unwrap().arguments(interactive)
    }

    #[test]
    fn the_users_options_come_after_the_required_ones_and_before_our_defaults() {
        let arguments = arguments(&["Compression=yes", "ControlPersist=yes"], true);
        let at = |option: &str| arguments.iter().position(|argument| argument == option).unwrap();
        assert!(at("Compression=yes") < at("Compression=no"));
        assert!(at("ControlPersist=no") < at("ControlPersist=yes"));
        assert_eq!(arguments[arguments.len() - 2..], ["--", "me@host"]);
    }

    #[test]
    fn batch_mode_is_set_only_without_a_terminal() {
        assert!(arguments(&[], false).contains(&"BatchMode=yes".to_owned()));
        assert!(!arguments(&[], true).contains(&"BatchMode=yes".to_owned()));
    }

    #[test]
    fn a_path_with_a_space_is_one_word_to_any_shell() {
        assert_eq!(
            quoted("/home/me/.cache/gh-net/gh-net-sidecar-0.1.0-0a"),
            "/home/me/.cache/gh-net/gh-net-sidecar-0.1.0-0a"
        );
        assert_eq!(quoted("/home/my self/x"), "'/home/my self/x'");
        assert_eq!(quoted("~me/x"), "'~me/x'");
    }
}
