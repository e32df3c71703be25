//! Who has the terminal while ssh asks.
//!
//! ssh, and the ProxyCommand it leaves running, must not be in our process group: Ctrl-C would end them before
//! our goodbye has passed. But a process of another group may not read from the terminal, unless that group is
//! in the foreground. So we do what a shell does for a job: ssh is put into a group of its own, the group into
//! the foreground, and when ssh is done we take the terminal back, as it was.
//!
//! Without a terminal to ask on, ssh gets a session of its own. Then neither it nor the ssh of a jump host,
//! which does not inherit BatchMode, can wait for an answer that nobody will give.

use std::io::{self, IsTerminal};
use std::os::fd::BorrowedFd;

use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};
use nix::unistd::{Pid, getpgrp, getpid, setpgid, setsid, tcgetpgrp, tcsetpgrp};
use tokio::process::Command;

/// The terminal, lent to ssh until this is dropped.
pub(super) struct Lent {
    settings: Termios,
    group: Pid,
}

impl Lent {
    /// The terminal on stdin as it is now; `None` if there is none, or we are in its background.
    pub(super) fn to_ssh() -> Option<Self> {
        let group = getpgrp();
        let ours = stdin().is_terminal() && tcgetpgrp(stdin()).is_ok_and(|foreground| foreground == group);
        let settings = ours.then(|| tcgetattr(stdin()).ok())??;
        Some(Self { settings, group })
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // From the background, both would stop us by SIGTTOU.
        let _ = without_sigttou(|| {
            tcsetpgrp(stdin(), self.group)?;
            // An ssh that was killed while it read a password has left the echo off.
            tcsetattr(stdin(), SetArg::TCSADRAIN, &self.settings)
        });
    }
}

/// Makes `command` start with the terminal lent to it, or without one.
pub(super) fn arrange(command: &mut Command, lent: bool) {
    let prepare = move || -> io::Result<()> {
        if !lent {
            return Ok(setsid().map(drop)?);
        }
        setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
        without_sigttou(|| tcsetpgrp(stdin(), getpid()))?;
        // SAFETY: no handler is installed. Stopped by Ctrl-Z, ssh would keep the terminal, and the shell, which
        // waits for us, would not take it back.
        unsafe { signal(Signal::SIGTSTP, SigHandler::SigIgn) }?;
        Ok(())
    };
    // SAFETY: runs between fork and exec; it makes system calls only, all of them async-signal-safe, and
    // allocates nothing.
    unsafe { command.pre_exec(prepare) };
}

/// The descriptor alone: between fork and exec, the standard library's handle might allocate.
fn stdin() -> BorrowedFd<'static> {
    // SAFETY: the standard library opens descriptor 0 at start, if it is closed, and nothing here closes it.
    unsafe { BorrowedFd::borrow_raw(0) }
}

fn without_sigttou<T>(action: impl FnOnce() -> nix::Result<T>) -> nix::Result<T> {
    let mut blocked = SigSet::empty();
    blocked.add(Signal::SIGTTOU);
    let before = blocked.thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_BLOCK)?;
    let result = action();
    before.thread_set_mask()?;
    result
}
