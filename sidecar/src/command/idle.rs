//! `gh-net-sidecar idle`: the main process of a container of the sidecar's own, into which `docker exec` runs `attach`.
//!
//! It changes nothing. As the container's first process it reaps orphans. When the container is stopped it ends the
//! session, because the kernel would kill the owner before anything could be undone.

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, waitpid};

use super::cleanup;
use crate::journal::Report;
use crate::owner::state::{StateDir, wait_for_exit};

/// Waits until the container is stopped. First undoes what an earlier run of the container left, and at the end what the
/// session changed; `tell` reports both. Calls `ready` when it can be stopped.
///
/// # Errors
/// The owner hangs, or the state directory can't be used.
pub(crate) fn run(ready: impl FnOnce(), tell: impl Fn(&Report)) -> anyhow::Result<Report> {
    let ends = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];
    let mut signals: SigSet = ends.into_iter().collect();
    signals.add(Signal::SIGCHLD);
    // A first process without a handler ignores signals. Blocked, they are kept for `wait`.
    signals.thread_block()?;
    // A container that was killed and started again still has its files, including the journal.
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
    // The owner says goodbye to the laptop after everything is undone, and the kernel kills it when this process ends.
    owner.into_iter().for_each(wait_for_exit);
    tell(&report);
    Ok(report)
}

/// Owners outlive the `attach` that started them.
fn reap() {
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        if status.pid().is_none() {
            return;
        }
    }
}
