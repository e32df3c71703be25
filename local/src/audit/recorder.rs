//! The way of entries to the thread that writes them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use super::denials::Denials;
use super::entry::Entry;

/// An entry and its time.
pub(super) type Stamped = (SystemTime, Entry);

/// A message to the thread.
#[derive(Debug)]
pub(super) enum Message {
    Entry(Box<Stamped>),
    End,
}

/// Records entries. Cheap to clone; nothing blocks.
#[derive(Debug, Clone)]
pub struct Recorder {
    pub(super) sender: SyncSender<Message>,
    pub(super) shared: Arc<Shared>,
    denials: Arc<Mutex<Denials>>,
}

/// Counters that both sides use.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Lines that found the channel full, and events that never became one.
    pub(super) missed: AtomicU64,
    /// Lines that were lost in all.
    pub(super) lost: AtomicU64,
}

impl Recorder {
    pub(super) fn new(sender: SyncSender<Message>) -> Self {
        let denials = Arc::new(Mutex::new(Denials::new()));
        Self { sender, shared: Arc::default(), denials }
    }

    /// Records an entry at this time. Of refused flows, only as many as there is [room](Denials) for.
    pub fn record(&self, entry: Entry) {
        let entries =
            self.denials.lock().unwrap_or_else(PoisonError::into_inner).admit(entry, Instant::now());
        entries.for_each(|entry| self.send(entry));
    }

    fn send(&self, entry: Entry) {
        let message = Message::Entry(Box::new((SystemTime::now(), entry)));
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = self.sender.try_send(message) {
            self.missed(1);
        }
    }

    /// These many entries can't be recorded.
    pub fn missed(&self, count: u64) {
        self.shared.missed.fetch_add(count, Ordering::Relaxed);
        self.shared.lost.fetch_add(count, Ordering::Relaxed);
    }

    /// How many entries are lost.
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }
}
