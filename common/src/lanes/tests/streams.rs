//! Links of several lanes, from one end to the other.

use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

use super::*;
use crate::frame::{Frame, Goodbye, PREAMBLE, Reason};
use crate::framed::{FrameReader, FrameWriter, NoiseLimit, ReadError};

fn run<T>(future: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().start_paused(true).build().unwrap().block_on(future)
}

fn packet(text: &str) -> Frame {
    Frame::Packet(Bytes::copy_from_slice(text.as_bytes()))
}

fn numbered(number: u64, frame: &Frame) -> Frame {
    let mut bytes = BytesMut::new();
    frame.encode(&mut bytes);
    Frame::Numbered(number, bytes.freeze())
}

fn goodbye() -> Frame {
    Frame::Goodbye(Goodbye { reason: Reason::Done, text: String::new() })
}

/// A reader of a link with this many lanes, past the preambles, and the other ends of the lanes.
async fn reader(lanes: usize) -> (LinkReader<DuplexStream>, Vec<DuplexStream>) {
    let mut ends = Vec::new();
    let mut link: Option<LinkReader<DuplexStream>> = None;
    for _ in 0..lanes {
        let (near, mut far) = duplex(1 << 20);
        far.write_all(&PREAMBLE).await.unwrap();
        let mut lane = FrameReader::new(near);
        lane.preamble(NoiseLimit::default()).await.unwrap();
        match &mut link {
            None => link = Some(LinkReader::new(lane)),
            Some(link) => link.add_lane(lane),
        }
        ends.push(far);
    }
    (link.unwrap(), ends)
}

async fn send(end: &mut DuplexStream, frames: &[Frame]) {
    let mut bytes = BytesMut::new();
    frames.iter().for_each(|frame| frame.encode(&mut bytes));
    end.write_all(&bytes).await.unwrap();
}

#[test]
fn packets_of_a_link_that_gets_lanes_arrive_in_order() {
    run(async {
        let (near, far) = duplex(4096);
        let mut writer = LinkWriter::new(FrameWriter::new(near));
        let mut first = FrameReader::new(far);
        writer.push_packet_parts(b"0", Bytes::from_static(b"!"));
        writer.flush().await.unwrap();
        first.preamble(NoiseLimit::default()).await.unwrap();
        let mut reader = LinkReader::new(first);
        for _ in 1..4 {
            // Narrow and wide, so that frames pass each other.
            let (near, far) = duplex(if writer.lane_count() == 2 { 3 } else { 4096 });
            let mut lane = FrameWriter::new(near);
            let sender = tokio::spawn(async move {
                lane.flush().await.unwrap();
                lane
            });
            let mut receiver = FrameReader::new(far);
            receiver.preamble(NoiseLimit::default()).await.unwrap();
            reader.add_lane(receiver);
            writer.add_lane(sender.await.unwrap());
        }
        for count in 1..500 {
            writer.push_packet_parts(count.to_string().as_bytes(), Bytes::from_static(b"!"));
        }
        writer.push(&goodbye());
        let sender = tokio::spawn(async move {
            writer.flush().await.unwrap();
            writer
        });
        for count in 0..500 {
            assert_eq!(reader.next().await.unwrap(), Some(packet(&format!("{count}!"))));
        }
        assert_eq!(reader.next().await.unwrap(), Some(goodbye()));
        drop(sender.await.unwrap());
        assert_eq!(reader.next().await.unwrap(), None);
    });
}

#[test]
fn frames_about_the_link_wait_for_no_lane() {
    run(async {
        let (mut link, mut ends) = reader(3).await;
        send(&mut ends[0], &[numbered(0, &packet("a"))]).await;
        assert_eq!(link.next().await.unwrap(), Some(packet("a")));
        send(&mut ends[1], &[numbered(2, &packet("c"))]).await;
        send(&mut ends[0], &[Frame::Ping(7), Frame::Delivered { total: 9, micros: 1 }]).await;
        assert_eq!(link.next().await.unwrap(), Some(Frame::Ping(7)));
        assert_eq!(link.next().await.unwrap(), Some(Frame::Delivered { total: 9, micros: 1 }));
        send(&mut ends[2], &[numbered(1, &packet("b"))]).await;
        assert_eq!(link.next().await.unwrap(), Some(packet("b")));
        assert_eq!(link.next().await.unwrap(), Some(packet("c")));
    });
}

#[test]
fn a_lane_that_is_ahead_of_a_gap_is_not_read_on() {
    run(async {
        let (mut link, mut ends) = reader(3).await;
        send(&mut ends[0], &[numbered(0, &packet("a"))]).await;
        assert_eq!(link.next().await.unwrap(), Some(packet("a")));
        // The lane's pipe takes 1 MiB, and the reader a buffer.
        let large = vec![0; 60_000];
        let flood = async {
            let mut sent = 0;
            for number in 2.. {
                let frame = numbered(number, &Frame::Packet(Bytes::copy_from_slice(&large)));
                send(&mut ends[1], &[frame]).await;
                sent += large.len();
                assert!(sent < 2 << 20, "the reader keeps what comes ahead of its turn");
            }
        };
        let stalled = tokio::time::timeout(Duration::from_secs(1), async {
            tokio::select! {
                () = flood => {}
                frame = link.next() => panic!("{frame:?} came before its turn"),
            }
        });
        assert!(stalled.await.is_err());
        // What was missing is all that it takes.
        send(&mut ends[2], &[numbered(1, &packet("b"))]).await;
        assert_eq!(link.next().await.unwrap(), Some(packet("b")));
        assert!(matches!(link.next().await.unwrap(), Some(Frame::Packet(_))));
    });
}

#[test]
fn a_lane_that_ends_ends_the_link_but_not_before_a_goodbye_on_its_way() {
    run(async {
        let (mut link, mut ends) = reader(3).await;
        drop(ends.remove(1));
        let soon = tokio::time::timeout(Duration::from_millis(100), link.next()).await;
        assert!(soon.is_err());
        send(&mut ends[0], &[numbered(0, &goodbye())]).await;
        assert_eq!(link.next().await.unwrap(), Some(goodbye()));
        assert_eq!(link.next().await.unwrap(), None);
    });
}

/// Pings over the first lane until the link ends. Returns how.
async fn end_of(link: &mut LinkReader<DuplexStream>, mut first: DuplexStream) -> ReadError {
    let pings = tokio::spawn(async move {
        loop {
            send(&mut first, &[Frame::Ping(1)]).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    let error = loop {
        match link.next().await {
            Ok(frame) => assert_eq!(frame, Some(Frame::Ping(1))),
            Err(error) => break error,
        }
    };
    pings.abort();
    error
}

#[test]
fn a_lane_that_brings_nothing_ends_the_link_although_the_others_do() {
    run(async {
        let (mut link, mut ends) = reader(3).await;
        send(&mut ends[1], &[numbered(1, &packet("b"))]).await;
        let error = end_of(&mut link, ends.remove(0)).await;
        assert!(error.to_string().contains("brought nothing"), "{error}");
    });
}

#[test]
fn an_end_that_was_suspended_waits_once_more_for_what_is_missing() {
    run(async {
        let (mut link, mut ends) = reader(3).await;
        send(&mut ends[1], &[numbered(1, &packet("b"))]).await;
        let soon = tokio::time::timeout(Duration::from_millis(1), link.next()).await;
        assert!(soon.is_err());
        tokio::time::advance(Duration::from_secs(600)).await;
        let soon = tokio::time::timeout(Duration::from_millis(1), link.next()).await;
        assert!(soon.is_err());
        send(&mut ends[0], &[numbered(0, &packet("a"))]).await;
        assert_eq!(link.next().await.unwrap(), Some(packet("a")));
        assert_eq!(link.next().await.unwrap(), Some(packet("b")));
    });
}

#[test]
fn an_unnumbered_frame_of_the_session_breaks_the_protocol_behind_or_beside_numbered_ones() {
    run(async {
        let (mut link, mut ends) = reader(2).await;
        send(&mut ends[1], &[packet("x")]).await;
        assert!(matches!(link.next().await, Err(ReadError::Frame(_))));
        let (mut link, mut ends) = reader(2).await;
        send(&mut ends[1], &[Frame::Ping(1)]).await;
        assert!(matches!(link.next().await, Err(ReadError::Frame(_))));
        let (mut link, mut ends) = reader(2).await;
        send(&mut ends[0], &[packet("x"), numbered(0, &packet("y")), packet("z")]).await;
        assert_eq!(link.next().await.unwrap(), Some(packet("x")));
        assert_eq!(link.next().await.unwrap(), Some(packet("y")));
        assert!(matches!(link.next().await, Err(ReadError::Frame(_))));
    });
}

#[test]
fn a_frame_of_an_unknown_kind_takes_its_turn_and_is_skipped() {
    run(async {
        let (mut link, mut ends) = reader(3).await;
        let unknown = Bytes::from_static(&[200, 0, 0, 1, 9]);
        send(&mut ends[1], &[Frame::Numbered(2, unknown.clone()), numbered(3, &packet("d"))]).await;
        send(&mut ends[2], &[Frame::Numbered(1, unknown.clone())]).await;
        send(&mut ends[0], &[Frame::Numbered(0, unknown)]).await;
        assert_eq!(link.next().await.unwrap(), Some(packet("d")));
    });
}

#[test]
fn what_may_not_have_a_number_breaks_the_protocol() {
    let inner = numbered(1, &packet("x"));
    let torn = Frame::Numbered(0, Bytes::from_static(&[4, 0, 0, 9, 1]));
    for frame in [numbered(0, &Frame::Ping(1)), numbered(0, &inner), torn, Frame::Numbered(0, Bytes::new())] {
        run(async {
            let (mut link, mut ends) = reader(2).await;
            send(&mut ends[0], &[frame]).await;
            assert!(matches!(link.next().await, Err(ReadError::Frame(_))));
        });
    }
}
