//! Turns at something scarce, such as the places for questions to a name server, shared so that nobody starves.
//!
//! Who wants a turn belongs to a [`Group`], and to a part of it: for names, a domain and a zone in it. While there are
//! free turns, whoever comes gets one. When all are taken, others wait, and
//!
//! - a turn that becomes free goes to the group, and in it to the part, that has the fewest;
//! - a turn that has lasted for [`Limits::evict_after`] is taken from the part with the most, if whoever waits has fewer:
//!   so what never ends holds up nobody else, however many groups are made up;
//! - groups that were served lately go before others that have no more than they, and [`Limits::reserved`] turns are for
//!   them alone;
//! - if too many parts wait, one of the group with the most is refused in favour of another group;
//! - a part that was in vain [`IN_VAIN`] times in a row gets one turn at a time, and all else of it is refused at once,
//!   until one is answered or [`HELD_DOWN`] has passed;
//! - a name that was served lately is not refused for its part, and goes before others of it: so a program that makes up
//!   names, and has a part look dead, does not keep others from the names that it serves. An answer
//!   that a name does not exist does not count: otherwise made-up names would count as served.
//!
//! Nobody looks at intervals: a turn may become too long only as time passes, and then it says so itself.

mod names;
mod records;
mod shares;
mod state;
mod types;
mod waiting;

use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

pub use shares::Shares;
use state::{Entry, State};
pub use state::{HELD_DOWN, IN_VAIN};
use types::Ticket;
pub use types::{Group, Limits, Outcome, Refused};

type Grant = state::Grant<Turn>;

/// See the [module's documentation](self).
#[derive(Debug)]
pub struct Turns {
    state: Mutex<State<Turn>>,
}

impl Turns {
    /// All turns are free.
    #[must_use]
    pub fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State::new(limits)) })
    }

    /// A turn for `group`, once there is one. Dropping the future gives the place up.
    ///
    /// # Errors
    /// There will be none.
    pub async fn take(self: &Arc<Self>, group: Group) -> Result<Turn, Refused> {
        let entry = self.state().enter(group, Instant::now());
        let (ticket, turn) = match entry {
            Entry::Turn(grant) => return Ok(self.turn(grant)),
            Entry::Refused(refused) => return Err(refused),
            Entry::Waiting(ticket, turn) => (ticket, turn),
        };
        let _place = Place { turns: self, ticket };
        turn.await.map_err(|_| self.state().refusal(group, Instant::now()))
    }

    /// Forgets who was served and who was in vain, because what serves them has changed.
    pub fn forget(&self) {
        self.state().forget();
    }

    fn turn(self: &Arc<Self>, Grant { ticket, group, overdue, evicted, .. }: Grant) -> Turn {
        Turn { turns: Arc::clone(self), ticket, group, overdue, evicted }
    }

    /// Outside of the lock: a turn that nobody waits for any more comes back.
    fn hand_out(self: &Arc<Self>, grants: Vec<Grant>) {
        for mut grant in grants {
            let taker = grant.taker.take();
            let turn = self.turn(grant);
            if let Some(taker) = taker {
                let _back = taker.send(turn);
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State<Turn>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of one who waits.
struct Place<'a> {
    turns: &'a Turns,
    ticket: Ticket,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.turns.state().leave(self.ticket);
    }
}

/// A turn. Dropping it gives it back, without a word on how it went.
#[derive(Debug)]
pub struct Turn {
    turns: Arc<Turns>,
    ticket: Ticket,
    group: Group,
    overdue: Option<Instant>,
    evicted: oneshot::Receiver<()>,
}

impl Turn {
    /// Does `work`, which says how it went. `None` if the turn was taken away.
    pub async fn run<T>(mut self, work: impl Future<Output = (Outcome, T)>) -> Option<T> {
        let overdue = until(self.overdue.take());
        tokio::pin!(work, overdue);
        let mut is_overdue = false;
        loop {
            tokio::select! {
                biased;
                (outcome, result) = &mut work => {
                    self.end(outcome);
                    return Some(result);
                }
                _ = &mut self.evicted => return None,
                () = &mut overdue, if !is_overdue => {
                    is_overdue = true;
                    self.turns.state().make_room(Instant::now());
                }
            }
        }
    }

    /// Gives it back, and says how it went.
    pub fn end(self, outcome: Outcome) {
        self.turns.state().record(self.group, outcome, Instant::now());
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let grants = self.turns.state().release(self.ticket, self.group, Instant::now());
        self.turns.hand_out(grants);
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests;
