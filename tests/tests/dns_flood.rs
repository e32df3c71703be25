//! One program asks for many names that nobody answers, while others look up names.

use std::collections::VecDeque;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gh_net_tests::lab::{Host, Lab, Options};

/// Questions a second of the program that floods.
const RATE: u32 = 200;
/// Lookups of other programs during a flood.
const LOOKUPS: usize = 20;

/// A program that asks for ever new names, at [`RATE`], until it is dropped.
struct Flood {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Flood {
    /// Names made by `name` from a number, each asked for from a port of its own, as programs do.
    fn start(host: &Host, server: SocketAddr, name: impl Fn(u32) -> String + Send + 'static) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let stopped = Arc::clone(&stop);
        let thread = host.thread(move || {
            // Kept as long as programs wait, so that answers do not find closed ports.
            let mut waiting = VecDeque::new();
            for number in 0.. {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let socket = UdpSocket::bind("0.0.0.0:0")?;
                socket.send_to(&question(&name(number)), server)?;
                waiting.push_back(socket);
                if waiting.len() > 5 * RATE as usize {
                    waiting.pop_front();
                }
                std::thread::sleep(Duration::from_secs(1) / RATE);
            }
            Ok(())
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let sent = thread.join().expect("the client does not panic");
            assert!(sent.is_ok() || std::thread::panicking(), "{sent:?}");
        }
    }
}

/// A question for the addresses of `name`.
fn question(name: &str) -> Vec<u8> {
    let mut question = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        question.push(label.len() as u8);
        question.extend(label.as_bytes());
    }
    question.extend([0, 0, 1, 0, 1]);
    question
}

fn responder(host: &Host) -> Result<SocketAddr> {
    let file = host.read("/etc/resolv.conf")?;
    let server = file.lines().find_map(|line| line.strip_prefix("nameserver ")).context("no nameserver")?;
    Ok(SocketAddr::new(server.trim().parse()?, 53))
}

/// Looks names up, each at its first try and within 2 s.
fn look_up(lab: &Lab, flood: &str) -> Result<()> {
    for _ in 0..LOOKUPS {
        for (name, address) in [("www.corp.internal", "10.20.0.10"), ("example.com", "203.0.113.10")] {
            let answer = lab.codespace.shell(&format!("dig +tries=1 +time=2 {name}"));
            let answer = answer.with_context(|| format!("{name} during a flood of {flood}"))?;
            ensure!(answer.contains(address), "{name} during a flood of {flood}: {answer}");
        }
    }
    Ok(())
}

/// Waits until the flood has taken what it can: a question of its kind has waited for as long as the responder lets it,
/// or has been refused.
fn wait_until_it_is_felt(lab: &Lab, name: &str) -> Result<()> {
    lab.codespace.shell(&format!("dig +tries=1 +time=6 {name}")).map(drop)
}

#[test]
fn names_of_a_zone_that_does_not_answer_hold_up_no_others() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    let bridge = lab.bridge(&[])?;
    let server = responder(&lab.codespace)?;
    for zone in ["silent.corp.internal", "silent.example"] {
        let flood = Flood::start(&lab.codespace, server, move |number| format!("host{number}.{zone}"));
        wait_until_it_is_felt(&lab, &format!("first.{zone}"))?;
        look_up(&lab, zone)?;
        drop(flood);
        // Zones below it that are all different, as a hostile program makes them up.
        let flood = Flood::start(&lab.codespace, server, move |number| format!("www.zone{number}.{zone}"));
        wait_until_it_is_felt(&lab, &format!("www.first.{zone}"))?;
        look_up(&lab, zone)?;
        drop(flood);
    }
    bridge.stop().map(drop)
}
