//! What the commands print.

use std::io::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

/// Data for the user or a program. A reader that has gone away is no failure.
pub(super) fn print(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}

/// The time now, as the statuses have it.
pub(super) fn unix_time() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
