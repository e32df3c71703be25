//! Large segments that are kept as slices of the buffer of the link that they came in.
//!
//! Usually the host's socket takes them within the same turn. Those that stay are copied, because each may be the only one
//! that keeps a buffer of 256 KiB alive.

use std::collections::VecDeque;

use super::api::FlowId;

/// A buffer of the link, in bytes (`READ_SIZE` of the frame reader).
const BUFFER: usize = 256 * 1024;

/// The latest large segments.
#[derive(Debug)]
pub(super) struct Pinned {
    latest: VecDeque<(FlowId, u64)>,
    most: usize,
}

impl Pinned {
    /// As many as pin a sixteenth of `memory`.
    pub(super) fn new(memory: usize) -> Self {
        Self { latest: VecDeque::new(), most: (memory / 16 / BUFFER).max(1) }
    }

    /// A flow has got a large segment, which ends at this position. Returns the flow and position up to which segments
    /// have to be copied, if there are any.
    pub(super) fn push(&mut self, flow: FlowId, end: u64) -> Option<(FlowId, u64)> {
        self.latest.push_back((flow, end));
        if self.latest.len() > self.most { self.latest.pop_front() } else { None }
    }
}
