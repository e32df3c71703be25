//! The folder in which the running processes of a user are found: `$XDG_RUNTIME_DIR/gh-net`, or `/tmp/gh-net-UID`
//! where there is no such directory. It has to belong to the user and be closed to everybody else.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

use crate::exit::{Exit, Explain};

/// Why a session can't be found or asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder belongs to somebody else, or is open to others.
    #[error("{} belongs to another user or is accessible to others; remove it", .0.display())]
    Unsafe(PathBuf),
    /// A process takes no connection, or gives no answer.
    #[error("process {0} does not answer; it may be suspended")]
    Silent(String),
    /// The system refused.
    #[error("{}: {error}", path.display())]
    Io {
        /// What was accessed.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

impl Error {
    /// The system refused access to `path`.
    pub(super) fn at(path: &Path) -> impl Fn(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |error| Self::Io { path: path.clone(), error }
    }
}

impl Explain for Error {
    fn exit(&self) -> Exit {
        Exit::Failed
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::Silent(process) => {
                Some(format!("If it is suspended, `kill -CONT {process}` lets it go on."))
            }
            Self::Unsafe(_) | Self::Io { .. } => None,
        }
    }
}

/// The folder of this process's user.
pub(super) fn folder() -> PathBuf {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
    match runtime {
        Some(runtime) => runtime.join("gh-net"),
        None => PathBuf::from(format!("/tmp/gh-net-{}", geteuid())),
    }
}

/// Makes the folder if it is missing, and checks that only this user enters it.
pub(super) fn prepare(folder: &Path) -> Result<(), Error> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(Error::at(folder)(error)),
        Ok(()) | Err(_) => {}
    }
    check(folder)
}

/// Checks that only this user enters the folder.
pub(super) fn check(folder: &Path) -> Result<(), Error> {
    let found = fs::symlink_metadata(folder).map_err(Error::at(folder))?;
    if !found.is_dir() || found.uid() != geteuid().as_raw() || found.mode() & 0o077 != 0 {
        return Err(Error::Unsafe(folder.to_owned()));
    }
    Ok(())
}
