//! `gh-net-sidecar cleanup`: ends the session and undoes everything, through its owner or, if the owner is dead, by its
//! journal. Also asks the owner for `status`.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, bail};

use crate::journal::{Journal, Report};
use crate::owner::handover::{Client, Reply, Request};
use crate::owner::state::StateDir;
use crate::status::Status;
use crate::undo;

/// An owner that does not answer within this time hangs.
const ANSWER: Duration = Duration::from_secs(15);
/// An owner may be starting or ending, and there is no event to wait for.
const TRIES: usize = 20;
const PAUSE: Duration = Duration::from_millis(50);

/// Ends the session, if there is one, and undoes everything.
///
/// # Errors
/// The owner hangs, or the state directory can't be used.
pub(crate) fn run() -> anyhow::Result<Report> {
    let state = StateDir::locate();
    for _ in 0..TRIES {
        if !state.exists() {
            return Ok(Report::default());
        }
        match ask(&state, &Request::Cleanup)? {
            Some(Reply::Undone(report)) => return Ok(report),
            Some(Reply::Accepted | Reply::Taken | Reply::Exit { .. } | Reply::Status(_)) | None => {}
        }
        if let Some(lock) = state.try_lock()? {
            let mut journal = Journal::open(state.path())
                .with_context(|| format!("the journal in {}", state.path().display()))?;
            let report = undo::all(&mut journal);
            state.remove(lock, !report.is_clean());
            return Ok(report);
        }
        std::thread::sleep(PAUSE);
    }
    bail!("the owner process{} does not answer", name(&state))
}

/// The status of the session, if there is one.
///
/// # Errors
/// The owner hangs.
pub(crate) fn status() -> anyhow::Result<Option<Status>> {
    match ask(&StateDir::locate(), &Request::Status)? {
        Some(Reply::Status(status)) => Ok(Some(*status)),
        Some(Reply::Accepted | Reply::Taken | Reply::Exit { .. } | Reply::Undone(_)) | None => Ok(None),
    }
}

/// The owner's answer; `None` if there is no owner, or it is ending.
fn ask(state: &StateDir, request: &Request) -> anyhow::Result<Option<Reply>> {
    let Ok(stream) = UnixStream::connect(state.socket()) else { return Ok(None) };
    stream.set_read_timeout(Some(ANSWER))?;
    let mut owner = Client::new(stream)?;
    if owner.send(request, &[]).is_err() {
        return Ok(None);
    }
    owner.reply().with_context(|| {
        let seconds = ANSWER.as_secs();
        let name = name(state);
        format!("the owner process{name} has not answered for {seconds} s; kill -9 it and run cleanup again")
    })
}

fn name(state: &StateDir) -> String {
    state.owner().map(|pid| format!(" (pid {pid})")).unwrap_or_default()
}
