//! What processes say on stderr, said to the user once: until the session is open the last lines are kept for the
//! message that there is none, from then on they are news and logged as they come.
//!
//! The other side is not trusted: a line and the whole are bounded, and control characters are replaced.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gh_net_common::hello::printable;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// The longest line that is kept in one piece, in bytes.
const MAX_LINE: usize = 2048;
/// How many lines are kept.
const KEPT: usize = 20;
/// How long to wait for the end of stderr once the process has ended. A process it has left behind may hold it
/// open.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// The last lines of one or several streams.
#[derive(Debug, Clone, Default)]
pub(super) struct Said(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    lines: Mutex<VecDeque<String>>,
    listeners: Mutex<Vec<JoinHandle<()>>>,
    open: AtomicBool,
}

/// No panic can happen while one of these locks is held, and if one did, the lines would still be lines.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Said {
    /// Listens to `stream` until it ends. `tell` is called with each line.
    pub(super) fn listen<R, F>(&self, stream: R, mut tell: F)
    where
        R: AsyncRead + Send + Unpin + 'static,
        F: FnMut(&str) + Send + 'static,
    {
        let said = self.clone();
        let listener = tokio::spawn(async move {
            let mut keep = |line: &str| {
                tell(line);
                if !said.is_news() {
                    said.keep(line.to_owned());
                }
            };
            lines(stream, &mut keep).await;
        });
        locked(&self.0.listeners).push(listener);
    }

    /// Listens to a remote command. A flood of its lines is not for the user's eyes.
    pub(super) fn listen_remote<R: AsyncRead + Send + Unpin + 'static>(&self, stream: R) {
        const SHOWN: usize = 100;
        let (said, mut count) = (self.clone(), 0);
        self.listen(stream, move |line| {
            if said.is_news() && count < SHOWN {
                count += 1;
                tracing::info!("over there: {line}");
            } else {
                tracing::debug!("over there: {line}");
            }
        });
    }

    /// The session is open: what has been said is of no interest any more, and what follows is news.
    pub(super) fn opened(&self) {
        self.0.open.store(true, Ordering::Relaxed);
        self.clear();
    }

    fn is_news(&self) -> bool {
        self.0.open.load(Ordering::Relaxed)
    }

    fn keep(&self, line: String) {
        let mut lines = locked(&self.0.lines);
        if lines.len() == KEPT {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    /// Forgets what has been said.
    pub(super) fn clear(&self) {
        locked(&self.0.lines).clear();
    }

    /// What has been said so far.
    pub(super) fn so_far(&self) -> String {
        Vec::from(locked(&self.0.lines).clone()).join("\n")
    }

    /// What has been said, once every stream has ended. Cancel safe.
    pub(super) async fn complete(&self) -> String {
        let finished = async {
            loop {
                let Some(mut listener) = locked(&self.0.listeners).pop() else { return };
                if timeout(LAST_WORDS, &mut listener).await.is_err() {
                    return;
                }
            }
        };
        finished.await;
        self.so_far()
    }
}

async fn lines<R: AsyncRead + Unpin>(mut stream: R, keep: &mut (dyn FnMut(&str) + Send)) {
    let mut buffer = Vec::with_capacity(MAX_LINE);
    let mut tell = |bytes: &[u8]| {
        let text = printable(String::from_utf8_lossy(bytes).trim_end());
        if !text.trim().is_empty() {
            keep(&text);
        }
    };
    loop {
        let room = (MAX_LINE - buffer.len()) as u64;
        match (&mut stream).take(room).read_buf(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
        while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            tell(&buffer[..end]);
            buffer.drain(..=end);
        }
        if buffer.len() == MAX_LINE {
            tell(&buffer);
            buffer.clear();
        }
    }
    tell(&buffer);
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn the_last_lines_are_kept_and_made_harmless() {
        let mut text: String = (0..1000).map(|n| format!("line {n}\r\n")).collect();
        text.push_str("\n\x1b[2Jthe end");
        let said = Said::default();
        said.listen(std::io::Cursor::new(text.into_bytes()), |_| {});
        let words = said.complete().await;
        assert_eq!(words.lines().count(), KEPT);
        assert!(words.starts_with("line 981\n"), "{words}");
        assert!(words.ends_with("line 999\n\u{fffd}[2Jthe end"), "{words:?}");
    }

    #[tokio::test]
    async fn what_is_news_is_not_said_again_at_the_end() {
        let (mut near, far) = tokio::io::duplex(64);
        let said = Said::default();
        said.listen(far, |_| {});
        near.write_all(b"a banner\n").await.unwrap();
        while said.so_far().is_empty() {
            tokio::task::yield_now().await;
        }
        said.opened();
        near.write_all(b"news\n").await.unwrap();
        drop(near);
        assert_eq!(said.complete().await, "");
    }

    #[tokio::test]
    async fn an_endless_line_is_cut_into_pieces() {
        let said = Said::default();
        said.listen(std::io::Cursor::new(vec![b'x'; 10 * 1024 * 1024]), |_| {});
        assert!(said.complete().await.len() <= KEPT * (MAX_LINE + 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_stays_open_does_not_hold_up_the_end() {
        let (near, far) = tokio::io::duplex(64);
        let said = Said::default();
        said.listen(far, |_| {});
        assert_eq!(said.complete().await, "");
        drop(near);
    }
}
