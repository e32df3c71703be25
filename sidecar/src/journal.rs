//! The journal: the changes made to this machine and not yet undone.
//!
//! Every change is written here and synced to disk *before* it is made. However the owner ends, even by SIGKILL,
//! the next `attach` or `cleanup` finds in the journal at least what has to be undone. Undoing goes in reverse order,
//! is idempotent (a change that was never made, or is undone already, is no error), and continues after a failure.
//! How a change is reverted is not known here: [`undo`](crate::undo) passes it in.
//!
//! The TUN device, its addresses and its routes are not listed: the kernel removes a TUN device with everything that
//! depends on it when its descriptor is closed, however its owner ends. A device of that name without an owner belongs
//! to another program.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

mod change;

pub(crate) use change::{Change, Rule};

/// Maximum number of changes. The few kinds there are stay far below it.
const MAX_CHANGES: usize = 1024;

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

/// The changes made and not yet undone, in memory and on disk.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
    changes: Vec<Change>,
}

impl Journal {
    /// Opens the journal at `path`, with the changes that an earlier owner left in it.
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
            // A crash or a full disk may cut a line short. Its change was not made.
            match serde_json::from_slice(&line) {
                Ok(change) => changes.push(change),
                Err(error) => tracing::warn!(%error, "skipping a line of the journal"),
            }
        }
        Ok(Self { path: path.to_owned(), file, changes })
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
        if self.changes.len() >= MAX_CHANGES {
            return Err(io::Error::other("the journal is full"));
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

    /// Writes down a change that is about to be made, in place of the one that `old` selects. It may be made only after
    /// this has returned.
    ///
    /// # Errors
    /// It could not be written down: the change must not be made, and the journal is as before.
    pub(crate) fn replace(&mut self, old: impl Fn(&Change) -> bool, new: Change) -> io::Result<()> {
        let before = self.changes.clone();
        match self.changes.iter_mut().find(|change| old(change)) {
            Some(change) => *change = new,
            None => return self.record(new),
        }
        self.rewrite().inspect_err(|_| self.changes = before)
    }

    /// Forgets the change that equals this one: it has been undone.
    pub(crate) fn forget(&mut self, undone: &Change) {
        self.forget_all(|change| change == undone);
    }

    /// Forgets the changes that `undone` selects.
    pub(crate) fn forget_all(&mut self, undone: impl Fn(&Change) -> bool) {
        self.changes.retain(|change| !undone(change));
        if let Err(error) = self.rewrite() {
            // Undoing is idempotent, so a journal that lists too much does no harm.
            tracing::warn!(%error, "the journal could not be shortened");
        }
    }

    /// Reverts the changes that `which` selects with `revert`, the latest first. What could not be reverted stays in
    /// the journal.
    pub(crate) fn undo(
        &mut self,
        which: impl Fn(&Change) -> bool,
        revert: impl Fn(&Change) -> io::Result<()>,
    ) -> Report {
        let mut report = Report::default();
        let mut left = Vec::new();
        for change in std::mem::take(&mut self.changes).into_iter().rev() {
            if !which(&change) {
                left.push(change);
                continue;
            }
            match revert(&change) {
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

/// The temporary file that replaces the journal when it is shortened.
pub(crate) fn rewritten(journal: &Path) -> PathBuf {
    journal.with_extension("new")
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn table(table: u32) -> Change {
        Change::Table { table }
    }

    fn journal_file() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        (directory, path)
    }

    #[test]
    fn recorded_changes_survive_the_recorder() {
        let (_directory, path) = journal_file();
        Journal::open(&path).unwrap().record(table(1)).unwrap();
        let mut next = Journal::open(&path).unwrap();
        next.record(table(2)).unwrap();
        assert_eq!(next.changes, [table(1), table(2)]);
    }

    #[test]
    fn undoing_goes_in_reverse_and_empties_the_journal() {
        let (_directory, path) = journal_file();
        let mut journal = Journal::open(&path).unwrap();
        journal.record(table(1)).unwrap();
        journal.record(table(2)).unwrap();
        let reverted = RefCell::new(vec![]);
        let revert = |change: &Change| {
            reverted.borrow_mut().push(change.clone());
            Ok(())
        };
        let report = journal.undo(|_| true, revert);
        assert!(report.is_clean());
        assert_eq!(report.undone, ["routes in table 2", "routes in table 1"]);
        assert_eq!(*reverted.borrow(), [table(2), table(1)]);
        assert!(Journal::open(&path).unwrap().is_empty());
        assert!(journal.undo(|_| true, revert).undone.is_empty());
    }

    #[test]
    fn a_failure_is_reported_does_not_stop_the_rest_and_stays_in_the_journal() {
        let (_directory, path) = journal_file();
        let mut journal = Journal::open(&path).unwrap();
        journal.record(table(1)).unwrap();
        journal.record(table(2)).unwrap();
        let refused = |change: &Change| match *change == table(2) {
            true => Err(io::Error::other("refused")),
            false => Ok(()),
        };
        let report = journal.undo(|_| true, refused);
        assert_eq!(report.undone, ["routes in table 1"]);
        assert_eq!(report.failed, ["routes in table 2: refused"]);
        assert_eq!(Journal::open(&path).unwrap().changes, [table(2)]);
    }

    #[test]
    fn only_selected_changes_are_undone_and_the_rest_keeps_its_order() {
        let (_directory, path) = journal_file();
        let mut journal = Journal::open(&path).unwrap();
        (1..4).for_each(|number| journal.record(table(number)).unwrap());
        journal.undo(|change| *change == table(2), |_| Ok(()));
        assert_eq!(Journal::open(&path).unwrap().changes, [table(1), table(3)]);
    }

    #[test]
    fn a_change_takes_the_place_of_another_or_nothing_changes() {
        let (directory, path) = journal_file();
        let mut journal = Journal::open(&path).unwrap();
        (1..4).for_each(|number| journal.record(table(number)).unwrap());
        journal.replace(|change| *change == table(2), table(5)).unwrap();
        journal.record(table(6)).unwrap();
        journal.forget(&table(3));
        let changes = [table(1), table(5), table(6)];
        assert_eq!(Journal::open(&path).unwrap().changes, changes);
        drop(directory);
        journal.replace(|change| *change == table(1), table(7)).unwrap_err();
        assert_eq!(journal.changes, changes);
    }

    #[test]
    fn a_line_cut_short_is_skipped_and_spoils_no_other() {
        let (_directory, path) = journal_file();
        Journal::open(&path).unwrap().record(table(1)).unwrap();
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"table\":{\"ta\xe4").unwrap();
        let mut journal = Journal::open(&path).unwrap();
        assert_eq!(journal.changes, [table(1)]);
        journal.record(table(2)).unwrap();
        assert_eq!(Journal::open(&path).unwrap().changes, [table(1), table(2)]);
    }
}
