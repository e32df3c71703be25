//! Connecting to a sidecar's stdin and stdout: over ssh to a codespace or any host, or through a command of the user's.
//!
//! [`Transport::connect`] returns a [`Connection`]: two streams of bytes, and the [`Carrier`] that owns the processes under them.
//! Everything a transport starts lives in a task of the carrier, and ends when the carrier is dropped.

mod carrier;
mod codespace;
mod endpoint;
mod error;
pub mod exec;
mod pipes;
pub mod provision;
pub mod ssh;
mod stderr_tail;

use crate::config::{Config, Sidecar, Target};
pub use carrier::{Carrier, Connection, ExitReport};
pub use endpoint::Endpoint;
pub use error::Error;
pub use pipes::{Reader, Writer};

/// How to reach a sidecar. It can connect any number of times.
#[derive(Debug, Clone)]
pub struct Transport {
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    Exec(Vec<String>),
    Ssh { destination: String, settings: SshSettings },
    Codespace { name: String, keep_started: bool, settings: SshSettings },
}

/// What ssh is used with, to a codespace or another host.
#[derive(Debug, Clone)]
struct SshSettings {
    options: Vec<String>,
    sidecar: Sidecar,
    sources: provision::Sources,
}

/// The environment variables by which docker, podman and kubectl find their server.
const DECISIVE: [&str; 4] = ["DOCKER_HOST", "DOCKER_CONTEXT", "CONTAINER_HOST", "KUBECONFIG"];

/// What else decides where a command leads: it may name files of its working directory.
fn exec_surroundings() -> impl Iterator<Item = String> {
    let directory = std::env::current_dir().unwrap_or_default().to_string_lossy().into_owned();
    let variables = DECISIVE.into_iter().filter_map(|name| {
        let value = std::env::var_os(name)?;
        Some(format!("{name}={}", value.to_string_lossy()))
    });
    std::iter::once(directory).chain(variables)
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
            Target::Codespace(name) => Kind::Codespace {
                name: name.clone()?,
                keep_started: config.keep_started,
                settings: settings(),
            },
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

    /// Where it leads.
    pub async fn endpoint(&self) -> Endpoint {
        match &self.kind {
            Kind::Exec(words) => Endpoint::of("exec", words.iter().cloned().chain(exec_surroundings())),
            Kind::Ssh { destination, settings } => {
                Endpoint::of("ssh", ssh::resolve(destination, &settings.options).await)
            }
            Kind::Codespace { name, .. } => Endpoint::of("codespace", [name]),
        }
    }

    /// Connects again. A codespace that has stopped in the meantime stays stopped, unless the user wants it started.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn reconnect(&self) -> Result<Connection, Error> {
        if let Kind::Codespace { name, keep_started: false, .. } = &self.kind {
            codespace::check_running(name).await?;
        }
        self.connect().await
    }

    /// Connects, copies the sidecar if necessary, and starts it. ssh may ask questions on the terminal. Dropping the
    /// future ends the processes that it started.
    ///
    /// # Errors
    /// See [`Error`]. A failure of the remote command itself shows on the connection.
    pub async fn connect(&self) -> Result<Connection, Error> {
        let (master, settings) = match &self.kind {
            Kind::Exec(words) => return Ok(exec::connect(words)?),
            Kind::Ssh { destination, settings } => {
                let host = ssh::Host::of(destination, &settings.options)?;
                (ssh::Master::dial(host).await?, settings)
            }
            Kind::Codespace { name, settings, .. } => {
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
