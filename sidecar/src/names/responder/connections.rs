//! DNS over TCP (RFC 7766): the clients' connections.
//!
//! Each is served by a task that reads questions, asks, and writes answers, all at the same time: a client that does not
//! read its answers must not keep questions from ending, and with them their turns at the resolvers. It is asked nothing
//! more of meanwhile.
//!
//! What clients keep is bounded, apart from what clients over UDP keep, and shared by clients: see [`Table`].

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use self::table::{Activity, Limits, Lost, Place, Table};
use super::listen::PAUSE;
use super::message::MAX_QUERY;
use super::service::Service;
use super::upstream::{Transport, framed};

mod table;

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

/// Bytes of all unread answers.
const MAX_UNREAD: usize = 8 * 1024 * 1024;

/// The longest question, with its length field.
const MAX_FRAME: usize = 2 + MAX_QUERY;

/// What the connections to all listeners share.
#[derive(Debug, Clone)]
pub(super) struct Connections {
    table: Table,
    /// For questions beyond [`PIPELINE`].
    beyond: Arc<Semaphore>,
}

impl Default for Connections {
    fn default() -> Self {
        let limits = Limits { connections: MAX_CONNECTIONS, unread: MAX_UNREAD };
        Self { table: Table::new(limits), beyond: Arc::new(Semaphore::new(BEYOND)) }
    }
}

/// Serves the clients that connect to `listener`. Dropping the future drops them.
pub(super) async fn serve_tcp(listener: TcpListener, service: Arc<Service>, connections: Connections) {
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            Some(_ended) = tasks.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((_, client)) if !service.serves(client.ip()) => {}
                Ok((stream, client)) => {
                    let (place, lost) = connections.table.enter(client.ip());
                    let (service, beyond) = (Arc::clone(&service), Arc::clone(&connections.beyond));
                    tasks.spawn(Connection { client, service, beyond }.serve(stream, place, lost));
                }
                Err(error) => {
                    tracing::warn!(%error, "accepting DNS over TCP");
                    sleep(PAUSE).await;
                }
            }
        }
    }
}

/// One client's connection.
struct Connection {
    client: SocketAddr,
    service: Arc<Service>,
    beyond: Arc<Semaphore>,
}

impl Connection {
    /// Serves it until it ends, or its place is lost.
    async fn serve(self, stream: TcpStream, place: Place, lost: Lost) {
        let client = self.client;
        tokio::select! {
            biased;
            () = lost.wait() => tracing::debug!(%client, "DNS over TCP gives way"),
            ended = self.exchange(stream, &place) => if let Err(error) = ended {
                tracing::debug!(%client, %error, "DNS over TCP");
            }
        }
    }

    /// Reads questions and writes answers, in the order in which the answers arrive.
    async fn exchange(self, mut stream: TcpStream, place: &Place) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let (mut reader, mut writer) = stream.split();
        let mut buffer = BytesMut::new();
        let mut unread = BytesMut::new();
        let mut asking = FuturesUnordered::new();
        let mut ended = false;
        let mut last = Instant::now();
        loop {
            while unread.len() < FULL
                && let Some(permit) = permit(&self.beyond, asking.len())
                && let Some(message) = take_message(&mut buffer)?
            {
                last = Instant::now();
                let (service, client) = (&self.service, self.client.ip());
                asking.push(async move {
                    let _permit = permit;
                    service.answer(message, Transport::Tcp, client).await
                });
            }
            if ended && asking.is_empty() && unread.is_empty() {
                return Ok(());
            }
            place.note(Activity { waits: !asking.is_empty() && unread.is_empty(), last }, unread.len());
            tokio::select! {
                Some(answer) = asking.next() => {
                    let Some(answer) = answer else { return Ok(()) };
                    unread.extend_from_slice(&framed(&answer));
                }
                written = writer.write_buf(&mut unread), if !unread.is_empty() => {
                    written?;
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

/// Lets a client with `asking` questions in progress ask another one, if it may. Beyond [`PIPELINE`], that takes a permit.
fn permit(beyond: &Arc<Semaphore>, asking: usize) -> Option<Option<tokio::sync::OwnedSemaphorePermit>> {
    match asking {
        0..PIPELINE => Some(None),
        PIPELINE..LONG_PIPELINE => Arc::clone(beyond).try_acquire_owned().ok().map(Some),
        LONG_PIPELINE.. => None,
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
