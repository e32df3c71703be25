//! `gh-net status`: the running sessions, once or again and again.

use std::io::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

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
            Ok(status) => print(&document(&status, json)),
            Err(error) => failed = Some(error),
        }
    }
    failed.map_or(Ok(()), |error: Error| Err(error.into()))
}

/// A status as a line of JSON, or as text.
pub(super) fn document(status: &Value, json: bool) -> String {
    if json { format!("{status}\n") } else { text::text(status, unix_time()) }
}

/// Data for the user or a program. A reader that has gone away is no failure.
pub(super) fn print(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}

pub(super) fn unix_time() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
