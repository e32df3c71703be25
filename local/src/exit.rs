//! How a run ends: the exit code, and the message on stderr.

use std::fmt;
use std::process::ExitCode;

/// The exit codes, as `--help` documents them. They agree with gh's where gh has one for the case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// The user ended the session.
    Done = 0,
    /// Any other failure.
    Failed = 1,
    /// A flag, variable or file is invalid, or the user cancelled a question.
    Usage = 2,
    /// The codespace can't be reached.
    Unreachable = 3,
    /// gh or ssh denies access.
    Denied = 4,
    /// The sidecar can't work in the codespace.
    Sidecar = 5,
    /// A second signal ended everything at once; shells use this code for SIGINT.
    Interrupted = 130,
}

/// The description of [`Exit`] in `--help`.
pub const HELP: &str = "\
Exit codes:
  0    ended by the user (Ctrl-C, SIGTERM)
  1    any other failure
  2    invalid usage or configuration, or a question (which codespace, or ssh's) was cancelled
  3    the codespace can't be reached: unknown, without an ssh server, or ssh failed
  4    access denied: gh is not logged in or lacks the codespace scope, or ssh refused the login
  5    the sidecar can't work: missing, not privileged, no TUN device, busy, incompatible version
  130  ended at once by a second Ctrl-C";

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        // The enum's representation is the code.
        Self::from(exit as u8)
    }
}

/// An error that has more for the user than its one-line message.
pub trait Explain: fmt::Display {
    /// The exit code.
    fn exit(&self) -> Exit;
    /// Details such as the output of a program, in one or more lines.
    fn details(&self) -> Option<String> {
        None
    }
    /// What the user can do, in one or more lines.
    fn remedy(&self) -> Option<String> {
        None
    }
}

/// A failed run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What happened, in one line.
    pub what: String,
    /// Details such as the output of a program.
    pub details: Option<String>,
    /// What the user can do.
    pub remedy: Option<String>,
}

impl<E: Explain> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { exit: error.exit(), what: error.to_string(), details: error.details(), remedy: error.remedy() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A message of the remote side may have several lines.
        let mut what = self.what.lines();
        write!(f, "gh-net: {}", what.next().unwrap_or_default())?;
        let parts = [&self.details, &self.remedy].into_iter().flatten().flat_map(|part| part.lines());
        what.chain(parts).try_for_each(|line| write!(f, "\n  {line}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_reads_from_what_happened_to_what_to_do() {
        let failure = Failure {
            exit: Exit::Failed,
            what: "it broke\nin two".into(),
            details: Some("crack\nsnap".into()),
            remedy: Some("glue it".into()),
        };
        assert_eq!(failure.to_string(), "gh-net: it broke\n  in two\n  crack\n  snap\n  glue it");
    }
}
