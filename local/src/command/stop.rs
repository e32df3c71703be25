//! `gh-net stop`: ends running sessions, and waits until they have ended.

use std::thread::sleep;
use std::time::{Duration, Instant};

use super::output::print;
use crate::exit::{Exit, Failure};
use crate::instance::Running;
use crate::invoked;

/// How long to wait for the end of a session: its goodbye, and the end of ssh.
const ENDING: Duration = Duration::from_secs(20);
/// Interval at which to look.
const LOOK: Duration = Duration::from_millis(20);

/// Ends the sessions with `target`, or all of them.
///
/// # Errors
/// There is no session with `target`, or one does not answer.
pub fn run(target: Option<&str>) -> Result<(), Failure> {
    let mut ending = Vec::new();
    for session in Running::all()? {
        if target.is_some_and(|target| target != session.process()) {
            let status = session.status()?;
            let name = status["session"]["target"].as_str().unwrap_or_default();
            if !target.is_some_and(|target| target == name || name == format!("codespace {target}")) {
                continue;
            }
        }
        session.stop()?;
        ending.push(session);
    }
    if let Some(target) = target
        && ending.is_empty()
    {
        return Err(Failure {
            exit: Exit::Failed,
            what: format!("there is no session with {target}"),
            details: None,
            remedy: Some(format!("{} status shows the sessions.", invoked::name())),
        });
    }
    let deadline = Instant::now() + ENDING;
    for session in ending {
        while session.runs() && Instant::now() < deadline {
            sleep(LOOK);
        }
        let how = if session.runs() { "is still ending" } else { "has ended" };
        print(&format!("process {} {how}\n", session.process()));
    }
    Ok(())
}
