//! Which client has how many connections and unread answers, and whose give way.
//!
//! If there are too many connections, one of the client with most of them gives way: among those that do not wait for an
//! answer, or else among all, the one of which nothing was read or written for longest. If clients read too little, the
//! connection with most unread bytes, of the client with most, is ended. So a client displaces its own.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use tokio::time::Instant;

/// Maximum number of connections, and of bytes of answers that they have not read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) connections: usize,
    pub(super) unread: usize,
}

/// See the [module](self). Clones share one.
#[derive(Debug, Clone)]
pub(super) struct Table {
    limits: Limits,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    connections: HashMap<u64, Connection>,
    /// Bytes of all.
    unread: usize,
}

#[derive(Debug)]
struct Connection {
    client: IpAddr,
    activity: Activity,
    unread: usize,
    /// Dropped when it has to end.
    _keep: oneshot::Sender<()>,
}

/// What a connection does. The least gives way to another one of its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Activity {
    /// Whether it only waits for answers.
    pub(super) waits: bool,
    /// When something was last read or written.
    pub(super) last: Instant,
}

impl Table {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, state: Arc::default() }
    }

    /// A place for a connection, and when it is lost to another one.
    pub(super) fn enter(&self, client: IpAddr) -> (Place, Lost) {
        let (keep, lost) = oneshot::channel();
        let mut state = self.state();
        if state.connections.len() >= self.limits.connections {
            state.give_way();
        }
        state.next += 1;
        let number = state.next;
        let activity = Activity { waits: false, last: Instant::now() };
        state.connections.insert(number, Connection { client, activity, unread: 0, _keep: keep });
        (Place { table: self.clone(), number }, Lost(lost))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn give_way(&mut self) {
        let Some(client) = self.client_with_most(|_| 1) else { return };
        let of_client = self.connections.iter().filter(|(_, connection)| connection.client == client);
        let least = of_client.min_by_key(|(_, connection)| connection.activity).map(|(number, _)| *number);
        least.into_iter().for_each(|number| self.remove(number));
    }

    /// Ends connections until no more than `most` bytes are unread.
    fn end_unread(&mut self, most: usize) {
        while self.unread > most {
            let Some(client) = self.client_with_most(|connection| connection.unread) else { return };
            let of_client = self.connections.iter().filter(|(_, connection)| connection.client == client);
            let longest =
                of_client.max_by_key(|(_, connection)| connection.unread).map(|(number, _)| *number);
            longest.into_iter().for_each(|number| self.remove(number));
        }
    }

    fn client_with_most(&self, count: impl Fn(&Connection) -> usize) -> Option<IpAddr> {
        let mut counts = HashMap::<IpAddr, usize>::new();
        for connection in self.connections.values() {
            *counts.entry(connection.client).or_default() += count(connection);
        }
        counts.into_iter().max_by_key(|(_, count)| *count).map(|(client, _)| client)
    }

    fn remove(&mut self, number: u64) {
        if let Some(connection) = self.connections.remove(&number) {
            self.unread -= connection.unread;
        }
    }
}

/// A connection's place. Dropping it gives it back.
#[derive(Debug)]
pub(super) struct Place {
    table: Table,
    number: u64,
}

impl Place {
    /// What the connection does now, and how many bytes of its answers are not read.
    pub(super) fn note(&self, activity: Activity, unread: usize) {
        let mut state = self.table.state();
        let Some(connection) = state.connections.get_mut(&self.number) else { return };
        connection.activity = activity;
        let before = std::mem::replace(&mut connection.unread, unread);
        state.unread = state.unread + unread - before;
        state.end_unread(self.table.limits.unread);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.table.state().remove(self.number);
    }
}

/// The loss of a place.
#[derive(Debug)]
pub(super) struct Lost(oneshot::Receiver<()>);

impl Lost {
    /// Returns once the connection has to end.
    pub(super) async fn wait(self) {
        // Nothing is ever sent.
        let _ = self.0.await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { connections: 8, unread: 1000 };

    fn client(number: u8) -> IpAddr {
        [10, 0, 0, number].into()
    }

    fn has((_, lost): &mut (Place, Lost)) -> bool {
        lost.0.try_recv() == Err(oneshot::error::TryRecvError::Empty)
    }

    fn note((place, _): &(Place, Lost), waits: bool, unread: usize) {
        place.note(Activity { waits, last: Instant::now() }, unread);
    }

    #[test]
    fn a_client_that_reads_nothing_loses_its_own_connections() {
        let table = Table::new(LIMITS);
        let mut other = table.enter(client(1));
        note(&other, false, 400);
        let mut flood = [300, 250, 200].map(|unread| {
            let place = table.enter(client(2));
            note(&place, false, unread);
            place
        });
        assert!(has(&mut other), "although it has more than each of the others");
        assert_eq!(flood.each_mut().map(has), [false, true, true]);
        note(&flood[2], false, 0);
        note(&flood[1], false, 600);
        assert!(has(&mut other) && flood.iter_mut().skip(1).all(has));
        note(&other, false, 900);
        assert_eq!((has(&mut other), has(&mut flood[1])), (false, true));
        drop((other, flood));
        assert!(table.state().connections.is_empty() && table.state().unread == 0);
    }

    #[test]
    fn a_client_with_many_connections_loses_its_own() {
        let table = Table::new(LIMITS);
        let mut idle = table.enter(client(1));
        let mut flood: Vec<_> = (0..50)
            .map(|_| {
                let place = table.enter(client(2));
                note(&place, true, 0);
                place
            })
            .collect();
        assert!(has(&mut idle));
        assert_eq!(flood.iter_mut().filter_map(|place| has(place).then_some(())).count(), 7);
        assert!(flood.last_mut().is_some_and(has));
    }
}
