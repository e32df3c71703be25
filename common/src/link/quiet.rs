//! Whether frames pass at all: an idle link becomes quiet, so that a codespace may fall asleep.
//!
//! The laptop asks ([`Frame::Quiet`] with the time by which it will be heard again), the sidecar answers. A packet that
//! crosses the question makes it void: whoever has sent or received one stays active, and its next frame wakes the other
//! end. So both ends need not change at the same moment, and none waits for the other.

use std::time::{Duration, Instant};

use crate::frame::Frame;

/// When the laptop checks a quiet link for the first time. Longer than the 30 minutes after which a codespace stops by
/// default, because a check counts as activity there.
pub const FIRST_CHECK: Duration = Duration::from_secs(35 * 60);
/// Each check without traffic since the one before doubles the interval, up to this: so checks keep no codespace awake
/// for ever, whatever its own time-out is.
pub const MAX_CHECK: Duration = Duration::from_secs(24 * 3600);
/// How much later than planned a check may arrive.
const LATE: Duration = Duration::from_secs(60);

/// See the [module's documentation](self).
#[derive(Debug, Default)]
pub(super) struct Quietness {
    state: State,
    /// How often the link became quiet without a packet since.
    checks: u32,
    /// The question or answer that is due.
    due: Option<Frame>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Active,
    /// The other end was asked, and no packet has passed since.
    Asked,
    /// Quiet, as we have asked for. At this time the link is checked.
    Checking(Instant),
    /// Quiet, as the other end has asked for. It promised to be heard by this time.
    Promised(Instant),
}

impl Quietness {
    pub(super) fn is_quiet(&self) -> bool {
        matches!(self.state, State::Checking(_) | State::Promised(_))
    }

    pub(super) fn is_active(&self) -> bool {
        self.state == State::Active
    }

    pub(super) fn packet_passed(&mut self) {
        self.checks = 0;
        self.wake();
    }

    /// The other end has more to expect than our question.
    pub(super) fn wake(&mut self) {
        self.state = State::Active;
        self.due = None;
    }

    /// A frame has arrived: the other end is not quiet. A question that is under way stays valid.
    pub(super) fn frame_received(&mut self) {
        if self.is_quiet() {
            self.wake();
        }
    }

    pub(super) fn ask(&mut self) {
        self.state = State::Asked;
        let seconds = u32::try_from((self.interval() + LATE).as_secs()).unwrap_or(u32::MAX);
        self.due = Some(Frame::Quiet(seconds));
    }

    /// A question (with a number of seconds), or an answer (0).
    pub(super) fn quiet_received(&mut self, seconds: u32, now: Instant) {
        if seconds > 0 {
            self.state = State::Promised(now + Duration::from_secs(seconds.into()));
            self.due = Some(Frame::Quiet(0));
        } else if self.state == State::Asked {
            self.state = State::Checking(now + self.interval());
            self.checks += 1;
        }
    }

    fn interval(&self) -> Duration {
        FIRST_CHECK.saturating_mul(1 << self.checks.min(16)).min(MAX_CHECK)
    }

    pub(super) fn poll_frame(&mut self) -> Option<Frame> {
        self.due.take()
    }

    /// When the link has to be checked.
    pub(super) fn check_at(&self) -> Option<Instant> {
        match self.state {
            State::Checking(at) => Some(at),
            State::Active | State::Asked | State::Promised(_) => None,
        }
    }

    /// When a quiet link is dead.
    pub(super) fn dead_at(&self) -> Option<Instant> {
        match self.state {
            State::Promised(until) => Some(until),
            State::Active | State::Asked | State::Checking(_) => None,
        }
    }
}
