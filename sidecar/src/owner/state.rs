//! The state directory, `/run/gh-net`: the owner's lock, its socket and its journal. It exists only as long as the owner.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::poll::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

pub(crate) use crate::private::Error;
use crate::private::{self, Directory};
use crate::{journal, privilege};

const DEFAULT: &str = "/run/gh-net";
/// The environment variable that names another directory, for tests.
pub(crate) const VARIABLE: &str = "GH_NET_STATE_DIR";
const SOCKET: &str = "owner.sock";
pub(crate) const LOCK: &str = "owner.lock";
/// Maximum length of the lock file, in bytes: it contains a process id.
const MAX_LOCK: usize = 32;

/// Where the state is, whether or not it exists.
#[derive(Debug, Clone)]
pub(crate) struct StateDir(PathBuf);

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

    /// The state in this directory.
    #[cfg(feature = "fuzzing")]
    pub(crate) fn at(path: PathBuf) -> Self {
        Self(path)
    }

    /// The directory itself.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// The owner's socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.0.join(SOCKET)
    }

    /// Whether there is a state directory.
    pub(crate) fn exists(&self) -> bool {
        self.0.exists()
    }

    /// Opens the directory. Creates it if it is missing, readable only by this user.
    fn prepare(&self) -> Result<Directory, Error> {
        let failed = |error| Error::Io { path: self.0.clone(), error };
        match DirBuilder::new().mode(0o700).create(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
            Ok(()) | Err(_) => {}
        }
        Directory::open(&self.0)
    }

    /// Takes the owner's lock, and creates the directory if necessary; `None` if there is an owner.
    ///
    /// # Errors
    /// See [`Error`].
    pub(crate) fn try_lock(&self) -> Result<Option<Lock>, Error> {
        let failed = |error| Error::Io { path: self.0.join(LOCK), error };
        loop {
            // An owner that ends may remove the directory between any two calls.
            let directory = match self.prepare() {
                Err(Error::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => continue,
                prepared => prepared?,
            };
            let file = match directory.file(LOCK, OFlag::O_CREAT | OFlag::O_RDWR | OFlag::O_APPEND) {
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
            if fs::symlink_metadata(self.0.join(LOCK)).is_ok_and(|there| there.ino() == held) {
                file.set_len(0).map_err(failed)?;
                writeln!(file, "{}", std::process::id()).map_err(failed)?;
                return Ok(Some(Lock { _file: file }));
            }
        }
    }

    /// The process id that the owner has written into the lock file.
    pub(crate) fn owner(&self) -> Option<u32> {
        let file = Directory::open(&self.0).ok()?.file(LOCK, OFlag::O_RDONLY).ok()?;
        String::from_utf8(private::read(&file, MAX_LOCK).ok()?).ok()?.trim().parse().ok()
    }

    /// Removes everything, the lock last. Keeps the journal if `keep_journal`: it is still needed.
    pub(crate) fn remove(&self, lock: Lock, keep_journal: bool) {
        let mut files = vec![SOCKET];
        if !keep_journal {
            files.extend([journal::NAME, journal::NEW]);
        }
        files.push(LOCK);
        match Directory::open(&self.0) {
            Ok(directory) => {
                for file in files {
                    if let Err(error) = directory.remove(file) {
                        tracing::warn!(%error, "could not remove {file}");
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "could not remove the state"),
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
        fs::write(state.path().join(journal::NEW), "").unwrap();
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
        let journal = state.path().join(journal::NAME);
        fs::write(&journal, "x").unwrap();
        state.remove(lock, true);
        assert!(journal.exists());
    }
}
