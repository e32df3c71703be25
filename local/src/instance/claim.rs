//! At most one session of a user with each target: a lock on a file that lasts as long as the process.
//!
//! The file is in the user's [folder](mod@super::folder), named by a hash of the target. Its lock is that of fcntl(2):
//! the kernel releases it when the process ends, in whatever way, so a file that a killed process has left is no
//! obstacle; and the kernel names the process that holds it, so the file's content need not be believed. It holds the
//! argument for `gh-net stop`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use sha2::{Digest, Sha256};

use super::folder::{self, folder, prepare};
use crate::exit::{Exit, Explain};
use crate::invoked;
use crate::transport::Endpoint;

/// How often to try: each attempt may meet another process that removes the file or the folder at its end.
const ATTEMPTS: usize = 100;
/// Maximum length of the file in bytes that is read.
const MAX_CONTENT: u64 = 1024;

/// Why a target can't be claimed.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// Another process has a session with it.
    #[error("process {pid} already has a session with {target}")]
    Running {
        /// The process.
        pid: i32,
        /// What both lead to.
        target: String,
        /// The argument by which `gh-net stop` ends it.
        stop: String,
    },
    /// Another process has a session with it, and is suspended: nothing can come of waiting for it.
    #[error(
        "process {pid}, which has a session with {target}, is suspended; this start takes the session over"
    )]
    Suspended {
        /// The process.
        pid: i32,
        /// What both lead to.
        target: String,
    },
    /// The folder or the file can't be used.
    #[error(transparent)]
    Folder(#[from] folder::Error),
}

impl Explain for ClaimError {
    fn exit(&self) -> Exit {
        Exit::Failed
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::Running { stop, .. } => {
                let stop = shlex::try_quote(stop).unwrap_or_default();
                Some(format!("End it with `{} stop {stop}`.", invoked::name()))
            }
            Self::Suspended { .. } | Self::Folder(_) => None,
        }
    }
}

/// The claim of this process to a target. Dropping it ends it.
#[derive(Debug)]
pub struct Claim {
    path: PathBuf,
    /// Holds the lock. No other descriptor of this process may lead to the file: closing one would release the lock.
    _file: File,
}

impl Claim {
    /// Claims `endpoint`; `target` names it for people, and `stop` for `gh-net stop`, if its name is not unique.
    ///
    /// # Errors
    /// See [`ClaimError`].
    pub fn new(endpoint: &Endpoint, target: &str, stop: Option<&str>) -> Result<Self, ClaimError> {
        Self::new_in(&folder(), endpoint, target, stop)
    }

    fn new_in(
        folder: &Path,
        endpoint: &Endpoint,
        target: &str,
        stop: Option<&str>,
    ) -> Result<Self, ClaimError> {
        let path = folder.join(file_name(endpoint));
        let failed = folder::Error::at(&path);
        for _ in 0..ATTEMPTS {
            prepare(folder)?;
            let mut options = OpenOptions::new();
            let opened = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
            let mut file = match opened {
                // The folder was removed by the last session in it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                opened => opened.map_err(&failed)?,
            };
            if let Some(pid) = lock(&file).map_err(&failed)? {
                return Err(refusal(pid, &mut file, target));
            }
            // Its last holder may have removed the file before we had the lock.
            if !is_at(&file, &path) {
                continue;
            }
            let content = format!("{} {}\n", std::process::id(), stop.unwrap_or_default());
            file.set_len(0).and_then(|()| file.write_all(content.as_bytes())).map_err(&failed)?;
            return Ok(Self { path, _file: file });
        }
        Err(failed(io::ErrorKind::TimedOut.into()).into())
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // While the lock is held. The folder goes with the last session.
        let _ = fs::remove_file(&self.path);
        let _ = self.path.parent().map(fs::remove_dir);
    }
}

/// A name of bounded length, without anything of a command line that could be secret.
fn file_name(endpoint: &Endpoint) -> String {
    let mut hash = Sha256::new();
    for word in endpoint.words() {
        hash.update((word.len() as u64).to_be_bytes());
        hash.update(word);
    }
    let name: String = hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("{name}.lock")
}

/// Locks the file, or returns the process that has locked it.
fn lock(file: &File) -> io::Result<Option<i32>> {
    loop {
        match fcntl(file, FcntlArg::F_SETLK(&whole_file())) {
            Ok(_) => return Ok(None),
            Err(Errno::EAGAIN | Errno::EACCES) => {}
            Err(errno) => return Err(errno.into()),
        }
        let mut holder = whole_file();
        fcntl(file, FcntlArg::F_GETLK(&mut holder))?;
        // It may have been released in between.
        if i32::from(holder.l_type) != libc::F_UNLCK {
            return Ok(Some(holder.l_pid));
        }
    }
}

fn whole_file() -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
        (Err(_), _) | (_, Err(_)) => false,
    }
}

fn refusal(pid: i32, file: &mut File, target: &str) -> ClaimError {
    let target = target.to_owned();
    if is_suspended(pid) {
        return ClaimError::Suspended { pid, target };
    }
    let mut content = String::new();
    // Without a content of that process's own, its id is enough for `gh-net stop`.
    let _ = file.take(MAX_CONTENT).read_to_string(&mut content);
    let stop = match content.trim_end().split_once(' ') {
        Some((holder, stop)) if holder == pid.to_string() && !stop.is_empty() => stop.to_owned(),
        Some(_) | None => pid.to_string(),
    };
    ClaimError::Running { pid, target, stop }
}

/// Whether a signal has stopped the process (proc(5), `/proc/PID/stat`). One that is traced goes on.
fn is_suspended(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name before it may contain anything.
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('T'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(folder: &Path, name: &str) -> Result<Claim, ClaimError> {
        Claim::new_in(folder, &Endpoint::of("ssh", [name]), name, Some(name))
    }

    #[test]
    fn targets_are_claimed_side_by_side_and_leave_nothing() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("gh-net");
        let one = claim(&folder, "one").unwrap();
        let other = claim(&folder, "other").unwrap();
        drop(one);
        let one = claim(&folder, "one").unwrap();
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 2);
        drop((one, other));
        assert!(!folder.exists());
    }

    #[test]
    fn what_a_killed_process_has_left_is_no_obstacle() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("gh-net");
        let path = claim(&folder, "one").unwrap().path.clone();
        prepare(&folder).unwrap();
        fs::write(&path, "4711 elsewhere\n").unwrap();
        let _claim = claim(&folder, "one").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{} one\n", std::process::id()));
    }

    #[test]
    fn words_are_told_apart() {
        let name = |words: &[&str]| file_name(&Endpoint::of("exec", words));
        assert_ne!(name(&["a", "bc"]), name(&["ab", "c"]));
        assert_ne!(name(&["a"]), file_name(&Endpoint::of("ssh", ["a"])));
        assert_eq!(name(&["a", "bc"]), name(&["a", "bc"]));
    }

    #[test]
    fn the_remedy_can_be_pasted_into_a_shell() {
        let error = |stop: &str| ClaimError::Running { pid: 7, target: "x".into(), stop: stop.into() };
        assert_eq!(error("big-fish").remedy().unwrap(), "End it with `gh-net stop big-fish`.");
        assert_eq!(error("a b").remedy().unwrap(), "End it with `gh-net stop 'a b'`.");
    }

    #[test]
    fn a_suspended_process_is_recognised() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        assert!(!is_suspended(pid));
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGSTOP).unwrap();
        let status = nix::sys::wait::waitpid(
            nix::unistd::Pid::from_raw(pid),
            Some(nix::sys::wait::WaitPidFlag::WUNTRACED),
        );
        assert!(matches!(status, Ok(nix::sys::wait::WaitStatus::Stopped(..))), "{status:?}");
        assert!(is_suspended(pid));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
