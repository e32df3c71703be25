//! The room for unsafe code of this crate: what has no safe interface elsewhere gets one here.

#![allow(unsafe_code, reason = "the compiler denies it everywhere else")]

use std::io;
use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, ready};

use tokio::io::ReadBuf;
use tokio::io::unix::AsyncFd;

/// An open descriptor whose readiness tokio's tasks can await. Nothing can exchange the descriptor, as the [`AsyncFd`]
/// alone would allow: it is only lent.
#[derive(Debug)]
pub struct ReadyFd(AsyncFd<OwnedFd>);

impl ReadyFd {
    /// Registers `fd`, which must not block. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The kernel can't poll such a file.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        // SAFETY: an `OwnedFd` is the same open descriptor as long as it exists, and it can't be taken out or replaced:
        // only `Deref` leads to it, and that lends it unchangeably.
        Ok(Self(unsafe { AsyncFd::register(fd) }?))
    }

    /// Reads into the room of `buffer`, whose memory need not be initialised. Ready without any bytes at the end of the
    /// file, or if there is no room.
    pub fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(cx))?;
            // SAFETY: `read` does not make initialised memory uninitialised.
            let room = unsafe { buffer.unfilled_mut() };
            match guard.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), room)?.0.len())) {
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Ok(Ok(length)) => {
                    // SAFETY: these are the bytes that `read` has filled.
                    unsafe { buffer.assume_init(length) };
                    buffer.advance(length);
                    return Poll::Ready(Ok(()));
                }
                Err(_would_block) => {}
            }
        }
    }
}

impl Deref for ReadyFd {
    type Target = AsyncFd<OwnedFd>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::Write;
    use std::mem::MaybeUninit;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[tokio::test]
    async fn bytes_are_read_behind_those_that_are_there_already() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let ours = ReadyFd::new(ours.into()).unwrap();
        let mut memory = [MaybeUninit::uninit(); 8];
        let mut buffer = ReadBuf::uninit(&mut memory);
        buffer.put_slice(b"> ");
        // It waits for the second piece, and the third one does not fit.
        for (sent, seen) in [("one", "> one"), ("three", "> onethr"), ("", "> onethr")] {
            theirs.write_all(sent.as_bytes()).unwrap();
            poll_fn(|cx| ours.poll_read(cx, &mut buffer)).await.unwrap();
            assert_eq!(buffer.filled(), seen.as_bytes());
        }
        drop(theirs);
        let mut rest = [0; 8];
        for seen in ["ee", ""] {
            let mut buffer = ReadBuf::new(&mut rest);
            poll_fn(|cx| ours.poll_read(cx, &mut buffer)).await.unwrap();
            assert_eq!(buffer.filled(), seen.as_bytes());
        }
    }
}
