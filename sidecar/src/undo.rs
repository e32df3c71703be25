//! Reverts what the [`journal`](crate::journal) lists: the one place that knows how each kind of change is recognized.
//!
//! Nothing is reverted because the journal says where it is. Our rules and routes have our own numbers, the device's node
//! a mode that nobody else gives it, and resolv.conf our marks with the original between them.

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
    journal.undo(|change| change == Change::Names, revert)
}

/// Reverts all changes of one kind. No error if there is nothing to revert.
fn revert(change: Change) -> io::Result<()> {
    match change {
        Change::Rules | Change::Routes | Change::NodeDirectory | Change::Node => hook::revert(change),
        Change::Names => resolv::restore_marked(),
    }
}
