//! `gh-net status`: the running sessions, once or again and again.

use super::output::print;
use super::watch;
use crate::exit::Failure;
use crate::instance::{Error, Running, ask_all};
use crate::status::{text, unix_time};

/// Shows the running sessions.
///
/// # Errors
/// They can't be found, or one does not answer; the others are shown.
pub fn run(json: bool, watch: bool) -> Result<(), Failure> {
    if watch {
        return watch::run(json);
    }
    let mut failed = None;
    let mut none = true;
    for (_, status) in ask_all(Running::all()?, Running::status) {
        match status {
            // It has ended, or was killed.
            Ok(None) => continue,
            Ok(Some(status)) if json => print(&format!("{status}\n")),
            Ok(Some(status)) => print(&text::text(&status, unix_time())),
            Err(error) => failed = Some(error),
        }
        none = false;
    }
    if none && !json {
        print("no session\n");
    }
    failed.map_or(Ok(()), |error: Error| Err(error.into()))
}
