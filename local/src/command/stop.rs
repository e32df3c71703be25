//! `gh-net stop`: ends running sessions, and waits until they have ended.

use std::thread::sleep;
use std::time::{Duration, Instant};

use super::output::print;
use crate::exit::{Exit, Failure};
use crate::instance::{Error, Running};
use crate::invoked;

/// How long to wait for the end of a session: its goodbye, and the end of ssh.
const ENDING: Duration = Duration::from_secs(20);
/// Interval at which to look.
const LOOK: Duration = Duration::from_millis(20);

/// Ends the sessions with `target`, or all of them.
///
/// # Errors
/// There is no session with `target`, or one does not answer; the others are ended.
pub fn run(target: Option<&str>) -> Result<(), Failure> {
    let mut ending = Vec::new();
    let mut failed = None;
    for session in Running::all()? {
        match asked(&session, target) {
            Ok(true) => ending.push(session),
            Ok(false) => {}
            Err(error) => failed = Some(error),
        }
    }
    let none = ending.is_empty();
    wait(ending);
    match (failed, target) {
        (Some(error), _) => Err(error.into()),
        (None, Some(target)) if none => Err(Failure {
            exit: Exit::Failed,
            what: format!("there is no session with {target}"),
            details: None,
            remedy: Some(format!("{} status shows the sessions.", invoked::name())),
        }),
        (None, Some(_) | None) => Ok(()),
    }
}

/// Asks the session to end, if it is the one with `target`. Returns whether it is.
fn asked(session: &Running, target: Option<&str>) -> Result<bool, Error> {
    if let Some(target) = target.filter(|target| *target != session.process()) {
        let status = session.status()?;
        let name = status["session"]["target"].as_str().unwrap_or_default();
        if target != name && name != format!("codespace {target}") {
            return Ok(false);
        }
    }
    session.stop().map(|()| true)
}

fn wait(ending: Vec<Running>) {
    let deadline = Instant::now() + ENDING;
    for session in ending {
        while session.runs() && Instant::now() < deadline {
            sleep(LOOK);
        }
        let how = if session.runs() { "is still ending" } else { "has ended" };
        print(&format!("process {} {how}\n", session.process()));
    }
}
