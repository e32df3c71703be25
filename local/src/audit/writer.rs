//! The thread that writes an audit.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::time::SystemTime;

use super::entry::{Entry, encode};
use super::recorder::{Message, Shared};

/// Bytes that are written at once.
const BATCH: usize = 64 * 1024;

/// What takes lines.
pub(super) trait Sink {
    /// Appends whole lines. If that fails, none of them counts as written.
    fn append(&mut self, lines: &[u8]) -> io::Result<()>;
}

/// See the [module's documentation](self).
#[derive(Debug)]
pub(super) struct Writer<S> {
    sink: S,
    /// Lines that are missing and were not yet told.
    missing: u64,
    failing: bool,
}

impl<S: Sink> Writer<S> {
    pub(super) fn new(sink: S) -> Self {
        Self { sink, missing: 0, failing: false }
    }

    #[cfg(test)]
    pub(super) fn sink_mut(&mut self) -> &mut S {
        &mut self.sink
    }

    /// Writes until the end.
    pub(super) fn run(&mut self, receiver: &Receiver<Message>, shared: &Shared) {
        let mut ended = false;
        while !ended {
            let Ok(first) = receiver.recv() else { return };
            let (mut lines, mut count) = (Vec::new(), 0);
            for message in std::iter::once(first).chain(receiver.try_iter()) {
                match message {
                    Message::Entry(entry) => {
                        encode(entry.0, &entry.1, &mut lines);
                        count += 1;
                    }
                    Message::End => ended = true,
                }
                if ended || lines.len() >= BATCH {
                    break;
                }
            }
            self.write(&lines, count, shared);
        }
    }

    /// Writes lines, after one that tells what is missing before them.
    pub(super) fn write(&mut self, lines: &[u8], count: u64, shared: &Shared) {
        self.missing += shared.missed.swap(0, Ordering::Relaxed);
        let mut all = Vec::new();
        if self.missing > 0 {
            encode(SystemTime::now(), &Entry::Lost { count: self.missing }, &mut all);
        }
        all.extend_from_slice(lines);
        if all.is_empty() {
            return;
        }
        match self.sink.append(&all) {
            Ok(()) => {
                if std::mem::take(&mut self.failing) {
                    tracing::info!("the audit file is written again; {} entries are missing", self.missing);
                }
                self.missing = 0;
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!("the audit file can't be written, so entries are missing in it: {error}");
                }
                self.missing += count;
                shared.lost.fetch_add(count, Ordering::Relaxed);
            }
        }
    }
}
