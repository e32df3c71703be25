//! DNS over TCP (RFC 7766): the clients' connections.
//!
//! Each is served by a task that reads questions, asks, and writes answers, all at the same time: a client that does not
//! read its answers must not keep questions from ending, and with them their turns at the resolvers. It is asked nothing
//! more of meanwhile.
//!
//! What clients keep is bounded, apart from what clients over UDP keep. If there are too many connections, one gives way:
//! among those that do not wait for an answer, or else among all, the one of which nothing was read or written for longest.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, Id, JoinSet};
use tokio::time::{Instant, sleep, sleep_until};

use super::listen::PAUSE;
use super::message::MAX_QUERY;
use super::service::Service;
use super::upstream::{Transport, framed};

/// Maximum number of connections.
pub(super) const MAX_CONNECTIONS: usize = 256;

/// How long a client may send nothing, or read none of its answers (RFC 7766 section 6.2.3).
const IDLE: Duration = Duration::from_secs(10);

/// Questions in progress of a client that it may have in any case, and at most (RFC 7766 section 6.2.1.1): names that wait
/// for the link must not hold up those behind them.
const PIPELINE: usize = 16;
const LONG_PIPELINE: usize = 256;

/// How many of all clients' questions may be beyond [`PIPELINE`].
const BEYOND: usize = 1024;

/// Bytes of unread answers with which a client is asked nothing more of: about one of the largest.
const FULL: usize = 64 * 1024;

/// Bytes of all unread answers. Beyond it, a client that has some unread and gets another one is disconnected.
const MAX_UNREAD: usize = 8 * 1024 * 1024;

/// The longest question, with its length field.
const MAX_FRAME: usize = 2 + MAX_QUERY;

/// Serves the clients that connect to `listener`. Dropping the future drops them.
pub(super) async fn serve_tcp(listener: TcpListener, service: Arc<Service>) {
    let mut connections = Connections::default();
    loop {
        tokio::select! {
            Some(ended) = connections.tasks.join_next_with_id() => {
                let id = ended.map_or_else(|error| error.id(), |(id, ())| id);
                connections.table.remove(&id);
            }
            accepted = listener.accept() => match accepted {
                Ok((_, client)) if !service.serves(client.ip()) => {}
                Ok((stream, client)) => connections.add(stream, client, &service),
                Err(error) => {
                    tracing::warn!(%error, "accepting DNS over TCP");
                    sleep(PAUSE).await;
                }
            }
        }
    }
}

/// The connections to one listener.
#[derive(Debug)]
struct Connections {
    tasks: JoinSet<()>,
    table: HashMap<Id, (AbortHandle, Arc<Activity>)>,
    /// Bytes of their unread answers.
    unread: Arc<AtomicUsize>,
    /// For questions beyond [`PIPELINE`].
    beyond: Arc<Semaphore>,
}

impl Default for Connections {
    fn default() -> Self {
        Self {
            tasks: JoinSet::new(),
            table: HashMap::new(),
            unread: Arc::default(),
            beyond: Arc::new(Semaphore::new(BEYOND)),
        }
    }
}

impl Connections {
    fn add(&mut self, stream: TcpStream, client: SocketAddr, service: &Arc<Service>) {
        if self.table.len() >= MAX_CONNECTIONS {
            self.give_way();
        }
        let activity = Arc::new(Activity::new());
        let connection = Connection {
            client: client.ip(),
            service: Arc::clone(service),
            activity: Arc::clone(&activity),
            unread: Unread { bytes: BytesMut::new(), all: Arc::clone(&self.unread) },
            beyond: Arc::clone(&self.beyond),
        };
        let task = self.tasks.spawn(async move {
            if let Err(error) = connection.serve(stream).await {
                tracing::debug!(%client, %error, "DNS over TCP");
            }
        });
        self.table.insert(task.id(), (task, activity));
    }

    fn give_way(&mut self) {
        let longest = self.table.iter().min_by_key(|(_, (_, activity))| activity.importance());
        if let Some((task, _)) = longest.map(|(id, _)| *id).and_then(|id| self.table.remove(&id)) {
            task.abort();
        }
    }
}

/// What a connection does, for who looks for one that gives way.
#[derive(Debug)]
struct Activity(Mutex<(bool, Instant)>);

impl Activity {
    fn new() -> Self {
        Self(Mutex::new((false, Instant::now())))
    }

    /// The least gives way: whether it waits for answers only, and when something was last read or written.
    fn importance(&self) -> (bool, Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, waits: bool, last: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (waits, last);
    }
}

/// One client's connection.
struct Connection {
    client: IpAddr,
    service: Arc<Service>,
    activity: Arc<Activity>,
    unread: Unread,
    beyond: Arc<Semaphore>,
}

impl Connection {
    /// Reads questions and writes answers, in the order in which the answers arrive.
    async fn serve(self, mut stream: TcpStream) -> io::Result<()> {
        let Self { client, service, activity, mut unread, beyond } = self;
        stream.set_nodelay(true)?;
        let (mut reader, mut writer) = stream.split();
        let mut buffer = BytesMut::new();
        let mut asking = FuturesUnordered::new();
        let mut ended = false;
        let mut last = Instant::now();
        loop {
            while unread.bytes.len() < FULL
                && let Some(place) = place(&beyond, asking.len())
                && let Some(message) = take_message(&mut buffer)?
            {
                last = Instant::now();
                let service = &service;
                asking.push(async move {
                    let _place = place;
                    service.answer(message, Transport::Tcp, client).await
                });
            }
            if ended && asking.is_empty() && unread.bytes.is_empty() {
                return Ok(());
            }
            activity.set(!asking.is_empty() && unread.bytes.is_empty(), last);
            tokio::select! {
                Some(answer) = asking.next() => {
                    let Some(answer) = answer else { return Ok(()) };
                    unread.add(&framed(&answer))?;
                }
                written = writer.write_buf(&mut unread.bytes), if !unread.bytes.is_empty() => {
                    unread.all.fetch_sub(written?, Ordering::Relaxed);
                    last = Instant::now();
                }
                read = reader.read_buf(&mut buffer), if !ended && buffer.len() < MAX_FRAME => {
                    ended = read? == 0;
                }
                () = sleep_until(last + IDLE) => return Ok(()),
            }
        }
    }
}

/// A place for another question of a client that has `asking` in progress.
fn place(beyond: &Arc<Semaphore>, asking: usize) -> Option<Option<tokio::sync::OwnedSemaphorePermit>> {
    match asking {
        0..PIPELINE => Some(None),
        PIPELINE..LONG_PIPELINE => Arc::clone(beyond).try_acquire_owned().ok().map(Some),
        LONG_PIPELINE.. => None,
    }
}

/// Answers that the client has not read yet.
#[derive(Debug)]
struct Unread {
    bytes: BytesMut,
    /// Those of all clients.
    all: Arc<AtomicUsize>,
}

impl Unread {
    fn add(&mut self, answer: &[u8]) -> io::Result<()> {
        let all = self.all.load(Ordering::Relaxed);
        if !self.bytes.is_empty() && all + answer.len() > MAX_UNREAD {
            return Err(io::Error::new(io::ErrorKind::OutOfMemory, "too many answers are not read"));
        }
        self.all.fetch_add(answer.len(), Ordering::Relaxed);
        self.bytes.extend_from_slice(answer);
        Ok(())
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}

/// The first message in `buffer`, if it is complete.
fn take_message(buffer: &mut BytesMut) -> io::Result<Option<Bytes>> {
    let Some(&[high, low]) = buffer.first_chunk() else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > MAX_QUERY {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the query is too long"));
    }
    if buffer.len() < 2 + length {
        return Ok(None);
    }
    buffer.advance(2);
    // A copy: a waiting query must not keep the whole buffer.
    Ok(Some(Bytes::copy_from_slice(&buffer.split_to(length))))
}
