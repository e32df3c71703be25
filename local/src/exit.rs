//! How a run ends: the exit code, and the words on stderr.

use std::fmt;
use std::process::ExitCode;

/// The exit codes, as `--help` documents them. Where gh has a code for a case, ours is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// The user ended the session.
    Done = 0,
    /// Anything that has no code of its own.
    Failed = 1,
    /// A flag, variable or file is wrong, or the user cancelled a question.
    Usage = 2,
    /// The codespace can't be reached.
    Unreachable = 3,
    /// gh or ssh does not let the user in.
    Denied = 4,
    /// The sidecar can't do its job over there.
    Sidecar = 5,
    /// A second signal ended everything at once, as a shell says it of SIGINT.
    Interrupted = 130,
}

/// What `--help` says about [`Exit`].
pub const HELP: &str = "\
Exit codes:
  0    ended by the user (Ctrl-C, SIGTERM)
  1    any other failure
  2    wrong usage or configuration, or a question (which codespace, or ssh's) was cancelled
  3    the codespace can't be reached: unknown, without an ssh server, or ssh failed
  4    not let in: gh is not logged in or lacks the codespace scope, or ssh refused the login
  5    the sidecar can't work there: missing, not privileged, no TUN device, busy, other version
  130  ended at once by a second Ctrl-C";

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        // The enum's representation is the code.
        Self::from(exit as u8)
    }
}

/// An error that knows what a user needs to hear beside its own one line.
pub trait Explain: fmt::Display {
    /// The exit code it leads to.
    fn exit(&self) -> Exit;
    /// What exactly was said or seen, one line or several.
    fn details(&self) -> Option<String> {
        None
    }
    /// What to do about it, one line or several.
    fn remedy(&self) -> Option<String> {
        None
    }
}

/// The end of a run that did not go well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What happened, in one line.
    pub what: String,
    /// What exactly was said or seen.
    pub details: Option<String>,
    /// What to do about it.
    pub remedy: Option<String>,
}

impl<E: Explain> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { exit: error.exit(), what: error.to_string(), details: error.details(), remedy: error.remedy() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Words of the other side may be several lines.
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
