//! Which flows somebody has answered, within bounds.

/// Number of flows remembered. One that is forgotten counts as new until the next answer.
const SLOTS: usize = 8192;

/// A table with one slot for each value of the low bits of a flow's hash, which holds the high ones.
#[derive(Debug)]
pub(super) struct Answered(Box<[u32]>);

impl Default for Answered {
    fn default() -> Self {
        Self(vec![0; SLOTS].into())
    }
}

impl Answered {
    /// Remembers a flow. Returns whether it was not known.
    pub(super) fn insert(&mut self, flow: u64) -> bool {
        std::mem::replace(&mut self.0[flow as usize % SLOTS], tag(flow)) != tag(flow)
    }

    pub(super) fn contains(&self, flow: u64) -> bool {
        self.0[flow as usize % SLOTS] == tag(flow)
    }
}

fn tag(flow: u64) -> u32 {
    (flow >> 32) as u32 | 1
}
