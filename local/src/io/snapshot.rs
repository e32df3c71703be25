//! Makes io's reports.

use super::Io;
use super::report::{Counters, Report};
use super::warning::Warning;
use crate::audit::Recorder;

impl Io {
    /// A snapshot of the counters.
    pub fn counters(&self) -> Counters {
        let failures = self.flows.failures();
        Counters {
            engine: self.engine.counters(),
            sockets: self.flows.count(),
            sockets_refused: failures.sockets,
            datagrams_dropped: failures.datagrams,
            queries_dropped: self.flows.queries_dropped(),
            ..self.counters
        }
    }

    /// All that is told of flows goes to this audit. Call it before the first packet.
    pub fn audit(&mut self, audit: Recorder) {
        self.events.audit(audit, &mut self.engine);
    }

    /// A snapshot of everything.
    pub(super) fn report(&self) -> Report {
        let count = self.events.audit_lost();
        let lost = (count > 0).then_some(Warning::AuditLost { count });
        Report {
            counters: self.counters(),
            flows: self.engine.flows().collect(),
            denials: self.events.denials(),
            lookups: self.flows.lookups(),
            warnings: self.flows.warnings().into_iter().chain(lost).collect(),
            notices: self.notices.kept(),
            sidecar: self.sidecar,
        }
    }
}
