//! Text for a person at a terminal. stdout and stderr may be closed; that is ignored, because `println!` would panic.

use std::io::{Write, stderr, stdout};

/// An error message, on stderr.
pub(crate) fn complain(text: &str) {
    let _ = writeln!(stderr(), "gh-net-sidecar: {text}");
}

/// The result of a command that a person runs, on stdout.
pub(crate) fn print(text: &str) {
    let _ = stdout().write_all(text.as_bytes());
}
