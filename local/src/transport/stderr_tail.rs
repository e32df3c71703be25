//! The stderr of a connection's processes, shown to the user once. Until the session is open, the last lines are kept for the
//! error message in case it never opens; from then on, lines are logged as they arrive and not kept.
//!
//! The remote side is not trusted: the length and the number of lines are bounded, and control characters are replaced.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gh_net_common::hello::printable;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// The longest line in bytes; longer ones are split.
const MAX_LINE: usize = 2048;
/// How many lines are kept.
const MAX_LINES: usize = 20;
/// How long to wait for the end of stderr once the process has ended: a process that it left behind may hold it open.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(500);

/// The last lines of the stderr of one or several processes.
#[derive(Debug, Clone, Default)]
pub(super) struct StderrTail(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    lines: Mutex<VecDeque<String>>,
    readers: Mutex<Vec<JoinHandle<()>>>,
    session_is_open: AtomicBool,
}

/// Ignores poisoning: nothing panics while holding one of these locks, and the lines would be valid anyway.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl StderrTail {
    /// Reads `stream` until it ends, and calls `on_line` with each line.
    pub(super) fn read<R, F>(&self, stream: R, mut on_line: F)
    where
        R: AsyncRead + Send + Unpin + 'static,
        F: FnMut(&str) + Send + 'static,
    {
        let tail = self.clone();
        let reader = tokio::spawn(async move {
            let mut handle = |line: &str| {
                on_line(line);
                if !tail.is_open() {
                    tail.keep(line.to_owned());
                }
            };
            for_each_line(stream, &mut handle).await;
        });
        locked(&self.0.readers).push(reader);
    }

    /// Reads the stderr of a remote command. Only its first lines are shown to the user.
    pub(super) fn read_remote<R: AsyncRead + Send + Unpin + 'static>(&self, stream: R) {
        const SHOWN: usize = 100;
        let (tail, mut count) = (self.clone(), 0);
        self.read(stream, move |line| {
            if tail.is_open() && count < SHOWN {
                count += 1;
                tracing::info!("codespace: {line}");
            } else {
                tracing::debug!("codespace: {line}");
            }
        });
    }

    /// The session is open: forgets what was kept, and logs from now on.
    pub(super) fn opened(&self) {
        self.0.session_is_open.store(true, Ordering::Relaxed);
        self.clear();
    }

    fn is_open(&self) -> bool {
        self.0.session_is_open.load(Ordering::Relaxed)
    }

    fn keep(&self, line: String) {
        let mut lines = locked(&self.0.lines);
        if lines.len() == MAX_LINES {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    /// Forgets the lines that were kept.
    pub(super) fn clear(&self) {
        locked(&self.0.lines).clear();
    }

    /// The lines kept so far.
    pub(super) fn so_far(&self) -> String {
        Vec::from(locked(&self.0.lines).clone()).join("\n")
    }

    /// The lines that are kept once every stream has ended. Cancel safe.
    pub(super) async fn complete(&self) -> String {
        let finished = async {
            loop {
                let Some(mut reader) = locked(&self.0.readers).pop() else { return };
                if timeout(DRAIN_TIMEOUT, &mut reader).await.is_err() {
                    return;
                }
            }
        };
        finished.await;
        self.so_far()
    }
}

async fn for_each_line<R: AsyncRead + Unpin>(mut stream: R, handle: &mut (dyn FnMut(&str) + Send)) {
    let mut buffer = Vec::with_capacity(MAX_LINE);
    let mut emit = |bytes: &[u8]| {
        let text = printable(String::from_utf8_lossy(bytes).trim_end());
        if !text.trim().is_empty() {
            handle(&text);
        }
    };
    loop {
        let room = (MAX_LINE - buffer.len()) as u64;
        match (&mut stream).take(room).read_buf(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
        while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            emit(&buffer[..end]);
            buffer.drain(..=end);
        }
        if buffer.len() == MAX_LINE {
            emit(&buffer);
            buffer.clear();
        }
    }
    emit(&buffer);
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn the_last_lines_are_kept_without_control_characters() {
        let mut text: String = (0..1000).map(|n| format!("line {n}\r\n")).collect();
        text.push_str("\n\x1b[2Jthe end");
        let tail = StderrTail::default();
        tail.read(std::io::Cursor::new(text.into_bytes()), |_| {});
        let kept = tail.complete().await;
        assert_eq!(kept.lines().count(), MAX_LINES);
        assert!(kept.starts_with("line 981\n"), "{kept}");
        assert!(kept.ends_with("line 999\n\u{fffd}[2Jthe end"), "{kept:?}");
    }

    #[tokio::test]
    async fn lines_of_an_open_session_are_not_kept() {
        let (mut near, far) = tokio::io::duplex(64);
        let tail = StderrTail::default();
        tail.read(far, |_| {});
        near.write_all(b"a banner\n").await.unwrap();
        while tail.so_far().is_empty() {
            tokio::task::yield_now().await;
        }
        tail.opened();
        near.write_all(b"a message\n").await.unwrap();
        drop(near);
        assert_eq!(tail.complete().await, "");
    }

    #[tokio::test]
    async fn an_endless_line_is_split() {
        let tail = StderrTail::default();
        tail.read(std::io::Cursor::new(vec![b'x'; 10 * 1024 * 1024]), |_| {});
        assert!(tail.complete().await.len() <= MAX_LINES * (MAX_LINE + 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_stays_open_does_not_delay_the_end() {
        let (near, far) = tokio::io::duplex(64);
        let tail = StderrTail::default();
        tail.read(far, |_| {});
        assert_eq!(tail.complete().await, "");
        drop(near);
    }
}
