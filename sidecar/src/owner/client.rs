//! A client of the owner, from its connection to its request.

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use gh_net_common::frame::Open;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::handover::{self, Reply, Request};
use super::link::Link;
use crate::exit;

/// Time limit for a client's request.
const REQUEST: Duration = Duration::from_secs(5);

/// A client whose request is known.
#[derive(Debug)]
pub(super) enum Client {
    /// A laptop that wants a session.
    Laptop(Box<Link>, Box<Open>),
    /// `status` waits for an answer.
    Status(UnixStream),
    /// `cleanup` waits for an answer.
    Cleanup(UnixStream),
    /// The request failed, and the client has been answered.
    Gone,
}

/// Takes a client's request and, from a laptop, the handshake.
pub(super) async fn greet(stream: UnixStream) -> Client {
    let (request, descriptors) = match timeout(REQUEST, handover::receive(&stream)).await {
        Ok(Ok(received)) => received,
        Ok(Err(error)) => {
            tracing::warn!(%error, "a client's request is invalid");
            return Client::Gone;
        }
        Err(_) => return Client::Gone,
    };
    match request {
        Request::Status => Client::Status(stream),
        Request::Cleanup => Client::Cleanup(stream),
        Request::Attach { peer } => shake_hands(stream, descriptors, peer).await,
    }
}

async fn shake_hands(mut stream: UnixStream, descriptors: Vec<OwnedFd>, peer: Option<IpAddr>) -> Client {
    let Ok([stdin, stdout]) = <[OwnedFd; 2]>::try_from(descriptors) else { return Client::Gone };
    handover::reply(&mut stream, &Reply::Accepted).await;
    let mut link = match Link::new(stdin, stdout, stream, peer) {
        Ok(link) => link,
        Err((error, mut stream)) => {
            let text = format!("stdin and stdout of attach can't serve as a link: {error}");
            handover::reply(&mut stream, &Reply::Exit { code: exit::USAGE, text }).await;
            return Client::Gone;
        }
    };
    match link.handshake().await {
        Ok(open) => Client::Laptop(Box::new(link), Box::new(open)),
        Err(goodbye) => {
            link.end(goodbye).await;
            Client::Gone
        }
    }
}
