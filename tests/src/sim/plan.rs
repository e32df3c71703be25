//! The behaviour of a connection's two programs: the client in the codespace and the server behind the laptop.

use std::time::Duration;

use gh_net_engine::ConnectError;

/// What a program does with its end of a connection.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// How many bytes it sends.
    pub bytes: u64,
    /// Whether it sends only after the other side has ended.
    pub sends_after_end: bool,
    /// Whether it ends only after the other side has ended, and not as soon as everything is sent.
    pub ends_after_end: bool,
    /// It does not read from then, for so long.
    pub pause: Option<(Duration, Duration)>,
    /// It resets the connection then.
    pub resets: Option<Duration>,
    /// The size of its socket's buffers.
    pub buffer: usize,
    /// The most it reads in a millisecond.
    pub reads: Option<usize>,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            bytes: 0,
            sends_after_end: false,
            ends_after_end: false,
            pause: None,
            resets: None,
            buffer: 256 * 1024,
            reads: None,
        }
    }
}

impl Plan {
    /// Sends so many bytes and ends.
    pub fn sends(bytes: u64) -> Self {
        Self { bytes, ..Self::default() }
    }

    /// Whether it reads at `now`.
    pub fn is_reading(&self, now: Duration) -> bool {
        self.pause.is_none_or(|(from, length)| now < from || now >= from + length)
    }

    /// When it does something by itself after `now`.
    pub fn wakes(&self, now: Duration) -> Option<Duration> {
        let resumes = self.pause.map(|(from, length)| from + length);
        [resumes, self.resets].into_iter().flatten().filter(|at| *at > now).min()
    }
}

/// One connection.
#[derive(Debug, Clone, Copy)]
pub struct Flow {
    /// When the program in the codespace connects.
    pub starts: Duration,
    /// Whether by IPv6.
    pub v6: bool,
    /// The program in the codespace.
    pub client: Plan,
    /// The server.
    pub server: Plan,
    /// How long the laptop's socket takes to connect, and how that ends.
    pub connect: (Duration, Result<(), ConnectError>),
}

impl Flow {
    /// Connects at once, without delay.
    pub fn new(client: Plan, server: Plan) -> Self {
        let connect = (Duration::from_millis(1), Ok(()));
        Self { starts: Duration::ZERO, v6: false, client, server, connect }
    }

    /// Whether the connection is closed by both programs without a reset.
    pub fn is_peaceful(&self) -> bool {
        self.connect.1.is_ok() && self.client.resets.is_none() && self.server.resets.is_none()
    }
}

/// The bytes of a stream: a function of the position, so that a displacement is recognised anywhere.
#[derive(Debug)]
pub struct Pattern(Vec<u8>);

impl Pattern {
    /// A prime, so that no segment size hides a displacement.
    const PERIOD: usize = 65_521;

    /// The pattern of a run.
    pub fn new(rng: &mut super::rng::Rng) -> Self {
        Self((0..Self::PERIOD).map(|_| rng.number() as u8).collect())
    }

    /// The longest run of bytes at `position` of stream number `stream`, at most `most` bytes.
    pub fn at(&self, stream: u64, position: u64, most: usize) -> &[u8] {
        let start = ((position + stream * 7919) % Self::PERIOD as u64) as usize;
        let end = self.0.len().min(start.saturating_add(most));
        &self.0[start..end]
    }

    /// Asserts that `bytes` are what the stream holds at `position`.
    pub fn check(&self, stream: u64, mut position: u64, mut bytes: &[u8], who: &str) {
        while !bytes.is_empty() {
            let expected = self.at(stream, position, bytes.len());
            let (now, later) = bytes.split_at(expected.len());
            assert!(
                now == expected,
                "{who}: stream {stream} is wrong within {} bytes from {position}",
                now.len()
            );
            position += now.len() as u64;
            bytes = later;
        }
    }
}

/// What one end of a connection has seen so far.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// It was connected.
    pub connected: bool,
    /// Bytes received, all of them right.
    pub received: u64,
    /// Bytes its kernel took from it.
    pub sent: u64,
    /// The other side's end of stream came.
    pub end: bool,
    /// It has ended its own direction.
    pub ended: bool,
    /// The connection was reset (or refused) by the other side, or lost.
    pub reset: bool,
    /// It is done with the connection.
    pub done: bool,
}
