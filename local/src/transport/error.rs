//! Why no connection was made, from whichever step failed.

use super::{exec, provision, ssh};
use crate::codespaces::gh;
use crate::exit::{Exit, Explain};

/// Why there is no connection.
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
