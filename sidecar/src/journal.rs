//! The journal: which kinds of change were made to this machine and may not be undone yet.
//!
//! Every kind is written here and synced to disk *before* the first change of it is made. However the owner ends, even by
//! SIGKILL, the next `attach` or `cleanup` finds in the journal at least what has to be undone. Undoing goes in reverse
//! order, is idempotent (a change that was never made, or is undone already, is no error), and continues after a failure.
//!
//! The journal is not believed more than that. With file capabilities its directory belongs to an ordinary user, who may
//! write anything into it. So it names no path, table or content: [`undo`](crate::undo) looks for our own marks, in the
//! places that we change, and reverts what has them.
//!
//! The TUN device, its addresses and its routes are not listed: the kernel removes a TUN device with everything that
//! depends on it when its descriptor is closed, however its owner ends. A device of that name without an owner belongs
//! to another program.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use nix::fcntl::OFlag;
use serde::{Deserialize, Serialize};

use crate::private::{self, Directory};

mod change;

pub(crate) use change::Change;

/// The journal's name in the state directory.
pub(crate) const NAME: &str = "journal";
/// The file that replaces it when it is shortened.
pub(crate) const NEW: &str = "journal.new";

/// Maximum length of a journal, in bytes. Ours are below 100; one of version 0.1 contained each resolv.conf that was
/// replaced, of at most 64 KiB, as decimal numbers.
const MAX_SIZE: usize = 512 * 1024;

/// The result of undoing, as text.
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

/// The kinds of change made and not yet undone, in memory and on disk.
#[derive(Debug)]
pub(crate) struct Journal {
    directory: Directory,
    file: File,
    changes: Vec<Change>,
}

impl Journal {
    /// Opens the journal in this directory, with what an earlier owner left in it.
    ///
    /// # Errors
    /// The file can't be read or written, or is not a journal of ours.
    pub(crate) fn open(directory: &Path) -> io::Result<Self> {
        let directory = Directory::open(directory).map_err(io::Error::other)?;
        let file = directory.file(NAME, OFlag::O_CREAT | OFlag::O_RDWR | OFlag::O_APPEND)?;
        let mut changes = Vec::new();
        for line in private::read(&file, MAX_SIZE)?.split(|&byte| byte == b'\n') {
            if line.is_empty() {
                continue;
            }
            // A crash or a full disk may cut a line short. Its change was not made.
            match serde_json::from_slice(line) {
                Ok(change) if changes.contains(&change) => {}
                Ok(change) => changes.push(change),
                Err(error) => tracing::warn!(%error, "skipping a line of the journal"),
            }
        }
        Ok(Self { directory, file, changes })
    }

    /// Whether there is nothing to undo.
    pub(crate) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Writes down a change that is about to be made. It may be made only after this has returned.
    ///
    /// # Errors
    /// It could not be written down: the change must not be made.
    pub(crate) fn record(&mut self, change: Change) -> io::Result<()> {
        if self.changes.contains(&change) {
            return Ok(());
        }
        // Starts with a line end, because the line before may have been cut short.
        let mut line = vec![b'\n'];
        serde_json::to_writer(&mut line, &change)?;
        line.push(b'\n');
        self.file.write_all(&line)?;
        self.file.sync_data()?;
        self.changes.push(change);
        Ok(())
    }

    /// Reverts the changes that `which` selects with `revert`, the latest first. What could not be reverted stays in
    /// the journal.
    pub(crate) fn undo(
        &mut self,
        which: impl Fn(Change) -> bool,
        revert: impl Fn(Change) -> io::Result<()>,
    ) -> Report {
        let mut report = Report::default();
        let mut left = Vec::new();
        for change in std::mem::take(&mut self.changes).into_iter().rev() {
            if !which(change) {
                left.push(change);
                continue;
            }
            match revert(change) {
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
            // Undoing is idempotent, so a journal that lists too much does no harm.
            tracing::warn!(%error, "the journal could not be shortened");
        }
        report
    }

    fn rewrite(&mut self) -> io::Result<()> {
        self.directory.remove(NEW)?;
        let mut file = self.directory.file(NEW, OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY)?;
        for change in &self.changes {
            let mut line = serde_json::to_vec(change)?;
            line.push(b'\n');
            file.write_all(&line)?;
        }
        file.sync_data()?;
        self.directory.rename(NEW, NAME)?;
        self.file = file;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::fs::{self, OpenOptions};

    use super::*;
    use Change::{Names, Node, Routes, Rules};

    #[test]
    fn recorded_changes_survive_the_recorder() {
        let directory = tempfile::tempdir().unwrap();
        Journal::open(directory.path()).unwrap().record(Rules).unwrap();
        let mut next = Journal::open(directory.path()).unwrap();
        next.record(Names).unwrap();
        next.record(Rules).unwrap();
        assert_eq!(next.changes, [Rules, Names]);
        assert_eq!(Journal::open(directory.path()).unwrap().changes, [Rules, Names]);
    }

    #[test]
    fn undoing_goes_in_reverse_and_empties_the_journal() {
        let directory = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(directory.path()).unwrap();
        journal.record(Routes).unwrap();
        journal.record(Rules).unwrap();
        let reverted = RefCell::new(vec![]);
        let revert = |change: Change| {
            reverted.borrow_mut().push(change);
            Ok(())
        };
        let report = journal.undo(|_| true, revert);
        assert!(report.is_clean());
        assert_eq!(report.undone, ["routing rules", "routes"]);
        assert_eq!(*reverted.borrow(), [Rules, Routes]);
        assert!(Journal::open(directory.path()).unwrap().is_empty());
        assert!(journal.undo(|_| true, revert).undone.is_empty());
    }

    #[test]
    fn a_failure_is_reported_does_not_stop_the_rest_and_stays_in_the_journal() {
        let directory = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(directory.path()).unwrap();
        journal.record(Routes).unwrap();
        journal.record(Rules).unwrap();
        let refused = |change: Change| match change == Rules {
            true => Err(io::Error::other("refused")),
            false => Ok(()),
        };
        let report = journal.undo(|_| true, refused);
        assert_eq!(report.undone, ["routes"]);
        assert_eq!(report.failed, ["routing rules: refused"]);
        assert_eq!(Journal::open(directory.path()).unwrap().changes, [Rules]);
    }

    #[test]
    fn only_selected_changes_are_undone_and_the_rest_keeps_its_order() {
        let directory = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(directory.path()).unwrap();
        [Routes, Rules, Names].into_iter().for_each(|change| journal.record(change).unwrap());
        journal.undo(|change| change == Rules, |_| Ok(()));
        journal.record(Node).unwrap();
        assert_eq!(Journal::open(directory.path()).unwrap().changes, [Routes, Names, Node]);
    }

    #[test]
    fn a_line_cut_short_is_skipped_and_spoils_no_other() {
        let directory = tempfile::tempdir().unwrap();
        Journal::open(directory.path()).unwrap().record(Rules).unwrap();
        let mut file = OpenOptions::new().append(true).open(directory.path().join(NAME)).unwrap();
        file.write_all(b"\"rou\xe4").unwrap();
        let mut journal = Journal::open(directory.path()).unwrap();
        assert_eq!(journal.changes, [Rules]);
        journal.record(Names).unwrap();
        assert_eq!(Journal::open(directory.path()).unwrap().changes, [Rules, Names]);
    }

    #[test]
    fn a_journal_of_version_0_1_is_read_as_kinds_of_change() {
        let old = br#"
{"table":{"table":26727}}
{"rule":{"v6":false,"priority":30000,"table":254,"but_default":true}}
{"rule":{"v6":false,"priority":30001,"table":26727,"but_default":false}}
{"device_node":{"path":"/dev/net/tun","directory":false}}
{"resolv_conf":{"path":"/etc/resolv.conf","target":null,"original":[120],"servers":["10.97.0.1"]}}
{"mount":{"path":"/etc/shadow"}}
"#;
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(NAME), old).unwrap();
        assert_eq!(Journal::open(directory.path()).unwrap().changes, [Routes, Rules, Node, Names]);
    }

    #[test]
    fn a_journal_that_is_not_ours_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(NAME);
        fs::write(&path, vec![b' '; MAX_SIZE + 1]).unwrap();
        assert!(Journal::open(directory.path()).unwrap_err().to_string().contains("larger"));
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        Journal::open(directory.path()).unwrap_err();
    }
}
