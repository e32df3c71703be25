//! One table of the flows' deadlines, so that no flow needs a task or timer of its own.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::api::FlowId;

/// Flows in the order of their deadlines.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    ordered: BTreeSet<(Instant, FlowId)>,
}

impl Deadlines {
    /// Makes sure that `flow` is woken at `wanted` at the latest. `registered` is the flow's deadline in the table.
    ///
    /// A deadline that becomes later, as retransmission time-outs do with each segment, leaves the table unchanged:
    /// the flow is woken early, has nothing to do and registers again.
    pub(super) fn register(
        &mut self,
        flow: FlowId,
        registered: &mut Option<Instant>,
        wanted: Option<Instant>,
    ) {
        let Some(wanted) = wanted else { return };
        if registered.is_some_and(|at| at <= wanted) {
            return;
        }
        self.forget(flow, registered);
        self.ordered.insert((wanted, flow));
        *registered = Some(wanted);
    }

    /// Takes the flow's entry out.
    pub(super) fn forget(&mut self, flow: FlowId, registered: &mut Option<Instant>) {
        if let Some(at) = registered.take() {
            self.ordered.remove(&(at, flow));
        }
    }

    /// The first deadline.
    pub(super) fn first(&self) -> Option<Instant> {
        self.ordered.first().map(|(at, _)| *at)
    }

    /// Takes out a flow whose deadline has passed. Its entry is gone; set its `registered` to `None`.
    pub(super) fn pop(&mut self, now: Instant) -> Option<FlowId> {
        self.first().filter(|at| *at <= now)?;
        self.ordered.pop_first().map(|(_, flow)| flow)
    }
}

/// A time without a link.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pause {
    pub from: Instant,
    pub to: Instant,
}

impl Pause {
    /// Moves an instant before or within the pause forward, so that the pause does not count.
    pub(super) fn shift(self, moment: Instant) -> Instant {
        self.to - self.from.saturating_duration_since(moment)
    }

    /// How long it was.
    pub(super) fn length(self) -> Duration {
        self.to.saturating_duration_since(self.from)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_first_is_first_and_one_that_moves_back_comes_early() {
        let (mut deadlines, start) = (Deadlines::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let (mut one, mut two) = (None, None);
        deadlines.register(FlowId(1), &mut one, Some(at(10)));
        deadlines.register(FlowId(2), &mut two, Some(at(5)));
        assert_eq!(deadlines.first(), Some(at(5)));
        deadlines.register(FlowId(2), &mut two, Some(at(20)));
        assert_eq!(deadlines.first(), Some(at(5)), "woken early, to look again");
        deadlines.register(FlowId(1), &mut one, Some(at(3)));
        assert_eq!(deadlines.first(), Some(at(3)), "never woken late");
        assert_eq!(deadlines.pop(at(2)), None);
        assert_eq!(deadlines.pop(at(30)), Some(FlowId(1)));
        deadlines.forget(FlowId(2), &mut two);
        assert_eq!((deadlines.first(), deadlines.pop(at(30))), (None, None));
    }
}
