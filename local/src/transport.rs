//! Connecting to a sidecar's stdin and stdout: over ssh to a codespace or any host, or through a command of the user's.
//!
//! [`Transport::connect`] returns a [`Link`]: two streams of bytes, and the [`Carrier`] that owns the processes under them.
//! Everything a transport starts lives in a task of the carrier, and ends when the carrier is dropped.

mod codespace;
pub mod exec;
pub mod provision;
pub mod ssh;
mod stderr_tail;

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::codespaces::gh;
use crate::config::{Config, Sidecar, Target};
use crate::exit::{Exit, Explain};
use stderr_tail::StderrTail;

/// How long a process may take to end by itself after its stdin was closed, and again after SIGTERM.
const TERMINATION_TIMEOUT: Duration = Duration::from_secs(2);

/// How to reach a sidecar. It can connect any number of times.
#[derive(Debug, Clone)]
pub struct Transport {
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    Exec(Vec<String>),
    Ssh { destination: String, settings: SshSettings },
    Codespace { name: String, settings: SshSettings },
}

/// What ssh is used with, to a codespace or another host.
#[derive(Debug, Clone)]
struct SshSettings {
    options: Vec<String>,
    sidecar: Sidecar,
    sources: provision::Sources,
}

/// A connected pair of streams.
pub struct Link {
    /// What the sidecar writes.
    pub reader: Box<dyn AsyncRead + Send + Unpin>,
    /// What the sidecar reads.
    pub writer: Box<dyn AsyncWrite + Send + Unpin>,
    /// The processes under both.
    pub carrier: Carrier,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("carrier", &self.carrier).finish_non_exhaustive()
    }
}

/// The processes under a link. Dropping it ends them.
#[derive(Debug)]
pub struct Carrier {
    stderr: StderrTail,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Option<i32>>,
    end: Option<Option<i32>>,
}

/// How a link ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkEnd {
    /// The exit status of the remote command; `None` if the connection was cut or a signal ended it.
    pub status: Option<i32>,
    /// The last lines of its stderr, and of ssh's, from before the session was open.
    pub stderr: String,
}

impl LinkEnd {
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
    /// `task` ends when the link has ended; it ends the link when `stop` is dropped.
    fn new(stderr: StderrTail, stop: oneshot::Sender<()>, task: JoinHandle<Option<i32>>) -> Self {
        Self { stderr, stop: Some(stop), task, end: None }
    }

    /// The session is open: from here on, stderr is logged and not kept.
    pub fn opened(&self) {
        self.stderr.opened();
    }

    /// Waits until the link has ended by itself. Cancel safe.
    pub async fn ended(&mut self) -> LinkEnd {
        let status = match self.end {
            Some(status) => status,
            None => *self.end.insert((&mut self.task).await.unwrap_or(None)),
        };
        LinkEnd { status, stderr: self.stderr.complete().await }
    }

    /// Ends the link. Drop both streams first: a running sidecar ends by itself at the end of its stdin.
    pub async fn close(mut self) -> LinkEnd {
        self.stop.take();
        self.ended().await
    }
}

/// Why there is no link.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The user's command could not be run.
    #[error(transparent)]
    Exec(#[from] exec::Error),
    /// ssh did not connect.
    #[error(transparent)]
    Ssh(#[from] ssh::Error),
    /// gh did not provide the codespace's ssh configuration.
    #[error(transparent)]
    Gh(#[from] gh::Error),
    /// There is no sidecar to run in the codespace.
    #[error(transparent)]
    Provision(#[from] provision::Error),
}

impl Error {
    fn explained(&self) -> &dyn Explain {
        match self {
            Self::Exec(error) => error,
            Self::Ssh(error) => error,
            Self::Gh(error) => error,
            Self::Provision(error) => error,
        }
    }
}

impl Explain for Error {
    fn exit(&self) -> Exit {
        self.explained().exit()
    }
    fn details(&self) -> Option<String> {
        self.explained().details()
    }
    fn remedy(&self) -> Option<String> {
        self.explained().remedy()
    }
}

impl Transport {
    /// The transport to the destination in `config`; `None` if the codespace is yet to be chosen.
    pub fn new(config: &Config) -> Option<Self> {
        let settings = || SshSettings {
            options: config.ssh_options.clone(),
            sidecar: config.sidecar.clone(),
            sources: provision::Sources::of(config.sidecar_dir.clone()),
        };
        let kind = match &config.target {
            Target::Exec(words) => Kind::Exec(words.clone()),
            Target::Ssh(destination) => Kind::Ssh { destination: destination.clone(), settings: settings() },
            Target::Codespace(name) => Kind::Codespace { name: name.clone()?, settings: settings() },
        };
        Some(Self { kind })
    }

    /// What is bridged, for messages.
    pub fn name(&self) -> String {
        match &self.kind {
            Kind::Exec(words) => words.first().cloned().unwrap_or_default(),
            Kind::Ssh { destination, .. } => destination.clone(),
            Kind::Codespace { name, .. } => format!("codespace {name}"),
        }
    }

    /// Connects, copies the sidecar if necessary, and starts it. ssh may ask questions on the terminal. Dropping the
    /// future ends the processes that it started.
    ///
    /// # Errors
    /// See [`Error`]. A failure of the remote command itself shows on the link.
    pub async fn connect(&self) -> Result<Link, Error> {
        let (master, settings) = match &self.kind {
            Kind::Exec(words) => return Ok(exec::connect(words)?),
            Kind::Ssh { destination, settings } => {
                let host = ssh::Host::of(destination, &settings.options)?;
                (ssh::Master::dial(host).await?, settings)
            }
            Kind::Codespace { name, settings } => {
                let host = codespace::host(name, &settings.options).await?;
                (ssh::Master::dial(host).await?, settings)
            }
        };
        let sidecar = match &settings.sidecar {
            Sidecar::At(path) => path.clone(),
            Sidecar::Provision => provision::provision(&master, &settings.sources, &self.name()).await?,
        };
        Ok(master.attach(&format!("{} attach", ssh::quoted(&sidecar))).await?)
    }
}
