//! `gh-net-sidecar idle`: what a container of the sidecar's own runs, so that there is one to `docker exec` into.
//!
//! It changes nothing. As the container's first process it reaps what is left to it; and when the container is
//! stopped it ends the session, as the kernel would kill its owner before anything could be undone.

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, waitpid};

use super::cleanup;
use crate::journal::Report;
use crate::owner::state::{StateDir, wait_for_exit};

/// Waits until the container is stopped. What an earlier run of it left is undone first, and what a session
/// has changed last; `tell` says so. `ready` is called when it can be stopped.
///
/// # Errors
/// The owner hangs, or the state directory is of no use.
pub(crate) fn run(ready: impl FnOnce(), tell: impl Fn(&Report)) -> anyhow::Result<Report> {
    let ends = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];
    let mut signals: SigSet = ends.into_iter().collect();
    signals.add(Signal::SIGCHLD);
    // Blocked, they are not ignored, as they are by a first process that has no handler for them.
    signals.thread_block()?;
    // A container that was killed and is started again has its files still, the journal among them.
    if StateDir::locate().exists() {
        tell(&cleanup::run()?);
    }
    ready();
    loop {
        match signals.wait() {
            Ok(Signal::SIGCHLD) => reap(),
            Err(Errno::EINTR) => {}
            Ok(_) => break,
            Err(errno) => return Err(errno.into()),
        }
    }
    let owner = StateDir::locate().owner();
    let report = cleanup::run()?;
    // It says goodbye to the laptop when all is undone, and the kernel kills it when we are gone.
    owner.into_iter().for_each(wait_for_exit);
    tell(&report);
    Ok(report)
}

/// Owners outlive the `attach` that has started them.
fn reap() {
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        if status.pid().is_none() {
            return;
        }
    }
}
