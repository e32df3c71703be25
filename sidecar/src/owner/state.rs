//! The state directory, `/run/gh-net`: the owner's lock, its socket and its journal. It exists only while a
//! session does.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::poll::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::{journal, privilege};

const DEFAULT: &str = "/run/gh-net";
/// Names another directory. For tests.
pub(crate) const VARIABLE: &str = "GH_NET_STATE_DIR";

/// Where the state is, whether or not it exists.
#[derive(Debug, Clone)]
pub(crate) struct StateDir(PathBuf);

/// Why the state directory is of no use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The system refused.
    #[error("{path}: {error}")]
    Io {
        /// What was accessed.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Somebody else could put a journal of theirs into it.
    #[error("{0} belongs to another user or is writable by others; remove it")]
    Unsafe(PathBuf),
}

/// The right to change the machine, held while it is.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: Flock<File>,
}

impl StateDir {
    /// `/run/gh-net`, or where the environment says. A program that was started with more privilege than its
    /// caller has does not listen to its caller's environment.
    pub(crate) fn locate() -> Self {
        let named = std::env::var_os(VARIABLE).filter(|_| !privilege::is_secure_execution());
        Self(named.map_or_else(|| PathBuf::from(DEFAULT), PathBuf::from))
    }

    /// The directory itself.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// The owner's socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.0.join("owner.sock")
    }

    /// The journal.
    pub(crate) fn journal(&self) -> PathBuf {
        self.0.join("journal")
    }

    fn lock_file(&self) -> PathBuf {
        self.0.join("owner.lock")
    }

    /// Whether there is a state directory at all.
    pub(crate) fn exists(&self) -> bool {
        self.0.exists()
    }

    /// Makes the directory if it is missing, for root's eyes only.
    fn prepare(&self) -> Result<(), Error> {
        let failed = |error| Error::Io { path: self.0.clone(), error };
        match DirBuilder::new().mode(0o700).create(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
            Ok(()) | Err(_) => {}
        }
        let found = fs::symlink_metadata(&self.0).map_err(failed)?;
        let ours = found.uid() == 0 || found.uid() == nix::unistd::geteuid().as_raw();
        if !found.is_dir() || !ours || found.mode() & 0o022 != 0 {
            return Err(Error::Unsafe(self.0.clone()));
        }
        Ok(())
    }

    /// Takes the owner's lock, making the directory if need be; `None` if an owner lives.
    ///
    /// # Errors
    /// See [`Error`].
    pub(crate) fn try_lock(&self) -> Result<Option<Lock>, Error> {
        let path = self.lock_file();
        let failed = |error| Error::Io { path: path.clone(), error };
        loop {
            self.prepare()?;
            let file = match OpenOptions::new().create(true).append(true).mode(0o600).open(&path) {
                // The owner that ends removes the directory between our two calls.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                opened => opened.map_err(failed)?,
            };
            let mut file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(file) => file,
                Err((_, Errno::EWOULDBLOCK)) => return Ok(None),
                Err((_, errno)) => return Err(failed(errno.into())),
            };
            // The one who held the lock before us may have removed the file we have locked.
            let held = file.metadata().map_err(failed)?.ino();
            if fs::metadata(&path).is_ok_and(|there| there.ino() == held) {
                file.set_len(0).map_err(failed)?;
                writeln!(file, "{}", std::process::id()).map_err(failed)?;
                return Ok(Some(Lock { _file: file }));
            }
        }
    }

    /// The process id of the owner that holds the lock, as it wrote it down.
    pub(crate) fn owner(&self) -> Option<u32> {
        fs::read_to_string(self.lock_file()).ok()?.trim().parse().ok()
    }

    /// Removes everything, the lock last. The journal is kept if `keep_journal` says that it is still needed.
    pub(crate) fn remove(&self, lock: Lock, keep_journal: bool) {
        let mut files = vec![self.socket()];
        if !keep_journal {
            files.extend([self.journal(), journal::rewritten(&self.journal())]);
        }
        files.push(self.lock_file());
        for file in files {
            match fs::remove_file(&file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(%error, "{} is left behind", file.display());
                }
                Ok(()) | Err(_) => {}
            }
        }
        // Fails, rightly, if the next owner is in there already or the journal is.
        let _ = fs::remove_dir(&self.0);
        drop(lock);
    }
}

/// Waits until an owner has exited. It closes its connections before the rest, which includes the device and the lock.
pub(crate) fn wait_for_exit(owner: u32) {
    const PATIENCE: u16 = 5000;
    let pid = i32::try_from(owner).ok().and_then(Pid::from_raw);
    let Some(Ok(process)) = pid.map(|pid| pidfd_open(pid, PidfdFlags::empty())) else { return };
    // If it takes longer, the lock is still held, and the caller says so.
    let _ = poll(&mut [PollFd::new(process.as_fd(), PollFlags::POLLIN)], PATIENCE);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(dir: &tempfile::TempDir) -> StateDir {
        StateDir(dir.path().join("gh-net"))
    }

    #[test]
    fn one_owner_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let state = state(&dir);
        let lock = state.try_lock().unwrap().unwrap();
        // Of an owner that was killed at the wrong moment.
        fs::write(journal::rewritten(&state.journal()), "").unwrap();
        assert!(state.try_lock().unwrap().is_none());
        assert_eq!(state.owner(), Some(std::process::id()));
        state.remove(lock, false);
        assert!(!state.exists());
        assert!(state.try_lock().unwrap().is_some());
    }

    #[test]
    fn a_directory_that_others_write_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let state = state(&dir);
        fs::create_dir(state.path()).unwrap();
        fs::set_permissions(state.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(state.try_lock(), Err(Error::Unsafe(_))));
    }

    #[test]
    fn a_journal_that_is_still_needed_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let state = state(&dir);
        let lock = state.try_lock().unwrap().unwrap();
        fs::write(state.journal(), "x").unwrap();
        state.remove(lock, true);
        assert!(state.journal().exists());
    }
}
