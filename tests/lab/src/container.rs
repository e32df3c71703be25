//! A PID namespace, which ends all processes in it when it is dropped.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread;

use anyhow::{Context, Result};
use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Pid, pipe2};

use crate::sys;

/// Owns the namespace; dropping it kills all processes in it.
#[derive(Debug)]
pub(super) struct PidNamespace {
    fd: OwnedFd,
    init: Pid,
    /// The namespace's first process waits for the end of this pipe, so it also ends if this process is killed.
    leash: Option<OwnedFd>,
}

impl PidNamespace {
    pub(super) fn new() -> Result<Self> {
        let (waits, leash) = pipe2(OFlag::O_CLOEXEC)?;
        // `unshare` changes the namespace of the calling thread's children, which can't be reverted.
        let init = thread::spawn(move || fork_init(&waits)).join().expect("fork_init does not panic")?;
        let fd = File::open(format!("/proc/{init}/ns/pid")).context("opening the namespace")?.into();
        Ok(Self { fd, init, leash: Some(leash) })
    }
}

impl AsFd for PidNamespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for PidNamespace {
    fn drop(&mut self) {
        self.leash = None;
        // When the first process has ended, the kernel has killed all others in the namespace.
        let _ = nix::sys::wait::waitpid(self.init, None);
    }
}

fn fork_init(leash: &OwnedFd) -> io::Result<Pid> {
    unshare(CloneFlags::CLONE_NEWPID)?;
    sys::fork_init(leash)
}
