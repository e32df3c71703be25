//! What the commands print.

use std::io::{self, Write};

/// Data for the user or a program. A reader that has gone away is no failure.
pub(super) fn print(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}
