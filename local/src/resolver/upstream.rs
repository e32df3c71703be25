//! Asks the system's nameservers with hickory's clients, which choose ports and ids, retransmit, and match answers to
//! queries.
//!
//! The servers are asked as the C library does it: in the order of resolv.conf, the next one if one does not answer or
//! fails; NXDOMAIN of any server is final. A server that did not answer keeps its place, because it may be a single zone
//! that is dead, but is waited for less. hickory's own pool asks two servers at once and prefers the faster one, so
//! that a public server's NXDOMAIN would win over the corporate server's answer. It also hides CNAMEs in front of an
//! empty answer.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hickory_proto::op::{DnsRequest, DnsRequestOptions, ResponseCode};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::tcp::TcpClientStream;
use hickory_resolver::net::udp::UdpClientStream;
use hickory_resolver::net::xfer::{DnsHandle, DnsRequestSender, FirstAnswer};
use tokio::time::timeout;

use super::message::{Reply, Request};

/// How long one server may take to answer. hickory retransmits every third of a second.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(1200);

/// The same for a server that has not answered lately: about the slowest answer of a server that knows it.
const SHORT_TIMEOUT: Duration = Duration::from_millis(400);

/// How long a server that did not answer is waited for less.
const IMPATIENCE: Duration = Duration::from_secs(10);

/// The system's nameservers.
#[derive(Debug)]
pub(super) struct Upstream {
    servers: Vec<Server>,
    begun: Instant,
}

#[derive(Debug)]
struct Server {
    address: SocketAddr,
    /// Until when it is waited for less, in milliseconds since [`Upstream::begun`].
    impatient_until: AtomicU64,
}

impl Upstream {
    pub(super) fn new(servers: Vec<IpAddr>, port: u16) -> Self {
        let server =
            |address| Server { address: SocketAddr::new(address, port), impatient_until: AtomicU64::new(0) };
        Self { servers: servers.into_iter().map(server).collect(), begun: Instant::now() }
    }

    pub(super) fn addresses(&self) -> Vec<IpAddr> {
        self.servers.iter().map(|server| server.address.ip()).collect()
    }

    /// The answer of the first server that has one, else the first failure. `None` if none answers.
    pub(super) async fn ask(&self, request: &Request) -> Option<Reply> {
        let mut failure = None;
        for server in &self.servers {
            let impatient = server.impatient_until.load(Ordering::Relaxed) > self.elapsed();
            let time = if impatient { SHORT_TIMEOUT } else { ANSWER_TIMEOUT };
            let answer = exchange(server.address, request, time).await;
            if answer.is_ok() {
                server.impatient_until.store(0, Ordering::Relaxed);
            }
            match answer {
                Ok(reply) if matches!(reply.code, ResponseCode::NoError | ResponseCode::NXDomain) => {
                    return Some(reply);
                }
                Ok(reply) => failure = failure.or(Some(reply)),
                Err(error) => {
                    tracing::debug!(server = %server.address, question = %request.question(), %error, "no answer");
                    // Not renewed, so that a slow server is waited for now and then.
                    if !impatient && !matches!(error, NetError::Proto(_)) {
                        let until = self.elapsed() + IMPATIENCE.as_millis() as u64;
                        server.impatient_until.store(until, Ordering::Relaxed);
                    }
                }
            }
        }
        failure
    }

    fn elapsed(&self) -> u64 {
        self.begun.elapsed().as_millis() as u64
    }
}

/// One server's answer: over UDP, or over TCP if it was truncated. Old servers reject EDNS (RFC 6891, 7) and are asked
/// again without it.
async fn exchange(server: SocketAddr, request: &Request, time: Duration) -> Result<Reply, NetError> {
    let reply = over_udp(server, request, true, time).await?;
    let refuses_edns = matches!(reply.code, ResponseCode::FormErr | ResponseCode::NotImp);
    let reply = if refuses_edns { over_udp(server, request, false, time).await? } else { reply };
    if !reply.truncated {
        return Ok(reply);
    }
    match over_tcp(server, request, !refuses_edns).await {
        Ok(whole) => Ok(whole),
        // A truncated answer, marked as such, is better than none.
        Err(error) => {
            tracing::debug!(%server, %error, "no answer over TCP");
            Ok(reply)
        }
    }
}

async fn over_udp(
    server: SocketAddr,
    request: &Request,
    with_edns: bool,
    time: Duration,
) -> Result<Reply, NetError> {
    let mut client = UdpClientStream::builder(server, TokioRuntimeProvider::new())
        .with_timeout(Some(time))
        // A port of hickory's choice may be one that another program is about to listen on.
        .with_os_port_selection(true)
        .build();
    let query = DnsRequest::new(request.to_server(with_edns), DnsRequestOptions::default());
    let response = client.send_message(query).first_answer().await?;
    Ok(Reply::of_server(server.ip(), response.into_message()))
}

async fn over_tcp(server: SocketAddr, request: &Request, with_edns: bool) -> Result<Reply, NetError> {
    let query = DnsRequest::new(request.to_server(with_edns), DnsRequestOptions::default());
    // The provider owns the task that serves the connection; both end with this call.
    let provider = TokioRuntimeProvider::new();
    let answer = async {
        let client = TcpClientStream::exchange(server, None, ANSWER_TIMEOUT, None, provider.clone()).await?;
        client.send(query).first_answer().await
    };
    let response = timeout(ANSWER_TIMEOUT, answer).await.map_err(|_| NetError::Timeout)??;
    Ok(Reply::of_server(server.ip(), response.into_message()))
}
