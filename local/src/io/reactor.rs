//! Readiness of the flows' sockets.
//!
//! An edge-triggered epoll instance of our own watches the sockets, and tokio's epoll instance watches ours (an
//! epoll descriptor is readable while it has events, epoll(7)). So one task serves thousands of sockets without a
//! task, a waker or a lock for each.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::task::{Context, Poll, ready};

use gh_net_common::sys::ReadyFd;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;

use crate::engine::FlowId;

/// Maximum number of events taken at a time.
const EVENTS: usize = 256;
/// Without waiting.
const NOW: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

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

impl From<EventFlags> for Readiness {
    fn from(flags: EventFlags) -> Self {
        let any = |of: EventFlags| flags.intersects(of | EventFlags::HUP | EventFlags::ERR);
        Self {
            readable: any(EventFlags::IN | EventFlags::PRI),
            writable: any(EventFlags::OUT),
            error: flags.contains(EventFlags::ERR),
            short_reads: flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::PRI),
        }
    }
}

/// Watches the sockets.
#[derive(Debug)]
pub(super) struct Reactor {
    epoll: ReadyFd,
}

impl Reactor {
    /// A reactor that watches nothing yet. Must be called within a tokio runtime.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { epoll: ReadyFd::new(epoll::create(CreateFlags::CLOEXEC)?)? })
    }

    /// Watches `socket` for all events until it is closed. Flow numbers are never reused, so a late event of a closed
    /// socket finds no flow.
    pub(super) fn register(&self, flow: FlowId, socket: &impl AsFd) -> io::Result<()> {
        let all = EventFlags::IN | EventFlags::OUT | EventFlags::PRI | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(self.epoll.get_ref(), socket, EventData::new_u64(flow.0), all)?;
        Ok(())
    }

    /// Calls `note` for each socket with an event. Ready if there were any.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        mut note: impl FnMut(FlowId, Readiness),
    ) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.epoll.poll_read_ready(cx))?;
            let mut room = [MaybeUninit::uninit(); EVENTS];
            let events = match epoll::wait(self.epoll.get_ref(), &mut room, Some(&NOW)) {
                Ok((events, _)) => events,
                Err(Errno::INTR) => continue,
                Err(error) => return Poll::Ready(Err(error.into())),
            };
            if events.len() < EVENTS {
                // All events were taken; the next one makes the descriptor readable again.
                guard.clear_ready();
            }
            if !events.is_empty() {
                events.iter().for_each(|event| note(FlowId(event.data.u64()), event.flags.into()));
                return Poll::Ready(Ok(()));
            }
        }
    }
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
