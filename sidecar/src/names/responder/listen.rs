//! The listening sockets, and the clients over UDP.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::message::MAX_QUERY;
use super::service::Service;
use super::upstream::Transport;

/// Room for a burst of some thousand queries (the kernel counts at least 768 bytes for each).
const RECEIVE_BUFFER: usize = 4 << 20;

/// Maximum number of queries of one UDP socket in progress. Further ones are dropped, so that it leaves room for others.
const PER_SOCKET: usize = 2048;

/// Pause after an error that may persist, such as too many open files.
pub(super) const PAUSE: Duration = Duration::from_millis(100);

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
    if let Some(answer) = service.answer(message, Transport::Udp, client.ip()).await
        && let Err(error) = socket.send_to(&answer, client).await
    {
        tracing::debug!(%client, %error, "answering a DNS query");
    }
}
