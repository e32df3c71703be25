//! Whether frames pass at all: an idle link becomes quiet, so that a codespace may fall asleep.
//!
//! The laptop asks ([`Frame::Quiet`] with the time by which it will be heard again), the sidecar answers. If the laptop
//! sends anything after its question, or receives a packet before the answer, the question is void: the laptop stays
//! active, and its next frame wakes the sidecar. So the two ends need not change at the same moment.

use std::time::{Duration, Instant};

use crate::frame::Frame;

/// When the laptop checks a quiet link for the first time. Longer than the 30 minutes after which a codespace stops by
/// default, because a check counts as activity there.
pub const FIRST_CHECK: Duration = Duration::from_secs(35 * 60);
/// Each check without traffic since the one before doubles the interval, up to this: so checks keep no codespace awake
/// for ever, whatever its own time-out is.
pub(super) const MAX_CHECK: Duration = Duration::from_secs(24 * 3600);
/// How much later than planned a check may arrive.
const LATE: Duration = Duration::from_secs(60);

/// See the [module's documentation](self).
#[derive(Debug, Default)]
pub(super) struct IdleState {
    state: State,
    /// How many checks there were since the last packet.
    checks: u32,
    /// The question or answer that is due.
    due: Option<Frame>,
    /// When the other end will be heard at the latest, as it promised before it was last heard.
    promised: Option<Instant>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Active,
    /// The other end was asked, and no packet has passed since.
    Asked,
    /// Quiet, as we have asked for. At this time the link is checked.
    Checking(Instant),
    /// Quiet, as the other end has asked for, with a promise.
    Promised,
}

impl IdleState {
    pub(super) fn is_quiet(&self) -> bool {
        matches!(self.state, State::Checking(_) | State::Promised)
    }

    pub(super) fn is_active(&self) -> bool {
        self.state == State::Active
    }

    pub(super) fn packet_passed(&mut self) {
        self.checks = 0;
        self.wake();
    }

    /// Makes the link active. A question of ours is void.
    pub(super) fn wake(&mut self) {
        self.state = State::Active;
        self.due = None;
    }

    /// A frame other than a packet, a question or an answer leaves. Behind our question it makes it void: the other end
    /// drops its answer for it.
    pub(super) fn frame_sent(&mut self) {
        if self.state == State::Asked && self.due.is_none() {
            self.wake();
        }
    }

    /// A frame has arrived: the other end is not quiet. A question that is under way stays valid.
    pub(super) fn frame_received(&mut self) {
        self.promised = None;
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
            self.state = State::Promised;
            self.promised = Some(now + Duration::from_secs(seconds.into()).min(MAX_CHECK + LATE));
            self.due = Some(Frame::Quiet(0));
        } else if self.state == State::Asked {
            self.state = State::Checking(now + self.interval());
        }
    }

    /// When the other end will be heard at the latest, as it promised before it was last heard.
    pub(super) fn promised(&self) -> Option<Instant> {
        self.promised
    }

    /// Whether the link has to be checked now. The next check has to be asked for anew.
    pub(super) fn begin_check(&mut self, now: Instant) -> bool {
        let due = self.check_at().is_some_and(|at| at <= now);
        self.checks = self.checks.saturating_add(u32::from(due));
        due
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
            State::Active | State::Asked | State::Promised => None,
        }
    }

    /// When a quiet link is dead.
    pub(super) fn dead_at(&self) -> Option<Instant> {
        self.promised.filter(|_| self.state == State::Promised)
    }
}
