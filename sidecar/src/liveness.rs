//! What is known of the link to the laptop, for parts of the sidecar that do not own it. The session writes it with a
//! [`LinkMonitor`], others read it with a [`LinkWatch`].

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;

/// Whether packets reach the laptop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Liveness {
    /// There is a link. It may be dead without anyone having noticed: see [`LinkWatch::heard`].
    Up,
    /// There is a link on which nothing passes, so that the codespace may fall asleep. A packet wakes it.
    Quiet,
    /// There is no link.
    Down,
}

/// The link that a session has at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    liveness: Liveness,
    /// How many links the session has had: a new link may replace one that is half open.
    number: u64,
}

/// Counts how often something arrived from the laptop, over all links of a session.
#[derive(Debug, Clone, Default)]
pub(crate) struct Heard(Arc<AtomicU64>);

impl Heard {
    /// Something arrived.
    pub(crate) fn count(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// The end of the one who owns the link.
#[derive(Debug)]
pub(crate) struct LinkMonitor {
    state: watch::Sender<State>,
    heard: Heard,
}

impl LinkMonitor {
    /// There is no link yet.
    pub(crate) fn new() -> Self {
        let state = State { liveness: Liveness::Down, number: 0 };
        Self { state: watch::Sender::new(state), heard: Heard::default() }
    }

    /// A new link is up, in place of an earlier one or not. Returns the counter of what it brings.
    pub(crate) fn connected(&self) -> Heard {
        self.heard.count();
        self.state.send_modify(|state| *state = State { liveness: Liveness::Up, number: state.number + 1 });
        self.heard.clone()
    }

    /// The state of the present link changed.
    pub(crate) fn set(&self, liveness: Liveness) {
        self.state.send_modify(|state| state.liveness = liveness);
    }

    /// An end for a reader.
    pub(crate) fn watch(&self) -> LinkWatch {
        LinkWatch { state: self.state.subscribe(), heard: self.heard.clone() }
    }
}

/// A reader's end.
#[derive(Debug, Clone)]
pub(crate) struct LinkWatch {
    state: watch::Receiver<State>,
    heard: Heard,
}

impl LinkWatch {
    pub(crate) fn liveness(&self) -> Liveness {
        self.state.borrow().liveness
    }

    /// The number of the present link, or of the last one.
    pub(crate) fn number(&self) -> u64 {
        self.state.borrow().number
    }

    /// How often something arrived from the laptop so far. While this does not change, nothing arrives.
    pub(crate) fn heard(&self) -> u64 {
        self.heard.0.load(Ordering::Relaxed)
    }

    /// Waits until there is a link. Returns its number.
    pub(crate) async fn up(&self) -> u64 {
        self.wait_for(|state| state.liveness != Liveness::Down).await.number
    }

    /// Waits until this link is lost or replaced.
    pub(crate) async fn gone(&self, number: u64) {
        self.wait_for(|state| state.liveness == Liveness::Down || state.number != number).await;
    }

    /// Without a session, waits for ever: its readers end with it.
    async fn wait_for(&self, wanted: impl FnMut(&State) -> bool) -> State {
        let mut state = self.state.clone();
        let found = state.wait_for(wanted).await.map(|state| *state);
        match found {
            Ok(state) => state,
            Err(_) => pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_link_that_replaces_another_is_noticed() {
        let monitor = LinkMonitor::new();
        let watch = monitor.watch();
        monitor.connected();
        let first = watch.up().await;
        let gone = watch.gone(first);
        tokio::pin!(gone);
        timeout(Duration::from_secs(1), &mut gone).await.unwrap_err();
        monitor.set(Liveness::Quiet);
        timeout(Duration::from_secs(1), &mut gone).await.unwrap_err();
        monitor.connected();
        gone.await;
        assert_ne!(watch.up().await, first);
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_link_counts_as_a_sign_of_life() {
        let monitor = LinkMonitor::new();
        let watch = monitor.watch();
        let before = watch.heard();
        let heard = monitor.connected();
        let connected = watch.heard();
        assert_ne!(connected, before);
        heard.count();
        assert_ne!(watch.heard(), connected);
    }
}
