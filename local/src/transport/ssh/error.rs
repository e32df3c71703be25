//! Why there is no ssh connection, and what the user can do about it.

use std::io;

use super::failure::Reason;
use crate::exit::{Exit, Explain};

/// Why there is no ssh connection.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no ssh.
    #[error("ssh was not found in PATH")]
    Missing,
    /// A local operation failed.
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
        /// Why, as far as its messages tell.
        reason: Reason,
        /// What it should have connected to.
        name: String,
        /// Its stderr, unless the user has seen it on the terminal.
        stderr: Option<String>,
        /// What to do.
        remedy: String,
    },
    /// The user pressed Ctrl-C at a question.
    #[error("connecting was cancelled")]
    Interrupted,
    /// ssh connected, but commands can't be run over the connection.
    #[error("no command can be run over the ssh connection: {0}")]
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
            Self::Failed { stderr, .. } => stderr.clone(),
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
