//! A laptop that wants a session while another one has it and does not answer.

use std::io::{Read, Write};
use std::net::UdpSocket;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use gh_net_common::frame::{Frame, Opened, Reason, Routes};
use ipnet::IpNet;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::codespace::{device_statistics, has_device, in_codespace, owner, route_to, snapshot};
use crate::laptop::{Laptop, done, open, resume, routes};

/// A laptop that does not answer the probe for which another one waits.
async fn silent_and_contender() -> (Laptop, Opened, Laptop) {
    let (mut silent, opened) = Laptop::session(60).await;
    silent.send(&[routes(&["10.20.0.0/16"])]).await;
    silent.settle().await;
    let contender = contender(&mut silent).await;
    (silent, opened, contender)
}

/// Returns once the sidecar has asked `silent` for a sign of life.
async fn contender(silent: &mut Laptop) -> Laptop {
    let mut contender = Laptop::connect().await;
    contender.send(&[Frame::Open(open(60))]).await;
    silent.wait_for_ping().await;
    contender
}

#[test]
fn a_laptop_that_resumes_is_alive_and_keeps_its_session() {
    in_codespace(|| async {
        let (hanging, opened, mut contender) = silent_and_contender().await;
        let mut resumed = Laptop::connect().await;
        assert!(resumed.ask(resume(&opened)).await.unwrap().resumed);
        assert_eq!(contender.answer().await.unwrap_err().reason, Reason::Busy);
        assert_eq!(hanging.exit_code().await, Some(0));
        resumed.settle().await;
    });
}

#[test]
fn any_frame_is_a_sign_of_life() {
    in_codespace(|| async {
        let (mut silent, _, mut contender) = silent_and_contender().await;
        silent.send(&[Frame::AskStatus]).await;
        assert_eq!(contender.answer().await.unwrap_err().reason, Reason::Busy);
        silent.settle().await;
    });
}

#[test]
fn a_contender_whose_link_is_gone_evicts_nobody() {
    in_codespace(|| async {
        let (mut silent, _, contender) = silent_and_contender().await;
        // Its attach ends as soon as the owner has dismissed it.
        assert_eq!(contender.cut().await, Some(0));
        silent.settle().await;
    });
}

#[test]
fn a_contender_whose_attach_is_gone_evicts_nobody() {
    in_codespace(|| async {
        let (mut silent, _, mut contender) = silent_and_contender().await;
        kill(Pid::from_raw(contender.attach()), Signal::SIGKILL).unwrap();
        assert_eq!(contender.answer().await.unwrap_err().reason, Reason::Done);
        silent.settle().await;
    });
}

#[test]
fn a_contender_has_the_session_as_soon_as_the_other_laptop_ends_it() {
    in_codespace(|| async {
        let (mut silent, _, mut contender) = silent_and_contender().await;
        silent.send(&[done()]).await;
        silent.goodbye().await;
        let mut late = Laptop::connect().await;
        tokio::select! {
            first = contender.answer() => drop(first.unwrap()),
            other = late.ask(open(60)) => panic!("{other:?} came first"),
        }
    });
}

#[test]
fn a_contender_has_the_session_as_soon_as_the_other_link_is_lost() {
    in_codespace(|| async {
        let (silent, _, mut contender) = silent_and_contender().await;
        silent.cut().await;
        contender.answer().await.unwrap();
        let Frame::Notice(notice) = contender.next().await else { panic!("no notice") };
        assert!(notice.text.contains("its link was lost"), "{}", notice.text);
    });
}

#[test]
fn a_second_contender_is_told_that_another_one_waits() {
    in_codespace(|| async {
        let (mut silent, _, mut contender) = silent_and_contender().await;
        let mut second = Laptop::connect().await;
        let goodbye = second.ask(open(60)).await.unwrap_err();
        assert_eq!(goodbye.reason, Reason::Busy);
        assert!(
            goodbye.text.contains("is already waiting for the session of alice@laptop"),
            "{}",
            goodbye.text
        );
        silent.settle().await;
        assert_eq!(contender.answer().await.unwrap_err().reason, Reason::Busy);
    });
}

/// A sign of life is no end: the laptop still has its time to reset its flows.
#[test]
fn a_signal_leaves_time_for_resets_and_the_contender_is_told() {
    in_codespace(|| async {
        let before = snapshot();
        let (mut silent, _, mut contender) = silent_and_contender().await;
        kill(Pid::from_raw(owner()), Signal::SIGTERM).unwrap();
        assert_eq!(contender.answer().await.unwrap_err().reason, Reason::Terminated);
        silent.until(|frame| (frame == Frame::Ending).then_some(())).await;
        // Answered, and the session is still there.
        silent.settle().await;
        assert!(has_device());
        silent.send(&[done()]).await;
        assert_eq!(silent.goodbye().await.reason, Reason::Terminated);
        assert_eq!(snapshot(), before);
    });
}

/// Fills the pipe to the laptop with packets.
fn flood() {
    let socket = UdpSocket::bind(("0.0.0.0", 0)).unwrap();
    for _ in 0..16 {
        socket.send_to(&[7; 32_000], ("10.20.0.10", 9)).unwrap();
    }
    while device_statistics("tx")["bytes"].as_u64().unwrap() < 4 * 32_000 {}
}

#[test]
fn a_laptop_that_does_not_read_its_goodbye_delays_no_other() {
    in_codespace(|| async {
        let (mut silent, _, mut contender) = silent_and_contender().await;
        flood();
        silent.send(&[done()]).await;
        contender.answer().await.unwrap();
        // The goodbye still waits for its reader.
        assert_eq!(silent.goodbye().await.reason, Reason::Done);
        contender.settle().await;
    });
}

#[test]
fn a_goodbye_that_waits_for_its_reader_survives_the_end_of_the_owner() {
    in_codespace(|| async {
        let (silent, _, mut contender) = silent_and_contender().await;
        flood();
        let mut silent = silent;
        contender.answer().await.unwrap();
        kill(Pid::from_raw(owner()), Signal::SIGTERM).unwrap();
        contender.until(|frame| (frame == Frame::Ending).then_some(())).await;
        contender.send(&[done()]).await;
        assert_eq!(contender.goodbye().await.reason, Reason::Terminated);
        assert_eq!(silent.goodbye().await.reason, Reason::TakenOver);
    });
}

#[test]
fn a_status_that_nobody_reads_blocks_nobody() {
    in_codespace(|| async {
        let (mut laptop, _) = Laptop::session(60).await;
        // The answer is longer than a socket's buffer.
        let nets = (0..8_000_u32)
            .map(|n| IpNet::new([0xfd20, n as u16, 0xffff, 0xffff, 0xffff, 0xffff, 0, 0].into(), 96));
        let nets: Vec<IpNet> = nets.map(Result::unwrap).collect();
        for chunk in nets.chunks(2000) {
            laptop.send(&[Frame::Routes(Routes::Change { add: chunk.to_vec(), remove: vec![] })]).await;
        }
        laptop.settle().await;
        let mut status = UnixStream::connect("/run/gh-net/owner.sock").unwrap();
        status.write_all(b"\"status\"\n").unwrap();
        status.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        // The owner has begun to answer.
        status.read_exact(&mut [0]).unwrap();
        tokio::time::timeout(Duration::from_secs(2), laptop.settle())
            .await
            .expect("the owner is not blocked");
        assert!(route_to("fd20:1:ffff:ffff:ffff:ffff::1").contains("dev ghnet0"));
    });
}
