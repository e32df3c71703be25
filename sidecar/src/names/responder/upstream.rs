//! Asks resolvers: a query is sent unchanged, over the transport it came by.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use gh_net_common::turns::{Group, Limits, Outcome, Turns};
use nix::errno::Errno;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::addresses::has_answers;
use super::message::{self, Query, rcode};
use crate::own_sockets::OwnSockets;
/// The transport of a query, the same on both sides.
pub(super) use crate::own_sockets::Transport;

/// If a resolver has not answered after this time, the next one is asked too; the first may still answer.
pub(super) const STEP: Duration = Duration::from_millis(1500);

/// Queries to one set of servers, shared by zones. A burst must overrun neither the device's queue (500 packets) nor the
/// server's socket (277 datagrams by default on Linux), and dnsmasq refuses more than 150. A server on the internet answers
/// within half a second.
pub(super) const CODESPACE: Limits = Limits {
    turns: 128,
    per_group: 128,
    reserved: 0,
    waiting: 3072,
    evict_after: Some(Duration::from_millis(500)),
    hold_down: true,
};

/// The same for the laptop's resolver. What only its name service switch knows takes a second longer. It holds zones down
/// itself: from here, a dead link would look like dead zones.
pub(super) const LAPTOP: Limits =
    Limits { evict_after: Some(Duration::from_millis(1500)), hold_down: false, ..CODESPACE };

/// Resolvers that know the same names.
#[derive(Debug)]
pub(super) struct Upstream {
    servers: Vec<SocketAddr>,
    turns: Arc<Turns>,
    ids: Ids,
    sockets: OwnSockets,
}

impl Upstream {
    /// The codespace's resolvers.
    pub(super) fn codespace(servers: Vec<SocketAddr>, sockets: OwnSockets) -> Self {
        Self { servers, turns: Turns::new(CODESPACE), ids: Ids::default(), sockets }
    }

    /// The laptop's resolver.
    pub(super) fn laptop(servers: Vec<SocketAddr>, sockets: OwnSockets) -> Self {
        Self { servers, turns: Turns::new(LAPTOP), ids: Ids::default(), sockets }
    }

    /// An answer within `time`, which includes waiting for a turn. `None` if there is none.
    pub(super) async fn ask(&self, query: &Query, by: Transport, time: Duration) -> Option<Bytes> {
        let deadline = Instant::now() + time;
        let turn = timeout_at(deadline, self.turns.take(group(&query.name()))).await.ok()?.ok()?;
        let work = async {
            let answer = self.ask_in_turn(query, by, deadline).await;
            (outcome(answer.as_deref()), answer)
        };
        turn.run(work).await.flatten()
    }

    /// The first conclusive answer, or else an inconclusive one if there was any. The servers are asked in turn: the next
    /// one when one fails or is silent for a [`STEP`]. Over UDP a single server is asked twice, because datagrams can be
    /// lost.
    async fn ask_in_turn(&self, query: &Query, by: Transport, deadline: Instant) -> Option<Bytes> {
        let servers = &self.servers;
        let tries = match by {
            _ if servers.is_empty() => return None,
            Transport::Udp => servers.len().max(2),
            Transport::Tcp => servers.len(),
        };
        let step = STEP.min(deadline.saturating_duration_since(Instant::now()) / tries as u32);
        let mut turn = servers.iter().cycle().take(tries);
        let mut asked = 0;
        let mut asking = FuturesUnordered::new();
        let mut inconclusive = None;
        let next = sleep(Duration::ZERO);
        tokio::pin!(next);
        loop {
            tokio::select! {
                biased;
                Some(outcome) = asking.next() => {
                    let (server, answer): (SocketAddr, io::Result<Bytes>) = outcome;
                    match answer {
                        Ok(answer) if is_conclusive(&answer) => return Some(answer),
                        answer => {
                            note(query, server, &answer);
                            inconclusive = inconclusive.or(answer.ok());
                        }
                    }
                    if asked < servers.len() {
                        next.as_mut().reset(Instant::now());
                    } else if asking.is_empty() {
                        return inconclusive;
                    }
                }
                () = &mut next, if asked < tries => {
                    if let Some(&server) = turn.next() {
                        asked += 1;
                        asking.push(async move { (server, self.ask_one(server, query, by).await) });
                    }
                    next.as_mut().reset(Instant::now() + step);
                }
                () = sleep_until(deadline) => return inconclusive,
            }
        }
    }

    async fn ask_one(&self, server: SocketAddr, query: &Query, by: Transport) -> io::Result<Bytes> {
        let id = self.ids.next();
        match by {
            Transport::Udp => over_udp(server, query, id, &self.sockets).await,
            Transport::Tcp => over_tcp(server, query, id, &self.sockets).await,
        }
    }
}

/// What asks a resolver: a trait, so that tests can script it.
pub(super) trait Ask: Send + Sync {
    /// An answer within `time`; `None` if there is none.
    fn ask(&self, query: &Query, by: Transport, time: Duration)
    -> impl Future<Output = Option<Bytes>> + Send;
}

impl Ask for Upstream {
    fn ask(
        &self,
        query: &Query,
        by: Transport,
        time: Duration,
    ) -> impl Future<Output = Option<Bytes>> + Send {
        Self::ask(self, query, by, time)
    }
}

/// Who shares the turns with a name, given in wire format without the root's label.
pub(super) fn group(name: &[u8]) -> Group {
    let mut labels = Vec::new();
    let mut rest = name;
    while let [length, after @ ..] = rest {
        let (label, behind) = after.split_at(usize::from(*length).min(after.len()));
        labels.push(label);
        rest = behind;
    }
    Group::of_name(&labels)
}

/// Whether an answer is final for resolvers that know the same names: the name exists, or it does not.
fn is_conclusive(answer: &[u8]) -> bool {
    matches!(message::code(answer), rcode::NOERROR | rcode::NXDOMAIN)
}

/// A name that exists without records of the type is no name that is served: some servers say so of any name.
fn outcome(answer: Option<&[u8]>) -> Outcome {
    match answer {
        Some(answer) if message::code(answer) == rcode::NOERROR && has_answers(answer) => Outcome::Served,
        Some(_) => Outcome::Answered,
        None => Outcome::InVain,
    }
}

fn note(query: &Query, server: SocketAddr, answer: &io::Result<Bytes>) {
    match answer {
        Ok(answer) => {
            tracing::debug!(%server, name = query.display(), code = message::code(answer), "no answer");
        }
        Err(error) => tracing::debug!(%server, name = query.display(), %error, "no answer"),
    }
}

/// Each query has a socket of its own: an off-path attacker must guess a fresh source port and a random id (RFC 5452).
/// The socket is connected, so that the kernel drops datagrams of others and reports a closed port.
async fn over_udp(server: SocketAddr, query: &Query, id: u16, sockets: &OwnSockets) -> io::Result<Bytes> {
    let unspecified = match server {
        SocketAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
    };
    let socket = UdpSocket::bind((unspecified, 0)).await?;
    socket.connect(server).await?;
    let _own = sockets.add(Transport::Udp, socket.local_addr()?, server);
    socket.send(&query.with_id(id)).await?;
    loop {
        // An ICMP error makes the socket ready but not readable.
        let ready = socket.ready(Interest::READABLE | Interest::ERROR).await?;
        let received = if ready.is_readable() { receive(&socket, query, id) } else { pending_error(&socket) };
        match received {
            Ok(Some(answer)) => return Ok(answer),
            Ok(None) => tracing::debug!(%server, "ignoring a datagram that does not answer the query"),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// Not async, so that the buffer is on the stack only while receiving and not in thousands of waiting tasks.
fn receive(socket: &UdpSocket, query: &Query, id: u16) -> io::Result<Option<Bytes>> {
    let mut buffer = [0; 65535];
    let length = socket.try_recv(&mut buffer)?;
    let answer = &buffer[..length];
    Ok(query.is_answered_by(answer, id).then(|| query.answer(answer)))
}

fn pending_error(socket: &UdpSocket) -> io::Result<Option<Bytes>> {
    socket.try_io(Interest::ERROR, || {
        Err(SockRef::from(socket).take_error()?.unwrap_or(io::ErrorKind::WouldBlock.into()))
    })
}

async fn over_tcp(server: SocketAddr, query: &Query, id: u16, sockets: &OwnSockets) -> io::Result<Bytes> {
    let mut stream = begin_to_connect(server)?;
    // Before any task can see the SYN.
    let _own = sockets.add(Transport::Tcp, stream.local_addr()?, server);
    stream.writable().await?;
    if let Some(error) = stream.take_error()? {
        return Err(error);
    }
    stream.set_nodelay(true)?;
    stream.write_all(&framed(&query.with_id(id))).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    if query.is_answered_by(&answer, id) {
        Ok(query.answer(&answer))
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, "the answer belongs to another question"))
    }
}

/// The kernel chooses the port: one that is bound before is nobody else's for a minute after the end, for no destination.
fn begin_to_connect(server: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(server), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    match socket.connect(&server.into()) {
        Err(error) if error.raw_os_error() != Some(Errno::EINPROGRESS as i32) => Err(error),
        Ok(()) | Err(_) => TcpStream::from_std(socket.into()),
    }
}

/// A message as sent over TCP: preceded by its length, in one segment (RFC 7766 section 8).
pub(super) fn framed(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(2 + message.len());
    framed.put_u16(message.len() as u16);
    framed.put_slice(message);
    framed.freeze()
}

/// Unpredictable ids: a counter under a keyed hash, whose key the standard library takes from the system.
#[derive(Debug, Default)]
struct Ids {
    key: RandomState,
    count: AtomicU64,
}

impl Ids {
    fn next(&self) -> u16 {
        self.key.hash_one(self.count.fetch_add(1, Ordering::Relaxed)) as u16
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::ResponseCode;
    use tokio::net::TcpListener;

    use super::super::tests::samples::{nxdomain, positive, query, reply, wire};
    use super::*;
    use crate::own_sockets::FiveTuple;

    #[tokio::test]
    async fn its_packets_are_known_as_the_sidecars_own_while_it_asks() {
        let sockets = OwnSockets::default();
        // An address of its own, because others may have the same port of 127.0.0.1 for TCP.
        let udp = UdpSocket::bind("127.83.7.1:0").await.unwrap();
        let address = udp.local_addr().unwrap();
        let tcp = TcpListener::bind(address).await.unwrap();
        let upstream = Upstream::laptop(vec![address], sockets.clone());
        let query = query("www.corp.example.");
        for transport in [Transport::Udp, Transport::Tcp] {
            let ask = upstream.ask(&query, transport, Duration::from_secs(60));
            let of = |address: SocketAddr| (address.ip(), address.port());
            let asked = async {
                let client = match transport {
                    Transport::Udp => udp.recv_from(&mut [0; 512]).await.unwrap().1,
                    Transport::Tcp => tcp.accept().await.unwrap().1,
                };
                let tuple = FiveTuple { transport, source: of(client), destination: of(address) };
                assert!(sockets.sent(tuple));
                tuple
            };
            let tuple = tokio::select! {
                _ = ask => panic!("nobody answers"),
                tuple = asked => tuple,
            };
            assert!(!sockets.sent(tuple), "it has been given up");
        }
    }

    #[test]
    fn only_records_serve() {
        let query = query("www.corp.example.");
        let of = |message| outcome(Some(&wire(&message)));
        assert_eq!(of(positive(&query, 60)), Outcome::Served);
        assert_eq!(of(nxdomain(&query, 60, 60)), Outcome::Answered);
        for code in [ResponseCode::NoError, ResponseCode::ServFail, ResponseCode::Refused] {
            assert_eq!(of(reply(&query, code)), Outcome::Answered, "{code}");
        }
        assert_eq!(outcome(None), Outcome::InVain);
    }
}
