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
//!   until one is served or [`HELD_DOWN`] has passed.

mod state;

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use state::{Entry, Grant, State, Ticket};
pub use state::{HELD_DOWN, IN_VAIN};

/// Interval at which those who wait look for a turn that has lasted too long.
const LOOK: Duration = Duration::from_millis(100);

/// The bounds of [`Turns`].
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Turns at a time.
    pub turns: usize,
    /// How many of them one group may have.
    pub per_group: usize,
    /// How many of them are only for parts that were served lately.
    pub reserved: usize,
    /// How many may wait.
    pub waiting: usize,
    /// A turn of a busy group may be taken away after this time; `None` where work can't be ended.
    pub evict_after: Option<Duration>,
    /// Whether parts that are in vain are held down.
    pub hold_down: bool,
}

/// Who wants a turn. Keyed hashes stand for the names, so that a group costs the same whatever its name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Group {
    pub(self) whole: u64,
    pub(self) part: u64,
}

impl Group {
    /// The part `part` of the group `whole`.
    pub fn new(whole: impl Hash, part: impl Hash) -> Self {
        static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        let whole = KEY.hash_one(whole);
        Self { whole, part: KEY.hash_one((whole, part)) }
    }

    /// The group of a domain name, given by its labels in lower case. Its last two labels are the group: in most domains
    /// these have one owner. Where they have several (`co.uk`), the zones in it still share fairly. The part is the name
    /// without its first label, which for most names is the zone.
    pub fn of_name<L: AsRef<[u8]> + Hash>(labels: &[L]) -> Self {
        let owner = &labels[labels.len().saturating_sub(2)..];
        let zone = if labels.len() > 2 { &labels[1..] } else { labels };
        Self::new(owner, zone)
    }
}

/// Why there is no turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Its part was in vain too often.
    InVain,
    /// Too many wait.
    Crowded,
}

/// See the [module's documentation](self).
#[derive(Debug)]
pub struct Turns {
    state: Mutex<State>,
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
        let (ticket, mut turn) = match entry {
            Entry::Turn(grant) => return Ok(self.turn(grant)),
            Entry::Refused(refused) => return Err(refused),
            Entry::Waiting(ticket, turn) => (ticket, turn),
        };
        let _place = Place { turns: self, ticket };
        loop {
            tokio::select! {
                turn = &mut turn => return turn.map_err(|_| self.state().refusal(group, Instant::now())),
                () = sleep(LOOK) => self.state().look(Instant::now()),
            }
        }
    }

    /// Forgets who was served and who was in vain, because what serves them has changed.
    pub fn forget(&self) {
        self.state().forget();
    }

    fn turn(self: &Arc<Self>, Grant { ticket, group, evicted, .. }: Grant) -> Turn {
        Turn { turns: Arc::clone(self), ticket, group, evicted }
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

    fn state(&self) -> MutexGuard<'_, State> {
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
    evicted: oneshot::Receiver<()>,
}

impl Turn {
    /// Does `work`, whose result is `None` if it was in vain. `None` also if the turn was taken away.
    pub async fn run<T>(mut self, work: impl Future<Output = Option<T>>) -> Option<T> {
        tokio::select! {
            biased;
            result = work => {
                self.end(result.is_some());
                result
            }
            _ = &mut self.evicted => None,
        }
    }

    /// Gives it back, and says whether it served.
    pub fn end(self, served: bool) {
        self.turns.state().record(self.group, served, Instant::now());
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let grants = self.turns.state().release(self.ticket, self.group, Instant::now());
        self.turns.hand_out(grants);
    }
}

#[cfg(test)]
mod tests;
