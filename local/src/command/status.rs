//! `gh-net status`: the running sessions, once or again and again.

use super::output::{print, unix_time};
use super::watch;
use crate::exit::Failure;
use crate::instance::{Error, Running};
use crate::status::text;

/// Shows the running sessions.
///
/// # Errors
/// They can't be found, or one does not answer; the others are shown.
pub fn run(json: bool, watch: bool) -> Result<(), Failure> {
    if watch {
        return watch::run(json);
    }
    let running = Running::all()?;
    if running.is_empty() && !json {
        print("no session\n");
    }
    let mut failed = None;
    for session in running {
        match session.status() {
            Ok(status) if json => print(&format!("{status}\n")),
            Ok(status) => print(&text::text(&status, unix_time())),
            Err(error) => failed = Some(error),
        }
    }
    failed.map_or(Ok(()), |error: Error| Err(error.into()))
}
