//! How the laptop gets to a sidecar's stdin and stdout: over ssh to a codespace or any host, or through a
//! command of the user's.
//!
//! [`Transport::connect`] gives a [`Link`]: two streams of bytes, and the [`Carrier`] that keeps them up.
//! Whatever a transport starts lives in a task the carrier owns, and is ended when the carrier is dropped.

mod codespace;
pub mod exec;
pub mod provision;
mod said;
pub mod ssh;

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::codespaces::gh;
use crate::config::{Config, Sidecar, Target};
use crate::exit::{Exit, Explain};
use said::Said;

/// How long a process may take to end by itself after its stdin has been closed, and again after SIGTERM.
const GRACE: Duration = Duration::from_secs(2);

/// One way to a sidecar, ready to be connected as often as needed.
#[derive(Debug, Clone)]
pub struct Transport {
    way: Way,
}

#[derive(Debug, Clone)]
enum Way {
    Exec(Vec<String>),
    Ssh { destination: String, access: Access },
    Codespace { name: String, access: Access },
}

/// What both ways over ssh need.
#[derive(Debug, Clone)]
struct Access {
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
    /// What keeps both up.
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
    said: Said,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Option<i32>>,
    end: Option<Option<i32>>,
}

/// How a link ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkEnd {
    /// The exit status of what ran over there; `None` if the connection was cut or a signal ended it.
    pub status: Option<i32>,
    /// The last lines of its stderr, and of ssh's, from before the session was open.
    pub said: String,
}

impl LinkEnd {
    /// All that is known, for a message.
    pub fn explained(&self) -> String {
        let status = match self.status {
            Some(status) => format!("it ended with exit status {status}"),
            // ssh itself often says nothing then.
            None => {
                "it ended without an exit status: the connection was cut, or a signal ended it".to_owned()
            }
        };
        if self.said.is_empty() { status } else { format!("{}\n{status}", self.said) }
    }
}

impl Carrier {
    /// `task` ends when the link has, and ends the link when its end of `stop` says so.
    fn new(said: Said, stop: oneshot::Sender<()>, task: JoinHandle<Option<i32>>) -> Self {
        Self { said, stop: Some(stop), task, end: None }
    }

    /// The session is open: what is said on stderr is news from here on, and not kept.
    pub fn opened(&self) {
        self.said.opened();
    }

    /// Waits until the link has ended by itself. Cancel safe.
    pub async fn ended(&mut self) -> LinkEnd {
        let status = match self.end {
            Some(status) => status,
            None => *self.end.insert((&mut self.task).await.unwrap_or(None)),
        };
        LinkEnd { status, said: self.said.complete().await }
    }

    /// Ends the link. Both streams are to be dropped before: the end of its stdin is what a sidecar that still
    /// runs is told first.
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
    /// gh did not say how to reach the codespace.
    #[error(transparent)]
    Gh(#[from] gh::Error),
    /// There is no sidecar to run over there.
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
    /// The way that `config` names; `None` if it leaves the codespace to be chosen.
    pub fn new(config: &Config) -> Option<Self> {
        let access = || Access {
            options: config.ssh_options.clone(),
            sidecar: config.sidecar.clone(),
            sources: provision::Sources::of(config.sidecar_dir.clone()),
        };
        let way = match &config.target {
            Target::Exec(words) => Way::Exec(words.clone()),
            Target::Ssh(destination) => Way::Ssh { destination: destination.clone(), access: access() },
            Target::Codespace(name) => Way::Codespace { name: name.clone()?, access: access() },
        };
        Some(Self { way })
    }

    /// What is bridged, for messages.
    pub fn name(&self) -> String {
        match &self.way {
            Way::Exec(words) => words.first().cloned().unwrap_or_default(),
            Way::Ssh { destination, .. } => destination.clone(),
            Way::Codespace { name, .. } => format!("codespace {name}"),
        }
    }

    /// Connects, copies the sidecar if need be, and starts it. May talk with the user on the terminal.
    /// Dropping the future ends what it has started.
    ///
    /// # Errors
    /// See [`Error`]. That the remote command itself fails is seen on the link.
    pub async fn connect(&self) -> Result<Link, Error> {
        let (master, access) = match &self.way {
            Way::Exec(words) => return Ok(exec::connect(words)?),
            Way::Ssh { destination, access } => {
                let host = ssh::Host::of(destination, &access.options)?;
                (ssh::Master::dial(host).await?, access)
            }
            Way::Codespace { name, access } => {
                let host = codespace::host(name, &access.options).await?;
                (ssh::Master::dial(host).await?, access)
            }
        };
        let sidecar = match &access.sidecar {
            Sidecar::At(path) => path.clone(),
            Sidecar::Provision => provision::provision(&master, &access.sources, &self.name()).await?,
        };
        Ok(master.attach(&format!("{} attach", ssh::quoted(&sidecar))).await?)
    }
}
