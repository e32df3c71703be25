//! The folder in which the running processes of a user are found: `$XDG_RUNTIME_DIR/gh-net`, else `/run/user/UID/gh-net`,
//! else `/tmp/gh-net-UID` where there is no such directory. It has to belong to the user and be closed to everybody else.

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

/// The possible folders of this process's user; the first one is for what this process makes.
///
/// The variable is not the same everywhere: cron and some logins by ssh have none, and su keeps that of another user. So
/// one that leads to nobody's or another user's directory is ignored, and the other folders are looked into as well.
pub(super) fn folders() -> Vec<PathBuf> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    folders_of(runtime, &PathBuf::from(format!("/run/user/{}", geteuid())))
}

fn folders_of(runtime: Option<PathBuf>, usual: &Path) -> Vec<PathBuf> {
    // One directory may have two names, such as `/var/run`.
    let mut seen = None;
    let mut is_new_and_ours = |path: &PathBuf| {
        let found = fs::metadata(path).ok().filter(|it| it.is_dir() && it.uid() == geteuid().as_raw());
        let found = found.filter(|_| path.is_absolute()).map(|it| (it.dev(), it.ino()));
        found.is_some() && std::mem::replace(&mut seen, found) != found
    };
    let mut folders = Vec::new();
    for directory in runtime.into_iter().chain([usual.to_owned()]) {
        if is_new_and_ours(&directory) {
            folders.push(directory.join("gh-net"));
        }
    }
    folders.push(PathBuf::from(format!("/tmp/gh-net-{}", geteuid())));
    folders
}

/// Makes the folder if it is missing, and checks that only this user enters it.
pub(super) fn prepare(folder: &Path) -> Result<(), Error> {
    loop {
        match DirBuilder::new().mode(0o700).create(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(Error::at(folder)(error));
            }
            Ok(()) | Err(_) => {}
        }
        match check(folder) {
            // The last session in it has removed it meanwhile.
            Err(Error::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => {}
            checked => return checked,
        }
    }
}

/// Checks that only this user enters the folder.
pub(super) fn check(folder: &Path) -> Result<(), Error> {
    let found = fs::symlink_metadata(folder).map_err(Error::at(folder))?;
    if !found.is_dir() || found.uid() != geteuid().as_raw() || found.mode() & 0o077 != 0 {
        return Err(Error::Unsafe(folder.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_of_others_are_passed_over_and_all_of_ours_are_looked_into() {
        let [one, two] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let [one, two] = [one.path(), two.path()];
        let last = PathBuf::from(format!("/tmp/gh-net-{}", geteuid()));
        let of = |runtime: Option<&Path>, usual: &Path| folders_of(runtime.map(Path::to_owned), usual);
        assert_eq!(of(Some(one), two), [one.join("gh-net"), two.join("gh-net"), last.clone()]);
        assert_eq!(of(Some(one), one), [one.join("gh-net"), last.clone()]);
        let alias = two.join("alias");
        std::os::unix::fs::symlink(one, &alias).unwrap();
        assert_eq!(of(Some(&alias), one), [alias.join("gh-net"), last.clone()]);
        assert_eq!(of(None, two), [two.join("gh-net"), last.clone()]);
        let missing = one.join("missing");
        assert_eq!(of(Some(&missing), &missing), std::slice::from_ref(&last));
        assert_eq!(of(Some(Path::new("relative")), two), [two.join("gh-net"), last]);
    }
}
