//! Programs in the codespace that ask for more than there is room for: every other program is still served.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use anyhow::Result;
use gh_net_tests::lab::floods::{Flood, Flooding, Others};
use gh_net_tests::lab::servers::ECHO;
use gh_net_tests::lab::{Bridge, Host, Lab, Options};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};

/// A lab in which no host with an address in 10.20.128.0/17 ever answers.
fn lab() -> Result<Option<Lab>> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(None) };
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    lab.silence_addresses()?;
    Ok(Some(lab))
}

/// The nth address that never answers.
fn silent(n: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::from_bits(0x0a14_8000 | u32::from(n)), 80))
}

/// Runs `open` for each silent address in the codespace; returns the sockets, to be kept open.
fn open_many<T: Send + 'static>(
    host: &Host,
    many: u16,
    open: impl Fn(SocketAddr) -> Result<T> + Send + 'static,
) -> Result<Vec<T>> {
    host.thread(move || (0..many).map(|n| open(silent(n))).collect()).join().expect("no panic")
}

fn curl(lab: &Lab) -> Result<()> {
    assert_eq!(lab.codespace.shell("curl -sS --max-time 20 http://www.corp.internal/")?, "hello from corp");
    Ok(())
}

#[test]
fn connects_to_silent_addresses_leave_room_for_others() -> Result<()> {
    let Some(lab) = lab()? else { return Ok(()) };
    let bridge = lab.bridge(&[])?;
    let sockets = open_many(&lab.codespace, 11_000, |address| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None)?;
        // It is in progress.
        let _ = socket.connect(&address.into());
        Ok(socket)
    })?;
    curl(&lab)?;
    curl(&lab)?;
    drop(sockets);
    bridge.stop().map(drop)
}

#[test]
fn datagrams_to_silent_addresses_leave_room_for_others() -> Result<()> {
    let Some(lab) = lab()? else { return Ok(()) };
    let bridge = lab.bridge(&[])?;
    // A port of its own for each address.
    let sockets = open_many(&lab.codespace, 6000, |address| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.send_to(b"x", address)?;
        Ok(socket)
    })?;
    let echo = lab.codespace.thread(|| -> Result<usize> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.set_read_timeout(Some(std::time::Duration::from_secs(20)))?;
        socket.send_to(b"hello", (Ipv4Addr::new(10, 20, 0, 10), ECHO))?;
        Ok(socket.recv(&mut [0; 16])?)
    });
    assert_eq!(echo.join().expect("no panic")?, 5);
    curl(&lab)?;
    drop(sockets);
    bridge.stop().map(drop)
}

/// The budget that gh-net has if not said otherwise, and what it needs beside that, in bytes.
const MEMORY: u64 = (256 + 64) << 20;

/// Starts the floods, and runs a hundred curls and digs of another program during them.
fn others_are_served(lab: &Lab, bridge: &Bridge<'_>, kinds: &[Flood]) -> Result<()> {
    let names: Vec<_> = kinds.iter().map(|flood| flood.name()).collect();
    let running = kinds.iter().map(|flood| flood.start(lab)).collect::<Result<Vec<Flooding>>>()?;
    Others::run(lab, 50)?.all_served()?;
    running.into_iter().try_for_each(Flooding::stop)?;
    let peak = bridge.process().peak_memory().unwrap_or(u64::MAX);
    assert!(peak <= MEMORY, "{}: {} MiB", names.join(", "), peak >> 20);
    Ok(())
}

fn siege(kinds: &[Flood]) -> Result<()> {
    let Some(lab) = lab()? else { return Ok(()) };
    let before = lab.codespace.state()?;
    let bridge = lab.bridge(&[])?;
    others_are_served(&lab, &bridge, kinds)?;
    bridge.stop()?;
    assert_eq!(before.diff(&lab.codespace.state()?), "");
    Ok(())
}

#[test]
fn others_are_served_during_a_scan() -> Result<()> {
    siege(&[Flood::Scan])
}

#[test]
fn others_are_served_during_hanging_connects() -> Result<()> {
    siege(&[Flood::HangingConnects])
}

#[test]
fn others_are_served_during_a_udp_spray() -> Result<()> {
    siege(&[Flood::UdpSpray])
}

#[test]
fn others_are_served_while_a_zone_is_dead() -> Result<()> {
    siege(&[Flood::DeadZone])
}

#[test]
fn others_are_served_during_malformed_packets() -> Result<()> {
    siege(&[Flood::Malformed])
}

#[test]
fn others_are_served_while_answers_are_not_read() -> Result<()> {
    siege(&[Flood::UnreadAnswers])
}

#[test]
#[ignore = "needs the machine for itself: on a busy one, the codespace's kernel drops what the sidecar has no time to read"]
fn others_are_served_during_all_floods_together() -> Result<()> {
    siege(&Flood::ALL)
}
