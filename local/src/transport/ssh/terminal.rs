//! Job control of the terminal while ssh asks questions.
//!
//! ssh, and the ProxyCommand that it leaves running, must not be in our process group, or Ctrl-C would end them before
//! our goodbye has passed. But only the foreground process group may read from the terminal. So we do what a shell
//! does for a job: ssh gets a process group of its own, which becomes the foreground group; when ssh has exited, we
//! restore the foreground group and the terminal's settings.
//!
//! Without a terminal to ask on, ssh gets a session of its own, so that neither it nor the ssh of a jump host, which
//! does not inherit BatchMode, can wait for an answer that never comes.

use std::io::{IsTerminal, stdin};

use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};
use nix::unistd::{Pid, getpgrp, tcgetpgrp, tcsetpgrp};
use tokio::process::Command;

use crate::sys::child::{self, without_sigttou};

/// What to restore after ssh has had the terminal; dropping it does so.
pub(super) struct TerminalLoan {
    settings: Termios,
    group: Pid,
}

impl TerminalLoan {
    /// The state of the terminal on stdin; `None` if stdin is no terminal or we are in the background.
    pub(super) fn of_stdin() -> Option<Self> {
        let group = getpgrp();
        let ours = stdin().is_terminal() && tcgetpgrp(stdin()).is_ok_and(|foreground| foreground == group);
        let settings = ours.then(|| tcgetattr(stdin()).ok())??;
        Some(Self { settings, group })
    }
}

impl Drop for TerminalLoan {
    fn drop(&mut self) {
        // The kernel sends SIGTTOU to background processes that call either.
        let _ = without_sigttou(|| {
            tcsetpgrp(stdin(), self.group)?;
            // An ssh that was killed while it read a password leaves the echo off.
            tcsetattr(stdin(), SetArg::TCSADRAIN, &self.settings)
        });
    }
}

/// Makes `command` start in the foreground of the terminal, or without a terminal.
pub(super) fn prepare(command: &mut Command, foreground: bool) {
    if foreground {
        // Stopped by Ctrl-Z, ssh would keep the terminal, and the shell, which waits for us, would not take it back.
        child::start_in_foreground(command);
    } else {
        child::start_in_session(command);
    }
}
