//! `--audit`: what the codespace reached or was refused, as JSON lines in a file. docs/audit.md describes them.
//!
//! io must never wait for a disk, so a thread of its own writes. Lines wait for it in a bounded channel; those that find
//! it full, or that the disk does not take, are counted, and the next line that is written says how many are missing.
//! Refused flows get lines at a bounded rate (`denials.rs`); all others get theirs.

mod denials;
mod entry;
mod file;
mod recorder;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TrySendError, channel, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

pub use entry::{Ended, Entry, Flow, FlowId, SCHEMA, Verdict};
use file::AuditFile;
pub use file::{Error, KEPT, MAX_SIZE};
use recorder::Message;
pub use recorder::Recorder;
use writer::Writer;

/// Lines that may wait for the disk: as many as the engine may tell of at once, when all its flows end. Some 8 MiB.
const WAITING: usize = 16 * 1024;
/// How long the end of a session waits for the disk.
const FLUSH: Duration = Duration::from_secs(5);
/// How often a full channel is tried again at the end.
const RETRY: Duration = Duration::from_millis(10);

/// The audit of a session. When it is dropped, what waits is written, within a bounded time.
#[derive(Debug)]
pub struct Audit {
    recorder: Recorder,
    done: Receiver<()>,
}

impl Audit {
    /// Begins to write to `path`.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn open(path: &Path) -> Result<Self, Error> {
        let mut writer = Writer::new(AuditFile::open(path)?);
        let (sender, receiver) = sync_channel(WAITING);
        let (finished, done) = channel();
        let recorder = Recorder::new(sender);
        let shared = Arc::clone(&recorder.shared);
        let run = move || {
            writer.run(&receiver, &shared);
            // The session may have stopped waiting.
            let _ = finished.send(());
        };
        thread::Builder::new().name("audit".to_owned()).spawn(run).map_err(Error::Thread)?;
        Ok(Self { recorder, done })
    }

    /// Records entries for this audit.
    pub fn recorder(&self) -> &Recorder {
        &self.recorder
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        let until = Instant::now() + FLUSH;
        while let Err(TrySendError::Full(_)) = self.recorder.sender.try_send(Message::End) {
            if Instant::now() >= until {
                break;
            }
            thread::sleep(RETRY);
        }
        let left = until.saturating_duration_since(Instant::now());
        if let Err(RecvTimeoutError::Timeout) = self.done.recv_timeout(left) {
            tracing::warn!("the audit file does not take the last lines within {} s", FLUSH.as_secs());
        }
    }
}

#[cfg(test)]
mod tests;
