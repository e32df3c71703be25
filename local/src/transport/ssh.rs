//! ssh: one master connection of our own, and commands run through it.
//!
//! The master is started by us and not by the `openssh` crate, whose own start has no terminal: here ssh asks
//! for passphrases, passwords and host keys as it always does. With `-f` it leaves for the background, and for
//! a session of its own, once it is authenticated, so that Ctrl-C in the terminal ends a question but never a
//! connection that a goodbye is still to pass through. From there on the crate speaks the master's
//! multiplexing protocol directly: the pipes of a remote command are handed to the master, with no process and
//! no copy between.
//!
//! A master in the background outlives us if we are killed, so a [watcher](dial::Watcher) outlives us, too, and ends
//! it. ControlPersist with a time limit would do so without one, but makes ssh discard what a ProxyCommand
//! (gh's, or a jump host's ssh) says on stderr.

mod dial;
mod failure;
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

use super::said::Said;
use super::{Carrier, GRACE, Link};
use crate::exit::{Exit, Explain};
use dial::{Dialling, Watcher};
pub use failure::Reason;
use terminal::Lent;

/// Where the master listens, within its directory; the `openssh` crate expects this name.
const SOCKET: &str = "master";
/// The longest directory: a socket's path is limited to 108 bytes (`sun_path`), of which ssh needs 17 for a
/// temporary suffix.
const MAX_DIRECTORY: usize = 80;
/// What is kept of each output of a remote command, in bytes.
const MAX_OUTPUT: u64 = 256 * 1024;

/// What to connect to, and how.
#[derive(Debug)]
pub(super) struct Host {
    /// What ssh is given.
    pub(super) destination: String,
    /// The user's options.
    pub(super) options: Vec<String>,
    /// A configuration file in place of the user's, and the codespace it is for.
    pub(super) codespace: Option<(PathBuf, String)>,
    /// Private to this connection.
    pub(super) directory: TempDir,
}

/// Why ssh is of no use.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no ssh.
    #[error("ssh was not found in PATH")]
    Missing,
    /// Something of ours failed before ssh came into play.
    #[error("{what}: {source}")]
    Local {
        /// What.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// It did not connect.
    #[error("ssh {} {name}", reason.what())]
    Failed {
        /// Why, as far as its words tell.
        reason: Reason,
        /// What it was to connect to.
        name: String,
        /// Its words, unless the user has seen them on the terminal.
        said: Option<String>,
        /// What to do.
        remedy: String,
    },
    /// The user pressed Ctrl-C while it asked.
    #[error("connecting was cancelled")]
    Interrupted,
    /// The connection was there, but no command can be run over it.
    #[error("the ssh connection does not run commands: {0}")]
    Command(String),
}

impl Explain for Error {
    fn exit(&self) -> Exit {
        match self {
            Self::Failed { reason, .. } => reason.exit(),
            Self::Command(_) => Exit::Unreachable,
            Self::Interrupted => Exit::Usage,
            Self::Missing | Self::Local { .. } => Exit::Failed,
        }
    }

    fn details(&self) -> Option<String> {
        match self {
            Self::Failed { said, .. } => said.clone(),
            Self::Missing | Self::Local { .. } | Self::Interrupted | Self::Command(_) => None,
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::Missing => Some("Install the OpenSSH client.".to_owned()),
            Self::Failed { remedy, .. } => Some(remedy.clone()),
            Self::Local { .. } | Self::Interrupted | Self::Command(_) => None,
        }
    }
}

impl Host {
    /// A destination of the user's own.
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

    /// The first value ssh sees for an option counts: what must hold comes first, then the user's, then what
    /// is merely better than ssh's defaults.
    fn arguments(&self, interactive: bool) -> Vec<String> {
        let mut arguments = Vec::new();
        if let Some((file, _)) = &self.codespace {
            arguments.extend(["-F".to_owned(), file.display().to_string()]);
        }
        let socket = self.directory.path().join(SOCKET).display().to_string();
        // -E keeps the log open on our pipe when -f closes stderr.
        let flags = ["-M", "-N", "-f", "-T", "-S", &socket, "-E", "/dev/stderr"];
        arguments.extend(flags.map(str::to_owned));
        let mut option = |option: &str| arguments.extend(["-o".to_owned(), option.to_owned()]);
        MUST.into_iter().for_each(&mut option);
        self.options.iter().map(String::as_str).for_each(&mut option);
        BETTER.into_iter().for_each(&mut option);
        if !interactive {
            option("BatchMode=yes");
        }
        // gh needs a moment of its own to reach a codespace.
        option(if self.codespace.is_some() { "ConnectTimeout=60" } else { "ConnectTimeout=20" });
        if has_aes() {
            option("Ciphers=^aes128-gcm@openssh.com,aes256-gcm@openssh.com");
        }
        arguments.extend(["--".to_owned(), self.destination.clone()]);
        arguments
    }
}

/// A persistent master would outlive us, and what the user forwards for a shell would clash with a shell that
/// is open.
const MUST: [&str; 5] = [
    "ControlPersist=no",
    "ClearAllForwardings=yes",
    "RemoteCommand=none",
    "PermitLocalCommand=no",
    "ForwardAgent=no",
];

/// Compression costs a factor of ten on data that is compressed already. A dead peer is noticed within 45 s.
const BETTER: [&str; 5] = [
    "ForwardX11=no",
    "Compression=no",
    "ServerAliveInterval=15",
    "ServerAliveCountMax=3",
    // gh's configuration says quiet, which would hide why ssh fails.
    "LogLevel=INFO",
];

/// Without AES instructions, ssh's own first choice, ChaCha20, is the faster one.
fn has_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

/// A directory only the user can look into, with a path that is short enough for a socket in it.
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
    Err(Error::Local { what: "no private temporary directory can be made", source: failure })
}

/// A master connection that is up. Dropping it ends it.
pub(super) struct Master {
    session: Arc<Session>,
    said: Said,
    _watcher: Watcher,
}

/// What a remote command did. Both texts are cut at [`MAX_OUTPUT`].
#[derive(Debug)]
pub(super) struct Output {
    /// Its exit status; `None` if it was lost with the connection, or a signal ended the command.
    pub(super) status: Option<i32>,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

impl Master {
    /// Connects. ssh may ask questions on the terminal meanwhile.
    pub(super) async fn dial(host: Host) -> Result<Self, Error> {
        let terminal = Lent::to_ssh();
        // ssh's words reach the user once: as they come where it talks with the user, else in our error.
        let shown = terminal.is_some() && io::stderr().is_terminal();
        let mut ssh = Dialling::start(&host.arguments(terminal.is_some()), terminal)?;
        let mut watcher = Watcher::start(&ssh, host.directory.path())?;
        let said = Said::default();
        let connected = ssh.listen(&said, shown);
        let success = ssh.finish().await;
        watcher.dialled().await;
        if success? {
            connected.store(true, Ordering::Relaxed);
            said.clear();
            let session = Arc::new(Session::new_native_mux(host.directory));
            return Ok(Self { session, said, _watcher: watcher });
        }
        let words = said.complete().await;
        let reason = Reason::of(&words);
        let remedy = match &host.codespace {
            Some((_, name)) => reason.codespace_remedy(name),
            None => reason.remedy(&host.destination),
        };
        let said = (!shown && !words.is_empty()).then_some(words);
        Err(Error::Failed { reason, name: host.name(), said, remedy })
    }

    /// Runs `command` by the login shell over there, gives it `input`, and collects what it says.
    pub(super) async fn run(&self, command: &str, input: &[u8], limit: Duration) -> Result<Output, Error> {
        let work = async {
            let mut child = self.spawn(command).await?;
            let (stdin, stdout, stderr) =
                (child.stdin().take(), child.stdout().take(), child.stderr().take());
            let feed = async move {
                if let Some(mut stdin) = stdin {
                    // A command that ends without reading it all says why by its status and words.
                    let _ = stdin.write_all(input).await;
                }
            };
            let ((), stdout, stderr) = tokio::join!(feed, bounded(stdout), bounded(stderr));
            Ok(Output { status: code(child.wait().await), stdout, stderr })
        };
        let late = || Error::Command(format!("it did not end within {} seconds", limit.as_secs()));
        timeout(limit, work).await.map_err(|_| late())?
    }

    /// Runs `command` and makes a link of its stdin and stdout.
    pub(super) async fn attach(self, command: &str) -> Result<Link, Error> {
        let mut child = self.spawn(command).await?;
        let missing = || Error::Command("its pipes are missing".to_owned());
        let writer = child.stdin().take().ok_or_else(missing)?;
        let reader = child.stdout().take().ok_or_else(missing)?;
        if let Some(stderr) = child.stderr().take() {
            self.said.listen_remote(stderr);
        }
        let (stop, stopped) = oneshot::channel();
        let said = self.said.clone();
        let task = tokio::spawn(watch(child, self, stopped));
        Ok(Link {
            reader: Box::new(reader),
            writer: Box::new(writer),
            carrier: Carrier::new(said, stop, task),
        })
    }

    async fn spawn(&self, command: &str) -> Result<RemoteChild, Error> {
        let mut remote = self.session.clone().arc_raw_command(command);
        remote.stdin(openssh::Stdio::piped()).stdout(openssh::Stdio::piped()).stderr(openssh::Stdio::piped());
        remote.spawn().await.map_err(|error| Error::Command(chain(&error)))
    }
}

type RemoteChild = openssh::Child<Arc<Session>>;

/// Waits for the remote command's end, then ends the master. Once `stopped`, the command has little time left.
async fn watch(child: RemoteChild, master: Master, stopped: oneshot::Receiver<()>) -> Option<i32> {
    let mut end = pin!(child.wait());
    let status = tokio::select! {
        status = &mut end => code(status),
        _ = stopped => timeout(GRACE, end).await.ok().and_then(code),
    };
    drop(master);
    status
}

/// The crate makes an error of status 127, which is a shell's "not found".
fn code(status: Result<ExitStatus, openssh::Error>) -> Option<i32> {
    match status {
        Ok(status) => status.code(),
        Err(openssh::Error::Remote(error)) if error.kind() == io::ErrorKind::NotFound => Some(127),
        Err(_) => None,
    }
}

/// An error and what caused it, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

async fn bounded<R: AsyncRead + Unpin>(stream: Option<R>) -> String {
    let mut bytes = Vec::new();
    if let Some(stream) = stream {
        let _ = stream.take(MAX_OUTPUT).read_to_end(&mut bytes).await;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// `word` for whatever login shell is over there: POSIX, fish and csh agree on what single quotes do, as long
/// as they hold no quote, backslash or exclamation mark.
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
    fn the_users_options_come_before_our_wishes_and_after_our_needs() {
        let arguments = arguments(&["Compression=yes", "ControlPersist=yes"], true);
        let at = |option: &str| arguments.iter().position(|argument| argument == option).unwrap();
        assert!(at("Compression=yes") < at("Compression=no"));
        assert!(at("ControlPersist=no") < at("ControlPersist=yes"));
        assert_eq!(arguments[arguments.len() - 2..], ["--", "me@host"]);
    }

    #[test]
    fn questions_are_forbidden_only_without_a_terminal() {
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
