//! What this process has for the engine's flows.

use nix::sys::resource::{Resource, getrlimit};

use crate::engine::Resources;

/// The resources of a session with this much memory: the process's limit of open files is asked.
pub(super) fn of_process(memory: usize) -> Resources {
    let mut resources = Resources { memory, ..Resources::default() };
    if let Ok((limit, _)) = getrlimit(Resource::RLIMIT_NOFILE) {
        resources.sockets = usize::try_from(limit).unwrap_or(usize::MAX);
    }
    resources
}
