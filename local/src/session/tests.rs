use gh_net_common::frame::{Level, Notice};
use tokio::io::{DuplexStream, ReadHalf, WriteHalf, duplex};

use super::*;

type Near = LinkIo<ReadHalf<DuplexStream>, WriteHalf<DuplexStream>>;

/// A link with room for so many bytes under way, and its far end.
fn link(room: usize) -> (Near, DuplexStream) {
    let (near, far) = duplex(room);
    let (read, write) = tokio::io::split(near);
    (LinkIo { reader: FrameReader::new(read), writer: FrameWriter::new(write), settled: None }, far)
}

/// What a sidecar writes, without the preamble, which has been read long since.
async fn write(far: &mut DuplexStream, frames: &[Frame]) {
    let mut bytes = bytes::BytesMut::new();
    frames.iter().for_each(|frame| frame.encode(&mut bytes));
    tokio::io::AsyncWriteExt::write_all(far, &bytes).await.unwrap();
}

fn goodbye(reason: Reason) -> Goodbye {
    Goodbye { reason, text: "enough".into() }
}

#[tokio::test(start_paused = true)]
async fn the_answer_ends_the_farewell_even_if_our_goodbye_can_not_be_written() {
    let (mut link, mut far) = link(4096);
    link.writer.push_packet(vec![0; 60_000].into());
    let notice = Notice { level: Level::Info, code: "undone".into(), text: "undone".into() };
    write(&mut far, &[Frame::Notice(notice), Frame::Goodbye(goodbye(Reason::Done))]).await;
    let begun = tokio::time::Instant::now();
    assert_eq!(timeout(FAREWELL, farewell(&mut link)).await, Ok(true));
    assert!(begun.elapsed() < FAREWELL);
}

#[tokio::test(start_paused = true)]
async fn an_end_without_an_answer_is_no_answer() {
    let (mut link, far) = link(4096);
    drop(far);
    assert_eq!(timeout(FAREWELL, farewell(&mut link)).await, Ok(false));
}

#[test]
fn what_a_sidecar_says_is_said_once_and_has_its_exit_code() {
    let carrier = transport::LinkEnd { status: Some(3), said: "gh-net-sidecar: enough".into() };
    let refused = |reason| Error::Handshake {
        error: HandshakeError::Refused(goodbye(reason)),
        carrier: carrier.clone(),
    };
    let ended = |reason| Error::Ended { end: LinkEnd::Goodbye(goodbye(reason)), carrier: carrier.clone() };
    for (error, exit) in [
        (refused(Reason::Privilege), Exit::Sidecar),
        (refused(Reason::Busy), Exit::Sidecar),
        (ended(Reason::Tun), Exit::Sidecar),
        (ended(Reason::Terminated), Exit::Failed),
    ] {
        let failure = Failure::from(error);
        assert_eq!(failure.exit, exit);
        assert_eq!(failure.to_string().matches("enough").count(), 1, "{failure}");
    }
}
