//! Readiness of the flows' sockets.
//!
//! An edge-triggered epoll instance of our own watches the sockets, and tokio's epoll instance watches ours (an
//! epoll descriptor is readable while it has events, epoll(7)). So one task serves thousands of sockets without a
//! task, a waker or a lock for each.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::task::{Context, Poll};
use std::time::Duration;

use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Events, Interest, Token};
use tokio::io::unix::AsyncFd;

use crate::engine::FlowId;

/// Maximum number of events taken at a time.
const EVENTS: usize = 256;

/// The readiness of a socket since the last call on it returned "would block".
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Readiness {
    /// Data, an end of file or an error can be read.
    pub(super) readable: bool,
    /// Something can be written.
    pub(super) writable: bool,
    /// There is a pending error.
    pub(super) error: bool,
    /// After a short read there may still be something to read: the end of file, or data behind an urgent byte, at
    /// which Linux ends a read.
    pub(super) short_reads: bool,
}

impl Readiness {
    /// Adds the readiness that an event reports.
    pub(super) fn add(&mut self, other: Self) {
        self.readable |= other.readable;
        self.writable |= other.writable;
        self.error |= other.error;
        self.short_reads |= other.short_reads;
    }
}

impl From<&Event> for Readiness {
    fn from(event: &Event) -> Self {
        Self {
            readable: event.is_readable() || event.is_read_closed() || event.is_error(),
            writable: event.is_writable() || event.is_write_closed() || event.is_error(),
            error: event.is_error(),
            short_reads: event.is_read_closed() || event.is_priority(),
        }
    }
}

/// Watches the sockets.
#[derive(Debug)]
pub(super) struct Reactor {
    poll: AsyncFd<mio::Poll>,
    events: Events,
}

impl Reactor {
    /// A reactor that watches nothing yet. Must be called within a tokio runtime.
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: the descriptor belongs to the `mio::Poll`, which keeps it open until it is dropped. The `AsyncFd`
        // owns the `mio::Poll`, which is never taken out of it.
        let poll =
            unsafe { AsyncFd::register_with_interest(mio::Poll::new()?, tokio::io::Interest::READABLE) }?;
        Ok(Self { poll, events: Events::with_capacity(EVENTS) })
    }

    /// Watches `socket` for all events until it is closed.
    pub(super) fn register(&self, flow: FlowId, socket: &impl AsFd) -> io::Result<()> {
        let fd = socket.as_fd().as_raw_fd();
        let interest = Interest::READABLE | Interest::WRITABLE | Interest::PRIORITY;
        self.poll.get_ref().registry().register(&mut SourceFd(&fd), token(flow), interest)
    }

    /// Calls `note` for each socket with an event. Ready if there were any.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        mut note: impl FnMut(FlowId, Readiness),
    ) -> Poll<io::Result<()>> {
        loop {
            let mut guard = std::task::ready!(self.poll.poll_read_ready_mut(cx))?;
            let polled = guard.get_inner_mut().poll(&mut self.events, Some(Duration::ZERO));
            if let Err(error) = polled
                && error.kind() != io::ErrorKind::Interrupted
            {
                return Poll::Ready(Err(error));
            }
            let count = self.events.iter().count();
            if count < EVENTS {
                // All events were taken; the next one makes the descriptor readable again.
                guard.clear_ready();
            }
            if count > 0 {
                self.events.iter().for_each(|event| note(flow(event.token()), Readiness::from(event)));
                return Poll::Ready(Ok(()));
            }
        }
    }
}

/// Flow numbers are never reused, so a late event of a closed socket finds no flow.
fn token(flow: FlowId) -> Token {
    Token(flow.0 as usize)
}

fn flow(token: Token) -> FlowId {
    FlowId(token.0 as u64)
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::net::UdpSocket;

    use super::*;

    #[tokio::test]
    async fn more_sockets_than_one_batch_of_events_are_all_noticed() {
        let mut reactor = Reactor::new().unwrap();
        let sockets: Vec<_> = (0..600)
            .map(|number| {
                let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
                socket.set_nonblocking(true).unwrap();
                reactor.register(FlowId(number), &socket).unwrap();
                socket
            })
            .collect();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        for socket in &sockets {
            sender.send_to(b"x", socket.local_addr().unwrap()).unwrap();
        }
        let mut readable = std::collections::BTreeSet::new();
        while readable.len() < sockets.len() {
            let note = |flow: FlowId, seen: Readiness| {
                if seen.readable {
                    readable.insert(flow);
                }
            };
            let mut note = Some(note);
            poll_fn(|cx| reactor.poll(cx, note.as_mut().unwrap())).await.unwrap();
        }
        sender.send_to(b"y", sockets[7].local_addr().unwrap()).unwrap();
        let mut again = None;
        while again.is_none() {
            poll_fn(|cx| reactor.poll(cx, |flow, seen| again = again.or(seen.readable.then_some(flow))))
                .await
                .unwrap();
        }
        assert_eq!(again, Some(FlowId(7)));
    }
}
