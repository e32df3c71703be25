//! A link: the stdin and stdout of one ssh session, passed to the owner, and the handshake over them.

use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use gh_net_common::frame::{Frame, Goodbye, Open, Reason};
use gh_net_common::framed::{FrameReader, FrameWriter, NoiseLimit};
use gh_net_common::hello::{self, Side};
use gh_net_common::lanes::{LinkReader, LinkWriter};
use gh_net_common::sys::ReadyFd;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::select;
use tokio::time::timeout;

use super::handover::{self, Reply};
use crate::exit;

pub(crate) mod pump;

use pump::Pump;

/// Time limit from the first byte to [`Open`].
const HANDSHAKE: Duration = Duration::from_secs(30);
/// Time limit for sending a goodbye.
pub(crate) const GOODBYE_TIMEOUT: Duration = Duration::from_secs(3);

/// A pipe or socket that was passed to us. O_NONBLOCK is a flag of the open file, which other processes share, so it is
/// restored at the end.
#[derive(Debug)]
pub(crate) struct Stream {
    fd: ReadyFd,
    flags: OFlag,
}

impl Stream {
    /// Both ends of a link. They may be the same socket.
    fn pair(stdin: OwnedFd, stdout: OwnedFd) -> io::Result<(Self, Self)> {
        let flags = |fd: &OwnedFd| Ok::<_, io::Error>(OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?));
        // Both are read before either is changed.
        let (stdin_flags, stdout_flags) = (flags(&stdin)?, flags(&stdout)?);
        Ok((Self::new(stdin, stdin_flags)?, Self::new(stdout, stdout_flags)?))
    }

    fn new(fd: OwnedFd, flags: OFlag) -> io::Result<Self> {
        fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        Ok(Self { fd: ReadyFd::new(fd)?, flags })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let _ = fcntl(self.fd.get_ref(), FcntlArg::F_SETFL(self.flags));
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.fd.poll_read(cx, buffer)
    }
}

impl Stream {
    fn poll_io(
        &self,
        cx: &mut Context<'_>,
        mut io: impl FnMut(&OwnedFd) -> nix::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.fd.poll_write_ready(cx))?;
            match guard.try_io(|fd| Ok(io(fd.get_ref())?)) {
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(result) => return Poll::Ready(result),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_io(cx, |fd| nix::unistd::write(fd, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_io(cx, |fd| nix::sys::uio::writev(fd, slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The ssh sessions that carry the frames of a link: one, or several [lanes](gh_net_common::lanes).
#[derive(Debug)]
pub(crate) struct Link {
    /// Moves the frames.
    pub(crate) pump: Pump<Stream>,
    /// The client's end of the ssh connection, if it is known.
    pub(crate) peer: Option<IpAddr>,
    /// For each lane, the connection to the `attach` that waits for the link's end.
    controls: Vec<UnixStream>,
}

impl Link {
    /// A link over stdin and stdout of an `attach`.
    ///
    /// # Errors
    /// They can't be polled. Report this to `attach` over the returned connection.
    pub(crate) fn new(
        stdin: OwnedFd,
        stdout: OwnedFd,
        control: UnixStream,
        peer: Option<IpAddr>,
    ) -> Result<Self, (io::Error, UnixStream)> {
        let (stdin, stdout) = match Stream::pair(stdin, stdout) {
            Ok(pair) => pair,
            Err(error) => return Err((error, control)),
        };
        let pump =
            Pump::new(LinkReader::new(FrameReader::new(stdin)), LinkWriter::new(FrameWriter::new(stdout)));
        Ok(Self { pump, peer, controls: vec![control] })
    }

    /// Exchanges hellos and receives the laptop's request.
    ///
    /// # Errors
    /// The goodbye for the laptop.
    pub(crate) async fn handshake(&mut self) -> Result<Open, Goodbye> {
        let seconds = HANDSHAKE.as_secs();
        let (pump, controls) = self.parts();
        select! {
            result = timeout(HANDSHAKE, shake_hands(pump)) => result
                .unwrap_or_else(|_| Err(protocol(format!("no complete handshake within {seconds} seconds")))),
            () = handover::any_closed(controls) => Err(protocol("attach ended during the handshake".to_owned())),
        }
    }

    /// The pump, and the connections of which one closes when an `attach` is gone.
    pub(crate) fn parts(&mut self) -> (&mut Pump<Stream>, &[UnixStream]) {
        (&mut self.pump, &self.controls)
    }

    /// Whether `lane` can be this link's lane of that number: it is the next one, and comes over the same ssh connection,
    /// as far as is known. The way to another one would not be kept out of the tunnel.
    pub(crate) fn takes_lane(&self, lane: &Self, number: u8) -> bool {
        let writer = &self.pump.writer;
        writer.may_have_another() && usize::from(number) == writer.lane_count() && lane.peer == self.peer
    }

    /// `lane`, which the laptop has opened like a link, carries frames of this link from now on, after its answer.
    pub(crate) fn add_lane(&mut self, mut lane: Self, answer: &Frame) {
        lane.pump.writer.push(answer);
        self.pump.reader.add_lane(lane.pump.reader.into_first());
        self.pump.writer.add_lane(lane.pump.writer.into_first());
        self.controls.append(&mut lane.controls);
    }

    /// Waits until the laptop no longer waits for the answer to its request. Returns the goodbye for it. Cancel safe.
    pub(crate) async fn given_up(&mut self) -> Goodbye {
        let (pump, controls) = self.parts();
        let done = |text: &str| Goodbye { reason: Reason::Done, text: text.to_owned() };
        select! {
            next = pump.reader.next() => match next {
                Ok(Some(Frame::Goodbye(goodbye))) => Goodbye { reason: Reason::Done, ..goodbye },
                Ok(Some(_)) => protocol("a message before the session was opened".to_owned()),
                Ok(None) => done("the link was closed"),
                Err(error) => protocol(error.to_string()),
            },
            () = handover::any_closed(controls) => done("attach was ended"),
        }
    }

    /// Ends the link: the goodbye to the laptop, the exit code to `attach`.
    pub(crate) async fn end(mut self, goodbye: Goodbye) {
        self.pump.writer.push(&Frame::Goodbye(goodbye.clone()));
        if !matches!(timeout(GOODBYE_TIMEOUT, self.pump.writer.flush()).await, Ok(Ok(()))) {
            tracing::debug!("the laptop did not read the goodbye");
        }
        self.leave(exit::code(goodbye.reason), goodbye.text).await;
    }

    /// Ends a link without a goodbye to the laptop.
    pub(crate) async fn leave(self, code: u8, text: String) {
        let Self { pump, controls, .. } = self;
        drop(pump);
        for mut control in controls {
            handover::reply(&mut control, &Reply::Exit { code, text: text.clone() }).await;
        }
    }
}

/// Exchanges hellos and receives the laptop's request.
async fn shake_hands(pump: &mut Pump<Stream>) -> Result<Open, Goodbye> {
    let ours = hello::ours();
    let Pump { reader, writer, .. } = pump;
    writer.push(&Frame::Hello(ours.clone()));
    writer.flush().await.map_err(|error| protocol(error.to_string()))?;
    let limit = NoiseLimit { time: HANDSHAKE, ..NoiseLimit::default() };
    reader.first().preamble(limit).await.map_err(|error| protocol(error.to_string()))?;
    let mut next = async || match reader.next().await {
        Ok(Some(frame)) => Ok(frame),
        Ok(None) => Err(protocol("the connection ended during the handshake".to_owned())),
        Err(error) => Err(protocol(error.to_string())),
    };
    let Frame::Hello(theirs) = next().await? else {
        return Err(protocol("the first message is not a hello".to_owned()));
    };
    let agreed = hello::negotiate(Side::Codespace, &ours, &theirs)
        .map_err(|mismatch| Goodbye { reason: Reason::Version, text: mismatch.to_string() })?;
    if agreed.has_lanes() {
        writer.allow_lanes();
    }
    let second = next().await?;
    if let Frame::Open(open) = second {
        return Ok(open);
    }
    let Frame::Goodbye(goodbye) = second else {
        return Err(protocol("the second message does not open a session".to_owned()));
    };
    Err(goodbye)
}

/// The goodbye for a side that violates the protocol.
pub(crate) fn protocol(text: String) -> Goodbye {
    Goodbye { reason: Reason::Protocol, text }
}

/// Whether frames can pass over this descriptor: a pipe or a socket.
pub(crate) fn is_pipe(fd: &impl AsFd) -> bool {
    use nix::sys::stat::{SFlag, fstat};
    let kind = |mode: u32| SFlag::from_bits_truncate(mode) & SFlag::S_IFMT;
    fstat(fd).is_ok_and(|found| matches!(kind(found.st_mode), SFlag::S_IFIFO | SFlag::S_IFSOCK))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocking_mode_is_restored_even_if_both_ends_are_one_socket() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        let _entered = runtime.enter();
        let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let flags = || OFlag::from_bits_retain(fcntl(&ours, FcntlArg::F_GETFL).unwrap());
        let (stdin, stdout) =
            Stream::pair(ours.try_clone().unwrap().into(), ours.try_clone().unwrap().into()).unwrap();
        assert!(flags().contains(OFlag::O_NONBLOCK));
        drop(stdin);
        drop(stdout);
        assert!(!flags().contains(OFlag::O_NONBLOCK));
    }

    #[test]
    fn only_pipes_and_sockets_carry_frames() {
        let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(is_pipe(&socket));
        assert!(is_pipe(&nix::unistd::pipe().unwrap().0));
        assert!(!is_pipe(&std::fs::File::open("/dev/null").unwrap()));
        assert!(!is_pipe(&tempfile::tempfile().unwrap()));
    }
}
