//! Reverts what the [`journal`](crate::journal) lists: the one place that knows every kind of change.

use std::io;

use crate::hook;
use crate::journal::{Change, Journal, Report};
use crate::names::resolv;

/// Undoes every change, the latest first. What could not be undone stays in the journal.
pub(crate) fn all(journal: &mut Journal) -> Report {
    journal.undo(|_| true, revert)
}

/// Undoes the changes of the resolver hook.
pub(crate) fn names(journal: &mut Journal) -> Report {
    journal.undo(|change| matches!(change, Change::ResolvConf { .. }), revert)
}

/// Reverts one change. No error if there is nothing to revert.
fn revert(change: &Change) -> io::Result<()> {
    match change {
        Change::Rule(_) | Change::Table { .. } | Change::DeviceNode { .. } => hook::revert(change),
        Change::ResolvConf { path, target, original, servers } => {
            // A journal that was tampered with must not become a way to write any file as root.
            if path.file_name().is_none_or(|name| name != "resolv.conf") {
                return Err(io::Error::other("the journal names a file that is no resolv.conf"));
            }
            // Only what has our mark or names only our servers is written.
            if let Some(target) = target {
                resolv::restore(target, original.as_deref(), servers)?;
            }
            // The path may lead to another file since, into which another program has copied ours.
            resolv::restore(path, original.as_deref(), servers)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_that_was_never_made_is_undone_without_error() {
        let directory = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(&directory.path().join("journal")).unwrap();
        let path = directory.path().join("missing");
        journal.record(Change::DeviceNode { path: path.clone(), directory: false }).unwrap();
        let report = all(&mut journal);
        assert_eq!(report.undone, [format!("device node {}", path.display())]);
        assert!(report.is_clean() && journal.is_empty());
    }

    #[test]
    fn a_journal_that_names_another_file_than_resolv_conf_is_not_followed() {
        for other in ["shadow", "evilresolv.conf", "resolv.conf/shadow"] {
            let directory = tempfile::tempdir().unwrap();
            let mut journal = Journal::open(&directory.path().join("journal")).unwrap();
            let path = directory.path().join(other);
            let original = Some(b"x".to_vec());
            let change = Change::ResolvConf { path: path.clone(), target: None, original, servers: vec![] };
            journal.record(change).unwrap();
            assert_eq!(all(&mut journal).failed.len(), 1, "{other}");
            assert!(!path.exists() && !journal.is_empty(), "{other}");
        }
    }
}
