//! `gh-net reload`: the running sessions read their configuration again.

use super::output::print;
use crate::exit::{Exit, Failure};
use crate::instance::{Running, ask_all};
use crate::invoked;
use crate::request::Refused;
use crate::status::lines;

/// Asks all sessions to read their configuration again, and shows what changed.
///
/// # Errors
/// There is no session, one does not answer, or the configuration of one is invalid. The others have read theirs.
pub fn run() -> Result<(), Failure> {
    let mut failed: Option<Failure> = None;
    let mut none = true;
    for (session, answer) in ask_all(Running::all()?, Running::reload) {
        match answer {
            // It has ended, or was killed.
            Ok(None) => continue,
            Ok(Some(Ok(reloaded))) => {
                print(&format!("process {}: {}\n", session.process(), lines::reloaded(&reloaded)));
                reloaded.warnings.iter().for_each(|warning| print(&format!("  {warning}\n")));
            }
            Ok(Some(Err(Refused { error, details, remedy }))) => {
                let what = format!("process {} keeps its configuration: {error}", session.process());
                failed = Some(Failure { exit: Exit::Usage, what, details, remedy });
            }
            Err(error) => failed = Some(error.into()),
        }
        none = false;
    }
    match failed {
        Some(failure) => Err(failure),
        None if none => Err(Failure {
            exit: Exit::Failed,
            what: "there is no session".to_owned(),
            details: None,
            remedy: Some(format!(
                "A configuration is read when a session starts; {} status shows the sessions.",
                invoked::name()
            )),
        }),
        None => Ok(()),
    }
}
