//! The orderly end of a session: the exchange of goodbyes.

use std::time::{Duration, Instant};

use gh_net_common::frame::{Frame, Goodbye, Reason};
use gh_net_common::hello::printable;
use gh_net_common::lanes::LinkReader;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use crate::io::{LinkIo, Notices};

/// How long the sidecar may take to undo its changes and to answer our goodbye.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(5);

/// Sends our goodbye and waits for the sidecar's, which comes once everything is undone. Its text is printable.
/// `None` if it does not come in time. Frames already queued, such as resets of flows, are sent first.
pub(super) async fn exchange_goodbyes<R, W>(
    link: &mut LinkIo<R, W>,
    reason: Reason,
    text: &str,
) -> Option<Goodbye>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    link.writer.push(&Frame::Goodbye(Goodbye { reason, text: text.to_owned() }));
    // The sidecar may read only while we read, so both happen at the same time. A failed write is not reported: either
    // reading fails as well, or the goodbye still arrives.
    let write = async {
        let _ = link.writer.flush().await;
        std::future::pending().await
    };
    let exchange = async {
        tokio::select! {
            goodbye = answer(&mut link.reader) => goodbye,
            () = write => None,
        }
    };
    timeout(GOODBYE_TIMEOUT, exchange).await.ok().flatten()
}

async fn answer<R: AsyncRead + Unpin>(reader: &mut LinkReader<R>) -> Option<Goodbye> {
    let mut notices = Notices::default();
    loop {
        match reader.next().await {
            Ok(Some(Frame::Notice(notice))) => notices.show(&notice, Instant::now()),
            Ok(Some(Frame::Goodbye(Goodbye { reason, text }))) => {
                return Some(Goodbye { reason, text: printable(&text) });
            }
            Ok(None) | Err(_) => return None,
            // Packets and reports that were under way.
            Ok(Some(_)) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use gh_net_common::frame::{Level, Notice};
    use gh_net_common::framed::{FrameReader, FrameWriter, NoiseLimit};
    use tokio::io::{AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};

    use super::*;

    type Near = LinkIo<ReadHalf<DuplexStream>, WriteHalf<DuplexStream>>;

    /// A link with room for this many bytes in each direction, and its other end.
    fn link(room: usize) -> (Near, DuplexStream) {
        let (near, far) = duplex(room);
        let (read, write) = split(near);
        (LinkIo::new(FrameReader::new(read), FrameWriter::new(write)), far)
    }

    /// Writes frames as a sidecar does, without the preamble, which was read before.
    async fn write(far: &mut DuplexStream, frames: &[Frame]) {
        let mut bytes = bytes::BytesMut::new();
        frames.iter().for_each(|frame| frame.encode(&mut bytes));
        far.write_all(&bytes).await.unwrap();
    }

    fn goodbye(text: &str) -> Goodbye {
        Goodbye { reason: Reason::Terminated, text: text.into() }
    }

    #[tokio::test(start_paused = true)]
    async fn the_answer_is_received_even_if_our_goodbye_cannot_be_written() {
        let (mut link, mut far) = link(4096);
        link.writer.push_packet(vec![0; 60_000].into());
        let notice = Notice { level: Level::Info, code: "undone".into(), text: "undone".into() };
        write(&mut far, &[Frame::Notice(notice), Frame::Goodbye(goodbye("\x07bye"))]).await;
        let begun = tokio::time::Instant::now();
        assert_eq!(exchange_goodbyes(&mut link, Reason::Done, "").await, Some(goodbye("\u{fffd}bye")));
        assert!(begun.elapsed() < GOODBYE_TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_of_stream_and_silence_are_no_answer() {
        let (mut ended, far) = link(4096);
        drop(far);
        assert_eq!(exchange_goodbyes(&mut ended, Reason::Done, "").await, None);
        let (mut silent, _far) = link(4096);
        assert_eq!(exchange_goodbyes(&mut silent, Reason::Done, "").await, None);
    }

    #[tokio::test]
    async fn queued_frames_are_sent_before_the_goodbye() {
        let (mut link, far) = link(4096);
        let reset = Frame::Packet(vec![0x45; 40].into());
        link.writer.push_packet(vec![0x45; 40].into());
        let (read, mut write_half) = split(far);
        let mut reader = FrameReader::new(read);
        let sidecar = async {
            reader.preamble(NoiseLimit::default()).await.unwrap();
            assert_eq!(reader.next().await.unwrap(), Some(reset));
            let heard = reader.next().await.unwrap();
            let ours = Goodbye { reason: Reason::Done, text: "ended by the user".into() };
            assert_eq!(heard, Some(Frame::Goodbye(ours)));
            let mut bytes = bytes::BytesMut::new();
            Frame::Goodbye(goodbye("undone")).encode(&mut bytes);
            write_half.write_all(&bytes).await.unwrap();
        };
        let (answer, ()) =
            tokio::join!(exchange_goodbyes(&mut link, Reason::Done, "ended by the user"), sidecar);
        assert_eq!(answer, Some(goodbye("undone")));
    }
}
