//! Bulk streams between two hosts, counted by their receivers. Both ends are threads of this process, so a rate can be taken
//! at any time, without a stream's beginning and end.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use anyhow::{Context, Result};
use gh_net_lab::Host;

const BLOCK: usize = 128 * 1024;

/// Who sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sender {
    Client,
    Server,
}

/// Streams that send as much as they can until this is dropped.
pub(super) struct Bulk {
    streams: Vec<Stream>,
}

struct Stream {
    /// The receiver's socket.
    socket: TcpStream,
    received: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Bulk {
    /// Connects `count` streams from `client` to `address`, which is on `server`.
    pub(super) fn start(
        client: &Host,
        server: &Host,
        address: Ipv4Addr,
        sender: Sender,
        count: usize,
    ) -> Result<Self> {
        let listener = in_network(server, move || TcpListener::bind((address, 0)))?;
        let port = listener.local_addr()?.port();
        let mut streams = Vec::with_capacity(count);
        for _ in 0..count {
            let connected = in_network(client, move || TcpStream::connect((address, port)));
            let connected = connected.context("connecting a bulk stream")?;
            let (accepted, _) = listener.accept()?;
            streams.push(match sender {
                Sender::Client => Stream::start(connected, accepted)?,
                Sender::Server => Stream::start(accepted, connected)?,
            });
        }
        Ok(Self { streams })
    }

    /// The bytes that each stream has received so far, and when.
    pub(super) fn received(&self) -> Received {
        let counts = self.streams.iter().map(|stream| stream.received.load(Ordering::Relaxed));
        Received { at: Instant::now(), counts: counts.collect() }
    }
}

impl Drop for Bulk {
    fn drop(&mut self) {
        // All receivers end before any sender is waited for.
        for stream in &self.streams {
            let _ = stream.socket.shutdown(Shutdown::Read);
        }
        for Stream { socket, threads, .. } in self.streams.drain(..) {
            // With its last descriptor closed, the socket resets the connection, which ends the sender at once.
            drop(socket);
            for thread in threads.into_iter().rev() {
                let _ = thread.join();
            }
        }
    }
}

impl Stream {
    fn start(mut sender: TcpStream, receiver: TcpStream) -> Result<Self> {
        let received = Arc::<AtomicU64>::default();
        let (counter, socket) = (received.clone(), receiver.try_clone()?);
        let sending = thread::spawn(move || while sender.write_all(&[0; BLOCK]).is_ok() {});
        let receiving = thread::spawn(move || receive(receiver, &counter));
        Ok(Self { socket, received, threads: vec![sending, receiving] })
    }
}

fn receive(mut stream: TcpStream, counter: &AtomicU64) {
    let mut block = vec![0; BLOCK];
    while let Ok(len @ 1..) = stream.read(&mut block) {
        counter.fetch_add(len as u64, Ordering::Relaxed);
    }
}

fn in_network<T: Send + 'static>(
    host: &Host,
    job: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    host.thread(job).join().unwrap_or_else(|_| Err(io::Error::other("a client panicked")))
}

/// What the streams had received at a time.
pub(super) struct Received {
    at: Instant,
    counts: Vec<u64>,
}

impl Received {
    /// Bits per second of all streams together, since `before`.
    pub(super) fn rate_since(&self, before: &Self) -> f64 {
        let bytes: u64 = self.since(before).sum();
        bytes as f64 * 8.0 / (self.at - before.at).as_secs_f64()
    }

    /// How evenly the streams shared since `before`: Jain's index (RFC 5166, 2.3), 1 if all were equal.
    pub(super) fn fairness_since(&self, before: &Self) -> f64 {
        let (sum, squares) = self.since(before).fold((0.0, 0.0), |(sum, squares), bytes| {
            let bytes = bytes as f64;
            (sum + bytes, squares + bytes * bytes)
        });
        sum * sum / (self.counts.len() as f64 * squares)
    }

    fn since(&self, before: &Self) -> impl Iterator<Item = u64> {
        self.counts.iter().zip(&before.counts).map(|(now, before)| now - before)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn rates_and_fairness_are_those_of_the_span() {
        let before = Received { at: Instant::now(), counts: vec![1000, 5000] };
        let after = |counts| Received { at: before.at + Duration::from_secs(2), counts };
        assert_eq!(after(vec![2000, 6000]).rate_since(&before), 8000.0);
        assert_eq!(after(vec![2000, 6000]).fairness_since(&before), 1.0);
        assert_eq!(after(vec![2000, 5000]).fairness_since(&before), 0.5);
    }
}
