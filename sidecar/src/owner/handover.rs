//! The owner's socket: how `attach`, `status` and `cleanup` communicate with the owner.
//!
//! A client sends one [`Request`] as a line of JSON; to attach, it also passes the descriptors of its stdin and stdout
//! (SCM_RIGHTS). The owner answers with [`Reply`] lines and closes. A client that closes first takes its link back.
//!
//! The socket is in a directory that only root can enter, and each side checks that the other runs as root or as its own
//! user.

use std::io::{self, BufRead, BufReader, IoSlice, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use nix::sys::socket::{ControlMessage, MsgFlags, getsockopt, sendmsg, sockopt};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncWriteExt, Interest};
use tokio::time::timeout;

use crate::journal::Report;
use crate::status::Status;

/// Linux passes at most this many descriptors at a time (SCM_MAX_FD). With room for all of them none is lost, so all of
/// them can be closed.
const MAX_DESCRIPTORS: usize = 253;
/// Maximum length of a request, in bytes.
const MAX_REQUEST: usize = 4096;

/// Time limit for a client to read an answer that does not fit the socket's buffer.
const REPLY_TIMEOUT: Duration = Duration::from_secs(3);

/// What a client wants.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Request {
    /// Serve a link over the two descriptors that are passed.
    Attach {
        /// The other end of the ssh connection, if that is known.
        peer: Option<IpAddr>,
    },
    /// Report the status.
    Status,
    /// End the session and undo everything.
    Cleanup,
}

/// What the owner answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reply {
    /// To `attach`: the descriptors have been received; an [`Reply::Exit`] follows when the link has ended.
    Accepted,
    /// To `attach`, from an owner it has just started: another owner was faster; ask that one.
    Taken,
    /// To `attach`: exit with this code.
    Exit {
        /// The exit code.
        code: u8,
        /// Why.
        text: String,
    },
    /// To `status`.
    Status(Box<Status>),
    /// To `cleanup`: the result of undoing.
    Undone(Report),
}

/// A client's end.
#[derive(Debug)]
pub(crate) struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Communicates over `stream`.
    ///
    /// # Errors
    /// The other end belongs to another user.
    pub(crate) fn new(stream: UnixStream) -> io::Result<Self> {
        check_peer(&stream, |owner| {
            let program = std::env::current_exe().unwrap_or_else(|_| "gh-net-sidecar".into());
            let program = program.display();
            format!(
                "the session belongs to user {owner}: log in as that user, or end it by \
                 sudo -u '#{owner}' {program} cleanup"
            )
        })?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Sends the request and passes the descriptors.
    ///
    /// # Errors
    /// The socket's own.
    pub(crate) fn send(&mut self, request: &Request, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let rights = if raw.is_empty() { &[][..] } else { &rights[..] };
        let stream = self.stream.get_mut();
        let sent =
            sendmsg::<()>(stream.as_raw_fd(), &[IoSlice::new(&line)], rights, MsgFlags::MSG_NOSIGNAL, None)?;
        stream.write_all(&line[sent..])
    }

    /// Waits for the next reply; `None` when the owner is gone.
    ///
    /// # Errors
    /// The socket's own, or the answer is invalid.
    pub(crate) fn reply(&mut self) -> io::Result<Option<Reply>> {
        let mut line = String::new();
        match self.stream.read_line(&mut line) {
            Ok(0) => Ok(None),
            Ok(_) => Ok(Some(serde_json::from_str(&line)?)),
            // An owner that ends resets connections whose request it has not read.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The owner's side: receives the request and its descriptors.
///
/// # Errors
/// The socket's own, or the request is invalid.
pub(crate) async fn receive(stream: &tokio::net::UnixStream) -> io::Result<(Request, Vec<OwnedFd>)> {
    check_peer(stream, |client| format!("a client of the owner's socket belongs to user {client}"))?;
    let mut line = Vec::new();
    let mut descriptors = Vec::new();
    while line.last() != Some(&b'\n') {
        stream.readable().await?;
        match stream.try_io(Interest::READABLE, || receive_some(stream, &mut descriptors)) {
            Ok(piece) if piece.is_empty() => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(piece) => line.extend(piece),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        if line.len() > MAX_REQUEST || descriptors.len() > 2 {
            return Err(io::Error::other("the request is too long, or has too many descriptors"));
        }
    }
    Ok((serde_json::from_slice(&line)?, descriptors))
}

fn receive_some(socket: impl AsFd, descriptors: &mut Vec<OwnedFd>) -> io::Result<Vec<u8>> {
    let mut piece = vec![0; MAX_REQUEST];
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut room);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let message = recvmsg(socket, &mut [IoSliceMut::new(&mut piece)], &mut control, flags)?;
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(passed) = part {
            descriptors.extend(passed);
        }
    }
    piece.truncate(message.bytes);
    Ok(piece)
}

/// Answers. A client that is gone, or does not read within [`REPLY_TIMEOUT`], is no error.
pub(crate) async fn reply(stream: &mut tokio::net::UnixStream, reply: &Reply) {
    let written = async {
        let mut line = serde_json::to_vec(reply)?;
        line.push(b'\n');
        stream.write_all(&line).await
    };
    let result =
        timeout(REPLY_TIMEOUT, written).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    if let Err(error) = result {
        tracing::debug!(%error, "a client did not wait for its answer");
    }
}

/// Waits until the client closes its end.
pub(crate) async fn closed(stream: &tokio::net::UnixStream) {
    let mut byte = [0];
    loop {
        if stream.readable().await.is_err() {
            return;
        }
        match stream.try_read(&mut byte) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

/// Waits until one of the clients closes its end.
pub(crate) async fn any_closed(streams: &[tokio::net::UnixStream]) {
    streams.iter().map(closed).collect::<FuturesUnordered<_>>().next().await;
}

/// The other end has to be root's or this user's own process. `problem` says otherwise, of that user.
fn check_peer(socket: &impl AsFd, problem: impl FnOnce(u32) -> String) -> io::Result<()> {
    let peer = getsockopt(&socket.as_fd(), sockopt::PeerCredentials)?.uid();
    if peer == 0 || peer == nix::unistd::geteuid().as_raw() {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::PermissionDenied, problem(peer)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_arrives_and_works() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (near, far) = UnixStream::pair().unwrap();
            far.set_nonblocking(true).unwrap();
            let mut far = tokio::net::UnixStream::from_std(far).unwrap();
            let (mut given, kept) = UnixStream::pair().unwrap();
            let mut client = Client::new(near).unwrap();
            let request = Request::Attach { peer: Some("10.0.0.5".parse().unwrap()) };
            client.send(&request, &[kept.as_fd(), kept.as_fd()]).unwrap();
            let (received, descriptors) = receive(&far).await.unwrap();
            assert_eq!(received, request);
            assert_eq!(descriptors.len(), 2);
            given.write_all(b"x").unwrap();
            assert_eq!(nix::unistd::read(&descriptors[0], &mut [0; 9]).unwrap(), 1);
            reply(&mut far, &Reply::Exit { code: 5, text: "busy".into() }).await;
            drop(far);
            assert!(matches!(client.reply().unwrap(), Some(Reply::Exit { code: 5, .. })));
            assert!(client.reply().unwrap().is_none());
        });
    }

    #[test]
    fn too_many_descriptors_are_refused_and_closed() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (near, far) = UnixStream::pair().unwrap();
            far.set_nonblocking(true).unwrap();
            let far = tokio::net::UnixStream::from_std(far).unwrap();
            let (given, kept) = UnixStream::pair().unwrap();
            Client::new(near).unwrap().send(&Request::Status, &[kept.as_fd(); 5]).unwrap();
            drop(kept);
            assert!(receive(&far).await.is_err());
            // This end reads an end of file only if no copy of the other is left open.
            given.set_nonblocking(true).unwrap();
            assert_eq!(io::Read::read(&mut &given, &mut [0; 9]).unwrap(), 0);
        });
    }

    #[test]
    fn an_endless_request_is_cut_off() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (mut near, far) = UnixStream::pair().unwrap();
            far.set_nonblocking(true).unwrap();
            let far = tokio::net::UnixStream::from_std(far).unwrap();
            near.write_all(&[b' '; 3 * MAX_REQUEST]).unwrap();
            assert!(receive(&far).await.is_err());
        });
    }
}
