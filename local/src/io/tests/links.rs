//! The link: its frames, how it ends, and what survives it.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use gh_net_common::frame::{
    DnsMode, Frame, Goodbye, Level, Notice, PREAMBLE, Reason, Routes, SidecarCounters, SidecarStatus,
};
use gh_net_common::framed::{FrameReader, FrameWriter, NoiseLimit};
use gh_net_common::lanes::MAX_LANES;
use tokio::io::{DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::sync::{oneshot, watch};

use super::super::{Control, IdleTimeout, Lane, LinkEnd, LostLink, ProtocolError, Quiet};
use super::codespace::{Codespace, Running, io, io_with, run};

#[tokio::test]
async fn a_download_continues_across_repeated_cuts() {
    const LEN: usize = 6_000_000;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let body: Vec<u8> = (0..LEN).map(|i| (i * 11 + i / 253) as u8).collect();
    let expected = body.clone();
    let served = thread::spawn(move || listener.accept().unwrap().0.write_all(&body).unwrap());

    let (mut codespace, laptop) = Codespace::new();
    let mut running = run(io(), laptop);
    codespace.greet().await;
    let handle = codespace.connect(address);
    let mut heard = Vec::new();
    for stop in [1, 500_000, 2_000_000, 4_000_000, LEN] {
        codespace
            .until(|codespace| {
                let socket = codespace.tcp(handle);
                while socket.can_recv() && heard.len() < stop {
                    socket.recv(|bytes| (bytes.len(), heard.extend_from_slice(bytes))).unwrap();
                }
                (heard.len() >= stop).then_some(())
            })
            .await;
        if stop < LEN {
            let laptop = codespace.relink();
            let (mut io, end) = running.end().await;
            assert!(matches!(end, LinkEnd::Lost(_)), "{end:?}");
            let (_control, mut control) = tokio::sync::mpsc::channel(crate::io::CONTROLS);
            let waited = io.run_unlinked(tokio::time::sleep(Duration::from_millis(30)), &mut control).await;
            assert_eq!(waited.unwrap(), Some(()));
            running = run(io, laptop);
            codespace.greet().await;
        }
    }
    assert!(heard == expected);
    served.join().unwrap();
}

#[tokio::test]
async fn a_ping_is_answered_at_once_and_ours_are_timed() {
    let (mut codespace, laptop) = Codespace::new();
    let running = run(io(), laptop);
    codespace.greet().await;
    codespace.send_frame(&Frame::Ping(77));
    let frame = codespace.until(|codespace| codespace.frames.pop_front()).await;
    assert_eq!(frame, Frame::Pong(77));
    running.control.try_send(Control::Shutdown).unwrap();
    let (io, end) = running.end().await;
    assert!(matches!(end, LinkEnd::Shutdown));
    assert!(io.counters().round_trip.is_some());
}

#[tokio::test]
async fn frames_of_the_session_are_sent_and_a_goodbye_ends_it() {
    let (mut codespace, laptop) = Codespace::new();
    let running = run(io(), laptop);
    codespace.greet().await;
    let routes = Frame::Routes(Routes::Last(vec!["10.0.0.0/8".parse().unwrap()]));
    running.control.try_send(Control::Send(routes.clone())).unwrap();
    assert_eq!(codespace.until(|codespace| codespace.frames.pop_front()).await, routes);
    codespace.send_frame(&Frame::Notice(Notice {
        level: Level::Warning,
        code: "x".into(),
        text: "\x1b[2Jcareful".into(),
    }));
    codespace.send_frame(&Frame::Goodbye(Goodbye { reason: Reason::Terminated, text: "\x07bye".into() }));
    codespace.until(|_| Some(())).await;
    let (_, end) = running.end().await;
    let LinkEnd::Goodbye(goodbye) = end else { panic!("{end:?}") };
    assert_eq!(goodbye.reason, Reason::Terminated);
    assert_eq!(goodbye.text, "\u{fffd}bye", "nothing that drives a terminal");
}

#[tokio::test]
async fn an_unexpected_frame_violates_the_protocol_and_an_end_of_stream_loses_the_link() {
    let (mut codespace, laptop) = Codespace::new();
    let running = run(io(), laptop);
    codespace.greet().await;
    codespace.send_frame(&Frame::Routes(Routes::Last(vec![])));
    codespace.until(|_| Some(())).await;
    let (_, end) = running.end().await;
    assert!(matches!(end, LinkEnd::Protocol(ProtocolError::Unexpected(_))), "{end:?}");

    let (mut codespace, laptop) = Codespace::new();
    let running = run(io(), laptop);
    codespace.greet().await;
    drop(codespace);
    let (_, end) = running.end().await;
    assert!(matches!(end, LinkEnd::Lost(LostLink::Ended | LostLink::Write(_))), "{end:?}");
}

/// Takes the laptop's frames, answering each request to be quiet, until the link is quiet. Returns how many answers to
/// keepalives the laptop left.
async fn until_quiet(codespace: &mut Codespace, quiet: &watch::Receiver<Quiet>) -> usize {
    let mut standby = 0;
    codespace
        .until(|codespace| {
            while let Some(frame) = codespace.frames.pop_front() {
                standby += usize::from(matches!(frame, Frame::Standby(_)));
                if matches!(frame, Frame::Quiet(1..)) {
                    codespace.send_frame(&Frame::Quiet(0));
                }
            }
            quiet.borrow().quiet.then_some(())
        })
        .await;
    standby
}

#[tokio::test]
async fn an_idle_link_becomes_quiet_and_data_of_either_side_wakes_it() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (mut codespace, laptop) = Codespace::new();
    let quiet = laptop.quiet.subscribe();
    let running = run(io_with(IdleTimeout(Duration::from_secs(1))), laptop);
    codespace.greet().await;
    let handle = codespace.connect(address);
    codespace.until(|codespace| codespace.tcp(handle).may_send().then_some(())).await;
    let (mut server, _) = listener.accept().unwrap();
    for round in 0..3_u8 {
        assert!(until_quiet(&mut codespace, &quiet).await >= 1, "an answer for the connection");
        if round == 1 {
            codespace.tcp(handle).send_slice(b"x").unwrap();
            codespace.until(|_| (!quiet.borrow().quiet).then_some(())).await;
            server.read_exact(&mut [0]).unwrap();
        } else {
            server.write_all(b"x").unwrap();
            codespace
                .until(|codespace| {
                    let socket = codespace.tcp(handle);
                    socket.can_recv().then(|| socket.recv(|bytes| (bytes.len(), ())).unwrap())
                })
                .await;
            assert!(!quiet.borrow().quiet);
        }
    }
    running.control.try_send(Control::Shutdown).unwrap();
    running.end().await;
}

/// It alternates answers and other frames, and reads nothing.
#[tokio::test]
async fn a_sidecar_that_plays_with_the_quiet_makes_nothing_grow() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (mut codespace, laptop) = Codespace::new();
    let running = run(io_with(IdleTimeout(Duration::from_millis(1))), laptop);
    codespace.greet().await;
    for _ in 0..50 {
        let handle = codespace.connect(address);
        codespace.until(|codespace| codespace.tcp(handle).may_send().then_some(())).await;
    }
    for _ in 0..10_000 {
        codespace.send_frame(&Frame::Quiet(0));
        codespace.send_frame(&Frame::Delivered { total: 0, micros: 0 });
    }
    codespace.flush().await;
    codespace.send_frame(&Frame::Goodbye(Goodbye { reason: Reason::Done, text: String::new() }));
    codespace.flush().await;
    let (_, _, link) = running.end_with_link().await;
    let queued = link.writer.queued();
    assert!(queued < 64 * 1024, "{queued} bytes");
}

/// A lane of which only the laptop's end is of interest, and the other end.
async fn lane() -> (Lane<ReadHalf<DuplexStream>, WriteHalf<DuplexStream>>, DuplexStream) {
    let (here, mut there) = duplex(4096);
    let (reader, writer) = split(here);
    let mut reader = FrameReader::new(reader);
    tokio::io::AsyncWriteExt::write_all(&mut there, &PREAMBLE).await.unwrap();
    reader.preamble(NoiseLimit::default()).await.unwrap();
    ((reader, FrameWriter::new(writer)), there)
}

#[tokio::test]
async fn a_sidecar_that_always_wants_another_lane_gets_as_many_as_a_link_may_have() {
    let (mut codespace, mut laptop) = Codespace::new();
    let (mut asked, opened) = laptop.allow_lanes();
    let running = run(io(), laptop);
    codespace.greet().await;
    let mut others = Vec::new();
    for _ in 1..MAX_LANES {
        codespace.send_frame(&Frame::WantLane);
        codespace.flush().await;
        asked.recv().await.unwrap();
        let (lane, other) = lane().await;
        opened.send(lane).await.unwrap();
        others.push(other);
    }
    // The last one is in use.
    while opened.capacity() == 0 {
        tokio::task::yield_now().await;
    }
    for _ in 0..1000 {
        codespace.send_frame(&Frame::WantLane);
    }
    codespace.send_frame(&Frame::Ping(1));
    assert_eq!(codespace.until(|codespace| codespace.frames.pop_front()).await, Frame::Pong(1));
    assert!(asked.try_recv().is_err());
    running.control.try_send(Control::Shutdown).unwrap();
    let (io, end) = running.end().await;
    assert!(matches!(end, LinkEnd::Shutdown), "{end:?}");
    assert_eq!(io.counters().lanes, MAX_LANES);
}

#[tokio::test]
async fn without_a_link_it_can_be_stopped() {
    let (sender, mut control) = tokio::sync::mpsc::channel(crate::io::CONTROLS);
    let mut io = io();
    sender.try_send(Control::Shutdown).unwrap();
    assert_eq!(io.run_unlinked(std::future::pending::<()>(), &mut control).await.unwrap(), None);
}

/// Ends a link with a connection on it by `end`. The connection must be reset on both sides.
async fn reset_at_the_end(end: impl AsyncFnOnce(&mut Codespace, &Running)) -> LinkEnd {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (mut codespace, laptop) = Codespace::new();
    let running = run(io(), laptop);
    codespace.greet().await;
    let handle = codespace.connect(address);
    codespace.until(|codespace| codespace.tcp(handle).may_send().then_some(())).await;
    let (mut server, _) = listener.accept().unwrap();
    end(&mut codespace, &running).await;
    let (_, end, mut link) = running.end_with_link().await;
    assert_eq!(server.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    // The session queues its goodbye behind the resets.
    let goodbye = Frame::Goodbye(Goodbye { reason: Reason::Done, text: String::new() });
    link.writer.push(&goodbye);
    link.writer.flush().await.unwrap();
    let heard = codespace.until(|codespace| codespace.frames.pop_front()).await;
    assert_eq!(heard, goodbye);
    assert!(!codespace.tcp(handle).is_open(), "reset by what came before the goodbye");
    end
}

#[tokio::test]
async fn flows_are_reset_on_both_sides_ahead_of_a_goodbye() {
    let end = reset_at_the_end(async |_, running| {
        running.control.try_send(Control::Shutdown).unwrap();
    });
    assert!(matches!(end.await, LinkEnd::Shutdown));
}

#[tokio::test]
async fn flows_are_reset_when_the_sidecar_is_about_to_end() {
    let end = reset_at_the_end(async |codespace, _| {
        codespace.send_frame(&Frame::Ending);
        codespace.until(|_| Some(())).await;
    });
    assert!(matches!(end.await, LinkEnd::Ending));
}

#[tokio::test]
async fn a_report_asks_the_sidecar_at_a_bounded_rate() {
    let (mut codespace, laptop) = Codespace::new();
    let running = run(io(), laptop);
    codespace.greet().await;
    let report = async || {
        let (answer, report) = oneshot::channel();
        running.control.try_send(Control::Report(answer)).unwrap();
        report.await.unwrap()
    };
    assert!(report().await.sidecar.is_none() && report().await.sidecar.is_none());
    assert_eq!(codespace.until(|codespace| codespace.frames.pop_front()).await, Frame::AskStatus);
    let status = SidecarStatus {
        uptime: 7,
        dns: DnsMode::Split,
        resolver_hook: true,
        routes: 3,
        counters: SidecarCounters::default(),
    };
    codespace.send_frame(&Frame::SidecarStatus(status));
    codespace.send_frame(&Frame::Ping(1));
    assert_eq!(
        codespace.until(|codespace| codespace.frames.pop_front()).await,
        Frame::Pong(1),
        "one request"
    );
    assert_eq!(report().await.sidecar.map(|(status, _)| status), Some(status));
}
