//! The listening sockets, and the clients behind them.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::message::MAX_QUERY;
use super::service::Service;
use super::upstream::{Transport, framed};

/// Room for a burst of some thousand queries (the kernel counts at least 768 bytes for each).
const RECEIVE_BUFFER: usize = 4 << 20;

/// Maximum number of TCP clients. Further connections are closed at once.
const MAX_CLIENTS: usize = 256;

/// How long a TCP client may send or accept nothing (RFC 7766 section 6.2.3).
const IDLE: Duration = Duration::from_secs(10);

/// Maximum number of queries of one TCP client in progress (RFC 7766 section 6.2.1.1). Names that wait for the link must
/// not hold up those behind them.
const PIPELINE: usize = 256;

/// Maximum number of queries of one UDP socket in progress. Further ones are dropped, so that it leaves room for others.
const PER_SOCKET: usize = 2048;

/// The longest query on TCP, with its length field.
const MAX_FRAME: usize = 2 + MAX_QUERY;

/// Pause after an error that may persist, such as too many open files.
const PAUSE: Duration = Duration::from_millis(100);

/// A UDP socket at `address`, which need not exist yet.
pub(super) fn udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = bound(address, Type::DGRAM, Protocol::UDP)?;
    // The forced size is not limited by net.core.rmem_max, but needs CAP_NET_ADMIN.
    if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
        socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    }
    UdpSocket::from_std(socket.into())
}

/// A TCP listener at `address`, which need not exist yet.
pub(super) fn tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = bound(address, Type::STREAM, Protocol::TCP)?;
    socket.listen(128)?;
    TcpListener::from_std(socket.into())
}

fn bound(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
        socket.set_freebind_v6(true)?;
    } else {
        socket.set_freebind_v4(true)?;
    }
    if kind == Type::STREAM {
        // Connections of an earlier session may still be in TIME_WAIT.
        socket.set_reuse_address(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Answers the queries that arrive at `socket`. Dropping the future drops the queries in progress.
pub(super) async fn serve_udp(socket: UdpSocket, service: Arc<Service>) {
    let socket = Arc::new(socket);
    let mut queries = JoinSet::new();
    let mut clients = HashMap::<SocketAddr, usize>::new();
    // A longer message is cut, and still too long to be forwarded.
    let mut buffer = [0; MAX_QUERY + 1];
    loop {
        match socket.recv_from(&mut buffer).await {
            // To be silent is what a closed firewall is.
            Ok((_, client)) if !service.serves(client.ip()) => {}
            Ok((length, client)) => {
                while let Some(answered) = queries.try_join_next() {
                    answered.iter().for_each(|client| forget_one(&mut clients, client));
                }
                let of_client = clients.get(&client).copied().unwrap_or_default();
                // Beyond the bounds the query is dropped; the client will retry.
                if of_client < PER_SOCKET
                    && let Ok(permit) = Arc::clone(&service.in_flight).try_acquire_owned()
                {
                    let message = Bytes::copy_from_slice(&buffer[..length]);
                    let (service, socket) = (Arc::clone(&service), Arc::clone(&socket));
                    clients.insert(client, of_client + 1);
                    queries.spawn(async move {
                        let _permit = permit;
                        answer_datagram(&service, &socket, message, client).await;
                        client
                    });
                }
            }
            Err(error) => {
                tracing::warn!(%error, "receiving DNS queries");
                sleep(PAUSE).await;
            }
        }
    }
}

fn forget_one(clients: &mut HashMap<SocketAddr, usize>, client: &SocketAddr) {
    if let Some(count) = clients.get_mut(client) {
        *count -= 1;
        if *count == 0 {
            clients.remove(client);
        }
    }
}

async fn answer_datagram(service: &Service, socket: &UdpSocket, message: Bytes, client: SocketAddr) {
    if let Some(answer) = service.answer(message, Transport::Udp).await
        && let Err(error) = socket.send_to(&answer, client).await
    {
        tracing::debug!(%client, %error, "answering a DNS query");
    }
}

/// Serves the clients that connect to `listener`. Dropping the future drops them.
pub(super) async fn serve_tcp(listener: TcpListener, service: Arc<Service>) {
    let slots = Arc::new(Semaphore::new(MAX_CLIENTS));
    let mut clients = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((_, client)) if !service.serves(client.ip()) => {}
            Ok((stream, client)) => {
                if let Ok(slot) = Arc::clone(&slots).try_acquire_owned() {
                    let service = Arc::clone(&service);
                    clients.spawn(async move {
                        let _slot = slot;
                        if let Err(error) = serve_client(stream, &service).await {
                            tracing::debug!(%client, %error, "DNS over TCP");
                        }
                    });
                }
            }
            Err(error) => {
                tracing::warn!(%error, "accepting DNS over TCP");
                sleep(PAUSE).await;
            }
        }
        while clients.try_join_next().is_some() {}
    }
}

/// Reads queries and writes answers, in the order in which the answers arrive.
async fn serve_client(mut stream: TcpStream, service: &Service) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut reader, mut writer) = stream.split();
    let mut buffer = BytesMut::new();
    let mut answering = FuturesUnordered::new();
    let mut ended = false;
    let mut idle = Instant::now() + IDLE;
    loop {
        while answering.len() < PIPELINE
            && let Some(message) = take_message(&mut buffer)?
        {
            answering.push(answer_or_refuse(service, message));
            idle = Instant::now() + IDLE;
        }
        if ended && answering.is_empty() {
            return Ok(());
        }
        tokio::select! {
            Some(answer) = answering.next() => {
                let Some(answer) = answer else { return Ok(()) };
                timeout(IDLE, writer.write_all(&framed(&answer))).await??;
                idle = Instant::now() + IDLE;
            }
            read = reader.read_buf(&mut buffer), if !ended && buffer.len() < MAX_FRAME => {
                ended = read? == 0;
            }
            () = sleep_until(idle) => return Ok(()),
        }
    }
}

async fn answer_or_refuse(service: &Service, message: Bytes) -> Option<Bytes> {
    match service.in_flight.try_acquire() {
        Ok(_permit) => service.answer(message, Transport::Tcp).await,
        Err(_) => service.refuse(message),
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
