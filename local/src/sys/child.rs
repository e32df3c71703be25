//! Where a program starts: in a session of its own, or in the foreground of our terminal. The calls are made between
//! fork and exec, where only async-signal-safe functions may be called.

use std::io;

use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, signal};
use nix::unistd::{Pid, getpid, setpgid, setsid, tcsetpgrp};
use rustix::stdio::stdin;
use tokio::process::Command;

/// Makes `command` start in a session of its own, without a controlling terminal.
pub(crate) fn start_in_session(command: &mut Command) {
    // SAFETY: setsid is async-signal-safe, and nothing is allocated.
    unsafe { command.pre_exec(|| Ok(setsid().map(drop)?)) };
}

/// Makes `command` start in a process group of its own, which is the foreground group of the terminal on our stdin, and
/// which Ctrl-Z does not stop.
pub(crate) fn start_in_foreground(command: &mut Command) {
    let set_up = || -> io::Result<()> {
        setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
        without_sigttou(|| tcsetpgrp(stdin(), getpid()))?;
        // SAFETY: no handler is installed.
        unsafe { signal(Signal::SIGTSTP, SigHandler::SigIgn) }?;
        Ok(())
    };
    // SAFETY: these are system calls only, all of them async-signal-safe, and nothing is allocated: `stdin` is no more
    // than the descriptor.
    unsafe { command.pre_exec(set_up) };
}

/// Calls `action` while SIGTTOU is blocked, which the kernel sends to a background process that changes the terminal.
pub(crate) fn without_sigttou<T>(action: impl FnOnce() -> nix::Result<T>) -> nix::Result<T> {
    let mut blocked = SigSet::empty();
    blocked.add(Signal::SIGTTOU);
    let before = blocked.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    let result = action();
    before.thread_set_mask()?;
    result
}
