//! Further lanes of a link: who may add one, what may come over it, and what happens when one ends.

use std::fs;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use gh_net_common::frame::{Frame, Goodbye, Hello, Open, Opened, Reason, Token};
use gh_net_common::hello::{self, LANES};
use gh_net_common::lanes::MAX_LANES;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::timeout;

use crate::codespace::{in_codespace, owner, sh};
use crate::laptop::{Laptop, done, open, resume, routes};

const TABLE: &str = "ip route show table 26727";

/// The request for a lane of the session's first link.
fn lane(opened: &Opened, lane: u8) -> Open {
    Open { link: 0, lane, ..resume(opened) }
}

async fn add(request: Open) -> Result<Laptop, Goodbye> {
    let mut laptop = Laptop::connect().await;
    laptop.ask(request).await.map(|_| laptop)
}

async fn refusal(request: Open) -> Reason {
    add(request).await.map(drop).expect_err("a refusal").reason
}

/// A session whose link has this many lanes: the first, and the others.
async fn session(lanes: usize) -> (Laptop, Vec<Laptop>, Opened) {
    let (first, opened) = Laptop::session(60).await;
    let mut others = Vec::new();
    for number in 1..lanes {
        others.push(add(lane(&opened, number as u8)).await.expect("a lane"));
    }
    (first, others, opened)
}

fn numbered(number: u64, frame: &Frame) -> Frame {
    let mut bytes = BytesMut::new();
    frame.encode(&mut bytes);
    Frame::Numbered(number, bytes.freeze())
}

/// The frame in a numbered one.
fn inner(frame: Frame) -> Option<Frame> {
    match frame {
        Frame::Numbered(_, bytes) => Frame::decode_numbered(bytes).expect("a frame"),
        _ => None,
    }
}

#[test]
fn a_link_has_as_many_lanes_as_are_allowed_and_their_frames_have_one_order() {
    in_codespace(|| async {
        let (mut first, mut others, opened) = session(MAX_LANES).await;
        for beyond in [MAX_LANES as u8, MAX_LANES as u8 + 1, 1, u8::MAX] {
            assert_eq!(refusal(lane(&opened, beyond)).await, Reason::Failed);
        }
        // The second set of routes comes first.
        let [old, new] = ["10.20.0.0/16", "10.30.0.0/16"].map(|net| routes(&[net]));
        others[4].send(&[numbered(2, &new)]).await;
        others[2].send(&[numbered(1, &old)]).await;
        first.send(&[numbered(0, &routes(&[]))]).await;
        others[0].send(&[numbered(3, &Frame::AskStatus)]).await;
        // The first numbered frame of the sidecar takes the first lane.
        first.until(|frame| matches!(inner(frame)?, Frame::SidecarStatus(_)).then_some(())).await;
        let table = sh(TABLE);
        assert!(table.contains("10.30.0.0/16") && !table.contains("10.20.0.0/16"), "{table}");

        others[6].send(&[numbered(4, &done())]).await;
        assert_eq!(first.exit_code().await, Some(0));
        for lane in others {
            assert_eq!(lane.exit_code().await, Some(0));
        }
        assert_eq!(refusal(lane(&opened, 1)).await, Reason::NoSession, "the session is over");
    });
}

#[test]
fn a_lane_needs_the_sessions_token_the_links_number_its_turn_and_the_same_connection() {
    in_codespace(|| async {
        let (mut laptop, opened) = Laptop::session(60).await;
        laptop.send(&[routes(&["10.20.0.0/16"])]).await;
        let right = lane(&opened, 1);
        for (wrong, reason) in [
            (Open { resume: Some((opened.session, Token([7; 32]))), ..right.clone() }, Reason::NoSession),
            (Open { resume: Some(([7; 16], opened.token)), ..right.clone() }, Reason::NoSession),
            (Open { resume: None, ..right.clone() }, Reason::Failed),
            (Open { link: 1, ..right.clone() }, Reason::Stale),
            (Open { link: u32::MAX, ..right.clone() }, Reason::Stale),
            (Open { lane: 2, ..right.clone() }, Reason::Failed),
        ] {
            assert_eq!(refusal(wrong).await, reason);
        }
        let mut stranger = Laptop::connect_from([10, 9, 9, 9].into()).await;
        assert_eq!(stranger.ask(right.clone()).await.expect_err("a refusal").reason, Reason::Failed);
        // The link goes on, and nothing of it was replaced.
        laptop.settle().await;
        assert!(sh(TABLE).contains("10.20.0.0/16"));
        let _lane = add(right.clone()).await.expect("a lane");
        assert_eq!(refusal(right).await, Reason::Failed, "it is taken");
        laptop.settle().await;
    });
}

#[test]
fn a_laptop_that_knows_no_lanes_gets_none() {
    in_codespace(|| async {
        let ours = hello::ours();
        let older = ours.capabilities & !LANES;
        let mut laptop = Laptop::greet(Hello { capabilities: older, ..ours }).await;
        let opened = laptop.ask(open(60)).await.expect("a session");
        assert_eq!(refusal(lane(&opened, 1)).await, Reason::Failed);
        laptop.settle().await;
    });
}

#[test]
fn a_lane_that_is_killed_ends_the_link_and_the_session_waits_for_the_next() {
    in_codespace(|| async {
        let (mut first, others, opened) = session(3).await;
        first.send(&[numbered(0, &routes(&["10.20.0.0/16"]))]).await;
        first.settle().await;
        kill(Pid::from_raw(others[1].attach()), Signal::SIGKILL).expect("it runs");
        assert_eq!(first.exit_code().await, Some(0));
        // A lane does not make up for a link.
        assert_eq!(refusal(lane(&opened, 1)).await, Reason::Stale);
        let mut laptop = Laptop::connect().await;
        assert!(laptop.ask(resume(&opened)).await.expect("the session").resumed);
        assert!(sh(TABLE).contains("10.20.0.0/16"));
        // A lane of the link that was lost is not one of the next.
        assert_eq!(refusal(lane(&opened, 1)).await, Reason::Stale);
        laptop.settle().await;
    });
}

#[test]
fn numbers_that_break_the_protocol_end_the_session() {
    let ping = Frame::Ping(1);
    let status = Frame::AskStatus;
    // Over which lane, and after number 0 over the first one.
    let attacks = [
        (1, numbered(0, &status)),
        (0, numbered(1, &status)),
        (0, numbered(0, &status)),
        (0, status.clone()),
        (1, status.clone()),
        (1, ping.clone()),
        (1, numbered(1, &ping)),
        (1, numbered(1, &numbered(2, &status))),
        (1, Frame::Numbered(1, Bytes::from_static(&[13, 0xff, 0xff, 0xff]))),
    ];
    in_codespace(|| async move {
        for (over, frame) in attacks {
            let (mut first, mut others, _) = session(2).await;
            first.send(&[numbered(0, &status)]).await;
            first.settle().await;
            if over == 0 {
                first.send(&[frame]).await
            } else {
                others[0].send(&[frame]).await
            }
            let goodbye = others[0]
                .until(|frame| match inner(frame)? {
                    Frame::Goodbye(goodbye) => Some(goodbye),
                    _ => None,
                })
                .await;
            assert_eq!(goodbye.reason, Reason::Protocol, "{}", goodbye.text);
            first.exit_code().await;
        }
    });
}

#[test]
fn what_comes_ahead_of_a_gap_waits_in_its_lane_and_not_in_memory() {
    const FLOOD: u64 = 1024;
    in_codespace(|| async {
        let (mut first, mut others, _) = session(3).await;
        first.send(&[numbered(0, &routes(&["10.20.0.0/16"]))]).await;
        // 64 MiB that are no IP packets, and are dropped once their turn comes.
        let large = numbered(0, &Frame::Packet(vec![0; 64 << 10].into()));
        let Frame::Numbered(_, large) = large else { unreachable!() };
        let mut ahead = others.pop().expect("three lanes");
        let flood = async {
            for number in 2..2 + FLOOD {
                ahead.send(&[Frame::Numbered(number, large.clone())]).await;
            }
        };
        let flood = std::pin::pin!(flood);
        let mut flood = futures_util::FutureExt::fuse(flood);
        assert!(timeout(Duration::from_secs(2), &mut flood).await.is_err(), "the sidecar reads on");
        // The link's own frames pass.
        first.settle().await;
        let status = fs::read_to_string(format!("/proc/{}/status", owner())).expect("an owner");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a line");
        let peak: u64 = peak.trim().trim_end_matches(" kB").parse().expect("a number");
        assert!(peak < 32 * 1024, "{peak} KiB");
        // What was missing lets all of it pass.
        others[0].send(&[numbered(1, &Frame::AskStatus)]).await;
        flood.await;
        first.settle().await;
    });
}
