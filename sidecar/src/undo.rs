//! The journal: what was changed on this machine, so that all of it can be taken back.
//!
//! Every change is written here, and has reached the file, *before* it is made. So whatever ends the owner,
//! SIGKILL included, the next `attach` or `cleanup` finds in the journal at least what has to be undone.
//! Undoing goes in reverse order, is idempotent (a change that was never made, or is undone already, is
//! fine), and goes on after a failure.
//!
//! The device and its addresses and routes are not in here: the kernel removes a TUN device, and all that
//! hangs on it, when its descriptor is closed, however its owner ends. A device of that name that is found
//! without an owner is somebody else's.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::routes::{self, Rule};
use crate::{resolv, tun};

/// The journal holds at most this many changes. The few kinds there are stay far below it.
const MAX_CHANGES: usize = 1024;

/// A change to the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Change {
    /// A routing rule is added.
    Rule(Rule),
    /// Routes are put into our own table.
    Table {
        /// The table's number.
        table: u32,
    },
    /// The node of the TUN device is made.
    DeviceNode {
        /// The node.
        path: PathBuf,
        /// Whether its directory is made, too.
        directory: bool,
    },
    /// A resolver configuration is rewritten.
    ResolvConf {
        /// The file.
        path: PathBuf,
        /// What it held; `None`: it did not exist.
        original: Option<Vec<u8>>,
    },
}

impl Change {
    /// Takes the change back. Fine if there is nothing to take back.
    fn undo(&self) -> io::Result<()> {
        match self {
            Self::Rule(rule) => routes::netlink::delete_rule(rule),
            Self::Table { table } => routes::netlink::flush_table(*table),
            Self::DeviceNode { path, directory } => tun::remove_node(path, *directory),
            Self::ResolvConf { path, original } => {
                // A journal that was tampered with must not become a way to write any file as root.
                if !path.to_string_lossy().ends_with("resolv.conf") {
                    return Err(io::Error::other("the journal names a file that is no resolv.conf"));
                }
                resolv::restore(path, original)
            }
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule(rule) => write!(f, "routing rule {rule}"),
            Self::Table { table } => write!(f, "routes in table {table}"),
            Self::DeviceNode { path, .. } => write!(f, "device node {}", path.display()),
            Self::ResolvConf { path, .. } => write!(f, "{}", path.display()),
        }
    }
}

/// What undoing came to, in words.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// What is as it was before.
    pub(crate) undone: Vec<String>,
    /// What could not be undone, and why.
    pub(crate) failed: Vec<String>,
}

impl Report {
    /// Whether everything is as it was before.
    pub(crate) fn is_clean(&self) -> bool {
        self.failed.is_empty()
    }
}

/// The changes made and not yet undone, in memory and on disk.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
    changes: Vec<Change>,
}

impl Journal {
    /// Opens the journal at `path`, with whatever an owner that was killed left in it.
    ///
    /// # Errors
    /// The file can't be read or written.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).read(true).append(true).mode(0o600).open(path)?;
        let mut changes = Vec::new();
        for line in BufReader::new(&file).split(b'\n') {
            let line = line?;
            if line.is_empty() {
                continue;
            }
            // A line may be cut short, by a crash or a full disk; then its change was not made.
            match serde_json::from_slice(&line) {
                Ok(change) => changes.push(change),
                Err(error) => tracing::warn!(%error, "a line of the journal is skipped"),
            }
        }
        Ok(Self { path: path.to_owned(), file, changes })
    }

    /// Whether there is nothing to undo.
    pub(crate) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Notes a change that is about to be made. Only when this has returned may it be made.
    ///
    /// # Errors
    /// It could not be written down: the change must not be made.
    pub(crate) fn record(&mut self, change: Change) -> io::Result<()> {
        if self.changes.contains(&change) {
            return Ok(());
        }
        if self.changes.len() >= MAX_CHANGES {
            return Err(io::Error::other("the journal is full"));
        }
        // It begins with an end of line, for the line before it may have been cut short.
        let mut line = vec![b'\n'];
        serde_json::to_writer(&mut line, &change)?;
        line.push(b'\n');
        self.file.write_all(&line)?;
        self.file.sync_data()?;
        self.changes.push(change);
        Ok(())
    }

    /// Undoes every change, the latest first. What could not be undone stays in the journal.
    pub(crate) fn undo(&mut self) -> Report {
        self.undo_where(|_| true)
    }

    /// Undoes the changes that `which` chooses, the latest first.
    pub(crate) fn undo_where(&mut self, which: impl Fn(&Change) -> bool) -> Report {
        let mut report = Report::default();
        let mut left = Vec::new();
        for change in std::mem::take(&mut self.changes).into_iter().rev() {
            if !which(&change) {
                left.push(change);
                continue;
            }
            match change.undo() {
                Ok(()) => report.undone.push(change.to_string()),
                Err(error) => {
                    report.failed.push(format!("{change}: {error}"));
                    left.push(change);
                }
            }
        }
        left.reverse();
        self.changes = left;
        if let Err(error) = self.rewrite() {
            // Undoing is idempotent, so a journal with too much in it does no harm.
            tracing::warn!(%error, "the journal could not be shortened");
        }
        report
    }

    fn rewrite(&mut self) -> io::Result<()> {
        let new = rewritten(&self.path);
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
        for change in &self.changes {
            let mut line = serde_json::to_vec(change)?;
            line.push(b'\n');
            file.write_all(&line)?;
        }
        file.sync_data()?;
        fs::rename(&new, &self.path)?;
        self.file = file;
        Ok(())
    }
}

/// Where a journal is written anew before it takes the place of the old one.
pub(crate) fn rewritten(journal: &Path) -> PathBuf {
    journal.with_extension("new")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A change whose undoing needs no privilege and no netlink: a node that is not there.
    fn harmless(name: &str) -> Change {
        Change::DeviceNode { path: PathBuf::from("/nonexistent").join(name), directory: false }
    }

    #[test]
    fn what_was_recorded_survives_the_recorder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        Journal::open(&path).unwrap().record(harmless("a")).unwrap();
        let mut next = Journal::open(&path).unwrap();
        next.record(harmless("b")).unwrap();
        assert_eq!(next.changes, [harmless("a"), harmless("b")]);
    }

    #[test]
    fn undoing_goes_in_reverse_and_empties_the_journal() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let mut journal = Journal::open(&path).unwrap();
        journal.record(harmless("a")).unwrap();
        journal.record(harmless("b")).unwrap();
        let report = journal.undo();
        assert!(report.is_clean());
        assert_eq!(report.undone, ["device node /nonexistent/b", "device node /nonexistent/a"]);
        assert!(Journal::open(&path).unwrap().is_empty());
        assert!(journal.undo().undone.is_empty());
    }

    #[test]
    fn a_failure_is_reported_does_not_stop_the_rest_and_stays_in_the_journal() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let bad = Change::ResolvConf { path: "/etc/shadow".into(), original: Some(b"x".to_vec()) };
        let mut journal = Journal::open(&path).unwrap();
        journal.record(harmless("a")).unwrap();
        journal.record(bad.clone()).unwrap();
        let report = journal.undo();
        assert_eq!(report.undone.len(), 1);
        assert_eq!(report.failed.len(), 1);
        assert_eq!(Journal::open(&path).unwrap().changes, [bad]);
    }

    #[test]
    fn a_line_cut_short_is_skipped_and_spoils_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        Journal::open(&path).unwrap().record(harmless("a")).unwrap();
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"table\":{\"ta\xe4").unwrap();
        let mut journal = Journal::open(&path).unwrap();
        assert_eq!(journal.changes, [harmless("a")]);
        journal.record(harmless("b")).unwrap();
        assert_eq!(Journal::open(&path).unwrap().changes, [harmless("a"), harmless("b")]);
    }
}
