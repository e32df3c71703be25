//! The first words of a link: preambles and hellos.

use gh_net_common::frame::Frame;
use gh_net_common::framed::{FrameReader, FrameWriter, NoiseLimit, PreambleError, ReadError};
use gh_net_common::hello::{self, Agreed, Mismatch, Side};
use tokio::io::{AsyncRead, AsyncWrite};

/// Why there was no handshake.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The other side does not speak our protocol.
    #[error(transparent)]
    Preamble(#[from] PreambleError),
    /// It speaks another version of it.
    #[error(transparent)]
    Version(#[from] Mismatch),
    /// It broke the protocol.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It said goodbye at once.
    #[error("the sidecar refused the session: {0}")]
    Refused(String),
    /// It ended, or said something else, where its hello was due.
    #[error("the sidecar did not say hello")]
    NoHello,
}

/// Sends our preamble and hello, and waits for theirs.
///
/// # Errors
/// See [`Error`].
pub async fn shake_hands<R, W>(
    reader: &mut FrameReader<R>,
    writer: &mut FrameWriter<W>,
) -> Result<Agreed, Error>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let ours = hello::ours();
    writer.push(&Frame::Hello(ours.clone()));
    // If the other side is gone already, what it said instead is found below.
    let _ = writer.flush().await;
    let noise = reader.preamble(NoiseLimit::default()).await?;
    if !noise.is_empty() {
        let text = hello::printable(&String::from_utf8_lossy(&noise));
        tracing::debug!("before the sidecar spoke there came: {}", text.trim_end());
    }
    match reader.next().await? {
        Some(Frame::Hello(theirs)) => Ok(hello::negotiate(Side::Laptop, &ours, &theirs)?),
        Some(Frame::Goodbye(goodbye)) => Err(Error::Refused(hello::printable(&goodbye.text))),
        Some(_) | None => Err(Error::NoHello),
    }
}
