//! The room for unsafe code of this crate: what has no safe interface elsewhere gets one here.

#![allow(unsafe_code, reason = "the compiler denies it everywhere else")]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::process::Child;

use nix::sys::signal::{SigHandler, Signal, signal};
use nix::unistd::{ForkResult, Pid, fork, setsid};

/// A new TUN device of this name, without a header before each packet. Its reads do not block.
pub(crate) fn open_tun(name: &str) -> io::Result<File> {
    let file = File::options().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
    let mut ifr_name = [0; libc::IFNAMSIZ];
    // The last byte remains 0.
    for (to, from) in ifr_name[..libc::IFNAMSIZ - 1].iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    let flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    let mut request = libc::ifreq { ifr_name, ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: flags } };
    // SAFETY: the kernel reads and writes a value of the type that it expects, which lives until the call returns.
    match unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(file),
    }
}

/// Gives the calling thread real-time priority.
pub(crate) fn be_real_time() -> nix::Result<()> {
    let priority = libc::sched_param { sched_priority: 1 };
    // SAFETY: the kernel reads a value that lives until the call returns.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_RR, &raw const priority) };
    nix::errno::Errno::result(result).map(drop)
}

/// A descriptor that becomes readable when `child` ends.
pub(crate) fn pidfd(child: &Child) -> io::Result<OwnedFd> {
    // SAFETY: a system call on numbers.
    match unsafe { libc::syscall(libc::SYS_pidfd_open, child.id(), 0) } {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: the descriptor is new, so nothing else owns it.
        fd => Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) }),
    }
}

/// Forks a process that ends at the end of the pipe `leash`. Until then it reaps orphans, as the first process of a PID
/// namespace has to.
pub(crate) fn fork_init(leash: &OwnedFd) -> io::Result<Pid> {
    // SAFETY: the child makes only system calls, which are safe after a fork in a multithreaded process.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => init(leash),
    }
}

/// The child of [`fork_init`].
fn init(leash: &OwnedFd) -> ! {
    // SAFETY: no other code in this process uses the descriptors. All except the pipe are closed, so that this process
    // keeps none of the parent's pipes open.
    unsafe {
        libc::dup2(leash.as_raw_fd(), 0);
        libc::close_range(1, libc::c_uint::MAX, 0);
    }
    // SAFETY: no handler is installed.
    let _ = unsafe { signal(Signal::SIGCHLD, SigHandler::SigIgn) };
    // A Ctrl-C at the terminal is for the program that holds the lab.
    let _ = setsid();
    let mut byte = [0_u8];
    // SAFETY: the kernel writes no more than this byte.
    while unsafe { libc::read(0, byte.as_mut_ptr().cast(), 1) } == -1 {}
    // SAFETY: ends this process at once, without running what the parent has registered for its own end.
    unsafe { libc::_exit(0) }
}
