//! At most one session of a user with each target: a lock on a file that lasts as long as the process.
//!
//! The file is in the user's [folder](mod@super::folder), named by a hash of the target. Its lock is that of fcntl(2):
//! the kernel releases it when the process ends, in whatever way, so a file that a killed process has left is no
//! obstacle; and the kernel names the process that holds it, so the file's content need not be believed. Only if that
//! process is in another pid namespace, its id is that in the file.
//!
//! A holder that is suspended is not waited for: the next start takes the session over, and the next file, because the
//! lock of the first one can't be had. So each start takes the first free file, and then looks at all others, also
//! those in the other folders: of two starts that meet, at least one sees the other.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use sha2::{Digest, Sha256};

use super::folder::{self, check, folders, prepare};
use crate::exit::{Exit, Explain};
use crate::invoked;
use crate::transport::Endpoint;

/// How often to try: each attempt may meet another process that removes the file or the folder at its end.
const ATTEMPTS: usize = 100;
/// Maximum length of the file in bytes that is read.
const MAX_CONTENT: u64 = 1024;
/// Files of a target: so many of its sessions may be suspended.
const SLOTS: usize = 4;
/// Where the lock of a process begins that only removes files; that of a claim begins at 0.
const SWEEP_START: libc::off_t = 1;
/// How long to wait for such a process.
const SWEEP: Duration = Duration::from_millis(1);

/// Why a target can't be claimed.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// Another process has a session with it.
    #[error("{holder} already has a session with {target}")]
    Running {
        /// The process.
        holder: Holder,
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
            // The target's name would not do: sessions with other ports of the host may have the same.
            Self::Running { holder, .. } => {
                let pid = holder.own_pid()?;
                Some(format!("End it with `{} stop {pid}`.", invoked::name()))
            }
            Self::Folder(_) => None,
        }
    }
}

/// The process that has claimed a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    /// Its id, in its own pid namespace; `None` if it is not known.
    pid: Option<i32>,
    /// Whether it is in another pid namespace.
    foreign: bool,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pid {
            Some(pid) => write!(f, "process {pid}")?,
            None => write!(f, "a process")?,
        }
        if self.foreign { write!(f, " of another container (pid namespace)") } else { Ok(()) }
    }
}

impl Holder {
    /// The holder of a lock that fcntl(2) names, which has no id for one in another pid namespace.
    fn of(l_pid: i32, file: &File) -> Self {
        if l_pid > 0 {
            return Self { pid: Some(l_pid), foreign: false };
        }
        let mut content = String::new();
        let _ = file.take(MAX_CONTENT).read_to_string(&mut content);
        Self { pid: content.trim_end().parse().ok().filter(|pid| *pid > 0), foreign: true }
    }

    /// Its id as it knows it itself, by which its socket is found. It has another one here if its pid namespace is below
    /// this one (proc(5), `NSpid` in `/proc/PID/status`).
    fn own_pid(self) -> Option<i32> {
        let pid = self.pid?;
        if self.foreign {
            return Some(pid);
        }
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
        let own = ids.and_then(|ids| ids.split_whitespace().last()?.parse().ok());
        Some(own.unwrap_or(pid))
    }

    fn is_suspended(self) -> bool {
        !self.foreign && self.pid.is_some_and(is_suspended)
    }
}

/// The claim of this process to a target. Dropping it ends it.
#[derive(Debug)]
pub struct Claim {
    path: PathBuf,
    /// Holds the lock. No other descriptor of this process may lead to the file: closing one would release the lock.
    file: File,
    /// A suspended process that has a session with the target, which this one takes over.
    suspended: Option<Holder>,
}

impl Claim {
    /// Claims `endpoint`; `target` names it for people. No other claim of this process may exist.
    ///
    /// # Errors
    /// See [`ClaimError`].
    pub fn new(endpoint: &Endpoint, target: &str) -> Result<Self, ClaimError> {
        let folders = folders();
        sweep(&folders[0]);
        Self::new_in(&folders, endpoint, target)
    }

    /// A suspended process that has a session with the target, which this one takes over.
    pub fn suspended(&self) -> Option<Holder> {
        self.suspended
    }

    /// In the first of the folders, unless it is claimed in another one.
    fn new_in(folders: &[PathBuf], endpoint: &Endpoint, target: &str) -> Result<Self, ClaimError> {
        let names = file_names(endpoint);
        let refused = |holder| ClaimError::Running { holder, target: target.to_owned() };
        let mut suspended = None;
        for name in &names {
            let mut claim = match take(&folders[0], name)? {
                Ok(claim) => claim,
                Err(holder) if holder.is_suspended() => {
                    suspended = Some(holder);
                    continue;
                }
                Err(holder) => return Err(refused(holder)),
            };
            let paths = folders.iter().filter(|folder| check(folder).is_ok());
            let paths = paths.flat_map(|folder| names.iter().map(|name| folder.join(name)));
            for holder in paths.filter_map(|path| claim.other_at(&path)).collect::<Vec<_>>() {
                if !holder.is_suspended() {
                    return Err(refused(holder));
                }
                claim.suspended = Some(holder);
            }
            return Ok(claim);
        }
        let nobody = Holder { pid: None, foreign: false };
        Err(refused(suspended.unwrap_or(nobody)))
    }

    /// The process that has locked the file, if there is one and it is not this claim's.
    fn other_at(&self, path: &Path) -> Option<Holder> {
        // Not even opened: closing this claim's file, under whatever name, would release its lock.
        if is_at(&self.file, path) {
            return None;
        }
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(path)
            .ok()?;
        let lock = holder(&file).ok()??;
        (lock.l_start != SWEEP_START).then(|| Holder::of(lock.l_pid, &file))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // While the lock is held. The folder goes with the last session.
        if is_at(&self.file, &self.path) {
            let _ = fs::remove_file(&self.path);
        }
        let _ = self.path.parent().map(fs::remove_dir);
    }
}

/// Takes a file, or returns the process that has it.
fn take(folder: &Path, name: &str) -> Result<Result<Claim, Holder>, folder::Error> {
    let path = folder.join(name);
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
        match lock(&file).map_err(&failed)? {
            None => {}
            Some(lock) if lock.l_start == SWEEP_START => {
                sleep(SWEEP);
                continue;
            }
            Some(lock) => return Ok(Err(Holder::of(lock.l_pid, &file))),
        }
        // Its last holder may have removed the file before we had the lock.
        if !is_at(&file, &path) {
            continue;
        }
        let content = format!("{}\n", std::process::id());
        file.set_len(0).and_then(|()| file.write_all(content.as_bytes())).map_err(&failed)?;
        return Ok(Ok(Claim { path, file, suspended: None }));
    }
    Err(failed(io::ErrorKind::TimedOut.into()))
}

/// Removes the files that killed processes have left.
fn sweep(folder: &Path) {
    let Ok(entries) = check(folder).and_then(|()| fs::read_dir(folder).map_err(folder::Error::at(folder)))
    else {
        return;
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.extension().is_none_or(|it| it != "lock") {
            continue;
        }
        let mut options = OpenOptions::new();
        let opened =
            options.read(true).write(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(&path);
        // Who wants the file meanwhile sees by the lock's place that it is not a claim.
        if let Ok(file) = opened
            && fcntl(&file, FcntlArg::F_SETLK(&write_lock(SWEEP_START))).is_ok()
            && is_at(&file, &path)
        {
            let _ = fs::remove_file(&path);
        }
    }
}

/// Names of bounded length, without anything of a command line that could be secret.
fn file_names(endpoint: &Endpoint) -> [String; SLOTS] {
    let mut hash = Sha256::new();
    for word in endpoint.words() {
        hash.update((word.len() as u64).to_be_bytes());
        hash.update(word);
    }
    let name: String = hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    std::array::from_fn(|slot| match slot {
        0 => format!("{name}.lock"),
        slot => format!("{name}.{slot}.lock"),
    })
}

/// Locks the file, or returns the lock that another process has on it.
fn lock(file: &File) -> io::Result<Option<libc::flock>> {
    loop {
        match fcntl(file, FcntlArg::F_SETLK(&write_lock(0))) {
            Ok(_) => return Ok(None),
            Err(Errno::EAGAIN | Errno::EACCES) => {}
            Err(errno) => return Err(errno.into()),
        }
        // It may have been released in between.
        if let Some(lock) = holder(file)? {
            return Ok(Some(lock));
        }
    }
}

/// The lock that another process has on the file.
fn holder(file: &File) -> io::Result<Option<libc::flock>> {
    let mut lock = write_lock(0);
    fcntl(file, FcntlArg::F_GETLK(&mut lock))?;
    Ok((i32::from(lock.l_type) != libc::F_UNLCK).then_some(lock))
}

/// A lock from a position to the end.
fn write_lock(start: libc::off_t) -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: start,
        l_len: 0,
        l_pid: 0,
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
        (Err(_), _) | (_, Err(_)) => false,
    }
}

/// Whether a signal has stopped the process (proc(5), `/proc/PID/stat`). One that is traced goes on.
fn is_suspended(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name before it may contain anything.
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('T'))
}

#[cfg(test)]
mod tests;
