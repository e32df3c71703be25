//! `gh-net stop`: ends running sessions, and waits until they have ended.

use std::thread::sleep;
use std::time::{Duration, Instant};

use super::output::print;
use crate::exit::{Exit, Failure};
use crate::instance::{Error, Running, ask_all};
use crate::invoked;

/// How long to wait for the end of a session: its goodbye, and the end of ssh.
const ENDING: Duration = Duration::from_secs(20);
/// Interval at which to look.
const LOOK: Duration = Duration::from_millis(20);
/// Interval at which to connect to a session whose socket is still there: it may never accept the connection.
const PROBE: Duration = Duration::from_secs(1);

/// Ends the sessions with `target`, or all of them.
///
/// # Errors
/// There is no session with `target`, or it does not answer. Without a `target`: one does not answer; the others are ended.
pub fn run(target: Option<&str>) -> Result<(), Failure> {
    let mut sessions = Running::all()?;
    // A process that is named is asked alone: the others don't matter, even if they don't answer.
    let named = |session: &Running| Some(session.process()) == target;
    if sessions.iter().any(named) {
        sessions.retain(named);
    }
    let mut ending = Vec::new();
    let mut failed = None;
    for (session, asked) in ask_all(sessions, |session| asked(session, target)) {
        match asked {
            Ok(true) => ending.push(session),
            Ok(false) => {}
            Err(error) => failed = Some(error),
        }
    }
    let none = ending.is_empty();
    wait(ending);
    match (failed, target) {
        // One that does not answer may be another one.
        (Some(_), Some(_)) if !none => Ok(()),
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
        let Some(status) = session.status()? else { return Ok(false) };
        let name = status["session"]["target"].as_str().unwrap_or_default();
        if target != name && name != format!("codespace {target}") {
            return Ok(false);
        }
    }
    session.stop()
}

fn wait(ending: Vec<Running>) {
    let deadline = Instant::now() + ENDING;
    for session in ending {
        while session.is_found() && Instant::now() < deadline {
            // A killed process leaves its socket.
            let probe = Instant::now() + PROBE;
            if !session.runs() {
                break;
            }
            while session.is_found() && Instant::now() < probe {
                sleep(LOOK);
            }
        }
        let ended = !session.is_found() || !session.runs();
        let how = if ended { "has ended" } else { "is still ending" };
        print(&format!("process {} {how}\n", session.process()));
    }
}
