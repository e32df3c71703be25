//! A PID namespace whose end is the end of every process in it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::thread;

use anyhow::{Context, Result};
use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::unistd::{ForkResult, Pid, fork, pipe2};

/// Holds the namespace; dropping it kills everything in it.
#[derive(Debug)]
pub(super) struct PidNamespace {
    fd: OwnedFd,
    init: Pid,
    /// The namespace's first process waits for the end of this pipe, so that it also ends with us when
    /// nothing of ours gets to run any more.
    leash: Option<OwnedFd>,
}

impl PidNamespace {
    pub(super) fn new() -> Result<Self> {
        let (waits, leash) = pipe2(OFlag::O_CLOEXEC)?;
        // `unshare` changes what the calling thread's children get, and a thread can't take it back.
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
        // The kernel has killed all others in the namespace when its first process is gone.
        let _ = nix::sys::wait::waitpid(self.init, None);
    }
}

fn fork_init(leash: &OwnedFd) -> io::Result<Pid> {
    unshare(CloneFlags::CLONE_NEWPID)?;
    // SAFETY: the child makes system calls only, which are safe after a fork in a process with threads.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => init(leash),
    }
}

/// The namespace's first process: reaps orphans, and ends when the pipe does.
fn init(leash: &OwnedFd) -> ! {
    // SAFETY: system calls on numbers; nothing else runs in this process that could own the descriptors. All
    // but the pipe are closed, so that no pipe of the parent is kept open from here.
    unsafe {
        libc::dup2(leash.as_raw_fd(), 0);
        libc::close_range(1, libc::c_uint::MAX, 0);
        let _ = signal(Signal::SIGCHLD, SigHandler::SigIgn);
        // A Ctrl-C at the terminal is for the program that holds the lab.
        libc::setsid();
        let mut byte = [0u8];
        while libc::read(0, byte.as_mut_ptr().cast(), 1) == -1 {}
        libc::_exit(0)
    }
}
