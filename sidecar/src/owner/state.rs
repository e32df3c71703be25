//! The state directory, `/run/gh-net`: the owner's lock, its socket and its journal. It exists only as long as the owner.

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
/// The environment variable that names another directory, for tests.
pub(crate) const VARIABLE: &str = "GH_NET_STATE_DIR";

/// Where the state is, whether or not it exists.
#[derive(Debug, Clone)]
pub(crate) struct StateDir(PathBuf);

/// Why the state directory can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The system refused.
    #[error("{path}: {error}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
    /// Another user could put a journal into it.
    #[error("{0} belongs to another user or is writable by others; remove it")]
    Unsafe(PathBuf),
}

/// The right to change the machine.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: Flock<File>,
}

impl StateDir {
    /// `/run/gh-net`, or the directory that the environment names. A program with more privilege than its caller ignores
    /// the caller's environment.
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

    /// Whether there is a state directory.
    pub(crate) fn exists(&self) -> bool {
        self.0.exists()
    }

    /// Creates the directory if it is missing, readable only by root.
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

    /// Takes the owner's lock, and creates the directory if necessary; `None` if there is an owner.
    ///
    /// # Errors
    /// See [`Error`].
    pub(crate) fn try_lock(&self) -> Result<Option<Lock>, Error> {
        let path = self.lock_file();
        let failed = |error| Error::Io { path: path.clone(), error };
        loop {
            self.prepare()?;
            let file = match OpenOptions::new().create(true).append(true).mode(0o600).open(&path) {
                // An owner that ends may have removed the directory between the two calls.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                opened => opened.map_err(failed)?,
            };
            let mut file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(file) => file,
                Err((_, Errno::EWOULDBLOCK)) => return Ok(None),
                Err((_, errno)) => return Err(failed(errno.into())),
            };
            // The last holder of the lock may have removed the file that we have locked.
            let held = file.metadata().map_err(failed)?.ino();
            if fs::metadata(&path).is_ok_and(|there| there.ino() == held) {
                file.set_len(0).map_err(failed)?;
                writeln!(file, "{}", std::process::id()).map_err(failed)?;
                return Ok(Some(Lock { _file: file }));
            }
        }
    }

    /// The process id that the owner has written into the lock file.
    pub(crate) fn owner(&self) -> Option<u32> {
        fs::read_to_string(self.lock_file()).ok()?.trim().parse().ok()
    }

    /// Removes everything, the lock last. Keeps the journal if `keep_journal`: it is still needed.
    pub(crate) fn remove(&self, lock: Lock, keep_journal: bool) {
        let mut files = vec![self.socket()];
        if !keep_journal {
            files.extend([self.journal(), journal::rewritten(&self.journal())]);
        }
        files.push(self.lock_file());
        for file in files {
            match fs::remove_file(&file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(%error, "could not remove {}", file.display());
                }
                Ok(()) | Err(_) => {}
            }
        }
        // Fails, as it should, if the next owner uses it already, or if the journal is kept.
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
        // As if an owner had been killed while it rewrote the journal.
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
