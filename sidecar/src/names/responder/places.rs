//! Places for questions that wait, shared like turns ([`gh_net_common::turns`]) except that nobody waits for a place: if
//! there are too many, one gives way. It is the oldest of those that share the most: the client with most of them, its
//! domain with most, and its zone with most.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use gh_net_common::turns::{Group, Shares};
use tokio::sync::oneshot;

/// Who asks for what: the client, the domain, and the zone.
type Asker = [u64; 3];

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Places {
    most: usize,
    hasher: RandomState,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// The sender is dropped when the place is lost.
    taken: HashMap<u64, (Asker, oneshot::Sender<()>)>,
    shares: Shares<3>,
}

impl Places {
    pub(super) fn new(most: usize) -> Self {
        Self { most, hasher: RandomState::new(), state: Mutex::default() }
    }

    /// A place, which another question may take away later.
    pub(super) fn take(&self, client: IpAddr, name: Group) -> Place<'_> {
        let asker = [
            self.hasher.hash_one(client),
            self.hasher.hash_one((client, name.domain())),
            self.hasher.hash_one((client, name.zone())),
        ];
        let mut state = self.state();
        let (number, lost) = state.add(asker);
        if state.taken.len() > self.most
            && let Some(number) = state.shares.gives_way()
        {
            state.remove(number);
        }
        Place { places: self, number, lost }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn add(&mut self, asker: Asker) -> (u64, oneshot::Receiver<()>) {
        self.next += 1;
        let (keep, lost) = oneshot::channel();
        self.taken.insert(self.next, (asker, keep));
        self.shares.add(asker, self.next);
        (self.next, lost)
    }

    fn remove(&mut self, number: u64) {
        if let Some((asker, _)) = self.taken.remove(&number) {
            self.shares.remove(asker, number);
        }
    }
}

/// A place. Dropping it gives it back.
#[derive(Debug)]
pub(super) struct Place<'a> {
    places: &'a Places,
    number: u64,
    lost: oneshot::Receiver<()>,
}

impl Place<'_> {
    /// Returns once another question has taken the place.
    pub(super) async fn lost(&mut self) {
        // Nothing is ever sent.
        let _ = (&mut self.lost).await;
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.places.state().remove(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(number: u8) -> IpAddr {
        [10, 0, 0, number].into()
    }

    fn name(text: &str) -> Group {
        Group::of_name(&text.split('.').collect::<Vec<_>>())
    }

    fn has(place: &mut Place<'_>) -> bool {
        place.lost.try_recv() == Err(oneshot::error::TryRecvError::Empty)
    }

    #[test]
    fn a_flood_displaces_its_own_and_the_newest_has_a_place() {
        let floods: [fn(u32) -> String; 2] =
            [|number| format!("host{number}.dead.corp"), |number| format!("www.zone{number}.dead.corp")];
        for flood in floods {
            let places = Places::new(10);
            let mut others = ["www.lan", "www.intern.example"].map(|text| places.take(client(1), name(text)));
            let mut flood: Vec<_> =
                (0..50).map(|number| places.take(client(1), name(&flood(number)))).collect();
            assert!(others.iter_mut().all(has));
            assert_eq!(flood.iter_mut().filter_map(|place| has(place).then_some(())).count(), 8);
            assert!(flood.last_mut().is_some_and(has));
        }
    }

    #[test]
    fn a_client_that_makes_up_domains_displaces_its_own() {
        let places = Places::new(10);
        let mut other = places.take(client(2), name("www.dead0.corp"));
        let _flood: Vec<_> =
            (0..50).map(|number| places.take(client(1), name(&format!("www.dead{number}.corp")))).collect();
        assert!(has(&mut other));
    }

    #[test]
    fn places_that_are_given_back_leave_nothing_behind() {
        let places = Places::new(3);
        let taken: Vec<_> = (0..9).map(|number| places.take(client(number), name("www.corp"))).collect();
        drop(taken);
        let state = places.state();
        assert!(state.taken.is_empty() && state.shares.is_empty());
    }
}
