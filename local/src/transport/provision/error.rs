//! Why there is no sidecar to run, and what the user can do about it.

use std::io;

use crate::exit::{Exit, Explain};
use crate::transport::ssh;

/// Why there is no sidecar to run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// ssh failed.
    #[error(transparent)]
    Ssh(#[from] ssh::Error),
    /// The remote shell did not run our script.
    #[error("the login shell of {name} did not run a script as expected")]
    NoReport {
        /// The host.
        name: String,
        /// What it printed instead.
        output: String,
    },
    /// The host does not run Linux.
    #[error("{name} runs {system}; the sidecar needs Linux")]
    System {
        /// The host.
        name: String,
        /// Its system.
        system: String,
    },
    /// There is no sidecar on the host, and none on the laptop for its architecture.
    #[error("{name} has no gh-net-sidecar, and there is none on this computer to copy to it (for {machine})")]
    None {
        /// The host.
        name: String,
        /// Its architecture, as uname prints it.
        machine: String,
        /// The places that were searched on the laptop.
        searched: String,
    },
    /// Ours can't be read.
    #[error("the sidecar to copy, {path}, can't be read: {source}")]
    Read {
        /// Its file.
        path: String,
        /// Why not.
        source: io::Error,
    },
    /// The copy was incomplete, or does not run.
    #[error("copying the sidecar to {name} failed")]
    Copy {
        /// The host.
        name: String,
        /// What the remote shell printed.
        output: String,
    },
}

impl Explain for Error {
    fn exit(&self) -> Exit {
        match self {
            Self::Ssh(error) => error.exit(),
            Self::NoReport { .. } => Exit::Unreachable,
            Self::System { .. } | Self::None { .. } | Self::Read { .. } | Self::Copy { .. } => Exit::Sidecar,
        }
    }

    fn details(&self) -> Option<String> {
        match self {
            Self::Ssh(error) => error.details(),
            Self::NoReport { output, .. } | Self::Copy { output, .. } => {
                Some(output.clone()).filter(|output| !output.is_empty())
            }
            Self::None { searched, .. } => Some(searched.clone()),
            Self::System { .. } | Self::Read { .. } => None,
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::Ssh(error) => error.remedy(),
            Self::None { .. } => Some(
                "Install gh-net-sidecar there and pass its path (--sidecar PATH), or get one for that architecture and set\n\
                 GH_NET_SIDECAR_DIR to its directory on this computer."
                    .to_owned(),
            ),
            Self::Copy { .. } => {
                Some("Install gh-net-sidecar there by hand, and pass its path: --sidecar PATH".to_owned())
            }
            Self::NoReport { .. } => Some("Its login shell must be able to run: sh".to_owned()),
            Self::System { .. } | Self::Read { .. } => None,
        }
    }
}
