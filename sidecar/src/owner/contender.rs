//! A laptop that wants a new session while another laptop has one: it waits until that one has shown whether it is
//! alive.

use std::time::Duration;

use gh_net_common::frame::{Goodbye, Open, Reason};
use tokio::select;
use tokio::time::{Instant, sleep_until};

use super::link::Link;
use super::session::Holder;

/// How long a laptop may take for a sign of life when another one wants a session. gh-net waits 8 s for its answer.
const PROBE: Duration = Duration::from_secs(3);

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Contender {
    pub(super) link: Link,
    pub(super) open: Open,
    deadline: Instant,
}

/// What ends the wait of a contender.
#[derive(Debug)]
pub(super) enum Decision {
    /// The laptop that has the session was silent for too long.
    ProbeOver,
    /// The contender no longer waits. This is the goodbye for it.
    GaveUp(Goodbye),
}

impl Contender {
    /// A contender, whose time begins now.
    pub(super) fn new(link: Link, open: Open) -> Self {
        Self { link, open, deadline: Instant::now() + PROBE }
    }

    /// The laptop's name.
    pub(super) fn name(&self) -> Holder {
        Holder::new(&self.open, self.link.peer)
    }

    /// Waits until there is a decision. Cancel safe.
    pub(super) async fn decision(&mut self) -> Decision {
        select! {
            () = sleep_until(self.deadline) => Decision::ProbeOver,
            goodbye = self.link.given_up() => Decision::GaveUp(goodbye),
        }
    }

    /// The refusal for a further laptop that wants a session while `holder` has it.
    pub(super) fn busy(&self, holder: &Holder) -> Goodbye {
        let text = format!(
            "another start of gh-net, by {}, is already waiting for the session of {holder}; try again in a few seconds",
            self.name()
        );
        Goodbye { reason: Reason::Busy, text }
    }
}
