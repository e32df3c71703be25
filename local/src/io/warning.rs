//! What the user should know about the laptop's sockets.

use std::fmt;
use std::time::{Duration, Instant};

use crate::limit::RateLimit;

/// Minimum time between two log lines about a shortage of sockets.
const SHORTAGE_INTERVAL: Duration = Duration::from_secs(30);
/// Minimum time between two log lines about ping sockets.
const ECHO_INTERVAL: Duration = Duration::from_secs(3600);

/// Why something does not work on the laptop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Warning {
    /// The kernel opens no more sockets.
    SocketShortage {
        /// The kernel's error.
        error: String,
        /// The number of sockets that were open.
        open: usize,
    },
    /// The user may not open ping sockets.
    EchoForbidden,
    /// There are as many flows as there may be.
    TableFull,
    /// Entries are missing in the audit.
    AuditLost {
        /// How many.
        count: u64,
    },
}

impl Warning {
    /// The code of the warning, which stays the same from version to version.
    pub fn code(&self) -> &'static str {
        match self {
            Self::SocketShortage { .. } => "socket-shortage",
            Self::EchoForbidden => "echo-forbidden",
            Self::TableFull => "table-full",
            Self::AuditLost { .. } => "audit-lost",
        }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SocketShortage { error, open } => write!(
                f,
                "the laptop can't open another socket ({error}); {open} are open. New connections fail until some end; \
                 to raise the limit: ulimit -n"
            ),
            Self::EchoForbidden => f.write_str(
                "this user may not open ping sockets, so ping does not reach the laptop's networks. Allow it on the \
                 laptop: sudo sysctl net.ipv4.ping_group_range=\"0 2147483647\"",
            ),
            Self::AuditLost { count } => write!(
                f,
                "{count} entries are missing in the audit file: the disk is full or too slow, or the file can't be written"
            ),
            Self::TableFull => f.write_str(
                "the codespace has as many connections through the bridge as there may be; new ones wait until some end. \
                 `gh-net status` shows them",
            ),
        }
    }
}

/// The latest warning of each kind; logs them at a bounded rate.
#[derive(Debug)]
pub(super) struct Warnings {
    latest: Vec<Warning>,
    shortage: RateLimit,
    echo: RateLimit,
    full: RateLimit,
}

impl Default for Warnings {
    fn default() -> Self {
        Self {
            latest: Vec::new(),
            shortage: RateLimit::new(SHORTAGE_INTERVAL, 1),
            echo: RateLimit::new(ECHO_INTERVAL, 1),
            full: RateLimit::new(SHORTAGE_INTERVAL, 1),
        }
    }
}

impl Warnings {
    /// Records and logs a warning.
    pub(super) fn add(&mut self, warning: Warning, now: Instant) {
        let limit = match warning {
            Warning::SocketShortage { .. } => &mut self.shortage,
            Warning::EchoForbidden => &mut self.echo,
            Warning::TableFull => &mut self.full,
            // The audit logs it itself and keeps the count.
            Warning::AuditLost { .. } => return,
        };
        if limit.admits(now) {
            tracing::warn!("{warning}");
            self.latest.retain(|latest| latest.code() != warning.code());
            self.latest.push(warning);
        }
    }

    /// The latest warning of each kind.
    pub(super) fn to_vec(&self) -> Vec<Warning> {
        self.latest.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_warning_of_each_kind_is_kept() {
        let (mut warnings, now) = (Warnings::default(), Instant::now());
        let shortage = |open| Warning::SocketShortage { error: "EMFILE".into(), open };
        warnings.add(shortage(1), now);
        warnings.add(shortage(2), now);
        warnings.add(Warning::EchoForbidden, now);
        assert_eq!(warnings.to_vec(), [shortage(1), Warning::EchoForbidden], "a flood is not recorded");
        warnings.add(shortage(3), now + SHORTAGE_INTERVAL);
        assert_eq!(warnings.to_vec(), [Warning::EchoForbidden, shortage(3)]);
    }
}
