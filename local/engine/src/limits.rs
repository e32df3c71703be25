//! How many flows there may be.

use super::api::Resources;

/// TCP connections at once that are open, not counting those in TIME-WAIT.
const MAX_CONNECTIONS: usize = 8192;
/// TCP connections at once that are not open yet.
const MAX_OPENING: usize = 4096;
/// UDP mappings at once.
const MAX_MAPPINGS: usize = 4096;
/// Echo sessions at once.
const MAX_SESSIONS: usize = 512;

/// Descriptors that the driver needs for other purposes than flows, at most half of them. A flood of questions takes the most:
/// gh-net's resolver asks 128 at a time, each over UDP and then perhaps over TCP, and has 16 lookups of the system under
/// way, of a few descriptors each. The rest is for the link, ssh, logs, and commands that ask for the status.
pub const OTHER_DESCRIPTORS: usize = 512;
/// A connection needs memory for a small window in both directions; see [`super::budget`].
const MEMORY_OF_CONNECTION: usize = 32 * 1024;
/// A mapping or session needs memory for a packet.
const MEMORY_OF_MAPPING: usize = 64 * 1024;
const MEMORY_OF_SESSION: usize = 512 * 1024;

/// Maximum numbers of flows, so that all of them together fit into the driver's resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// Open TCP connections.
    pub connections: usize,
    /// TCP connections that are not open yet.
    pub opening: usize,
    /// UDP mappings.
    pub mappings: usize,
    /// Echo sessions.
    pub sessions: usize,
}

impl Limits {
    /// The limits for these resources. Open connections get at least half of the sockets.
    pub(super) fn of(resources: &Resources) -> Self {
        let Resources { sockets, memory } = *resources;
        let sockets = sockets - OTHER_DESCRIPTORS.min(sockets / 2);
        let opening = MAX_OPENING.min(sockets / 5).min(memory / MEMORY_OF_MAPPING).max(1);
        let mappings = MAX_MAPPINGS.min(sockets / 5).min(memory / MEMORY_OF_MAPPING).max(1);
        let sessions = MAX_SESSIONS.min(sockets / 20).min(memory / MEMORY_OF_SESSION).max(1);
        let left = sockets.saturating_sub(opening + mappings + sessions);
        let connections = MAX_CONNECTIONS.min(left).min(memory / MEMORY_OF_CONNECTION).max(1);
        Self { connections, opening, mappings, sessions }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_flows_fit_into_the_sockets() {
        for sockets in [1024, 4096, 20_000, 1 << 20] {
            let limits = Limits::of(&Resources { sockets, ..Resources::default() });
            let Limits { connections, opening, mappings, sessions } = limits;
            assert!(connections + opening + mappings + sessions + OTHER_DESCRIPTORS <= sockets, "{limits:?}");
            assert!(connections >= opening.max(mappings), "{limits:?}");
        }
    }

    #[test]
    fn little_memory_means_fewer_flows() {
        let most = Limits::of(&Resources::default());
        let Limits { connections, opening, mappings, sessions } = most;
        assert_eq!((connections, opening, mappings, sessions), (8192, 4096, 4096, 512));
        let small = Limits::of(&Resources { memory: 32 << 20, ..Resources::default() });
        let Limits { connections, opening, mappings, sessions } = small;
        assert_eq!((connections, opening, mappings, sessions), (1024, 512, 512, 64));
    }
}
