//! Sessions that outlive their links: what is connected stays connected when ssh is killed, stalled or replaced.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use gh_net_tests::lab::{Bridge, Lab, Options, Process};
use nix::sys::signal::{Signal, kill};

/// A reconnect takes an ssh login and a handshake.
const RECONNECTED: Duration = Duration::from_secs(30);
/// After `reconnected` every flow has to move within this time, and some room for a busy machine.
const MOVES: Duration = Duration::from_secs(2 + 3);

/// Kills gh-net's ssh without a word to anybody.
fn kill_ssh(lab: &Lab) -> Result<()> {
    let ssh = lab.laptop.processes("ssh")?;
    ensure!(!ssh.is_empty(), "no ssh runs on the laptop");
    for pid in ssh {
        // One may end by itself because another one did.
        let _ = kill(pid, Signal::SIGKILL);
    }
    Ok(())
}

/// Waits for the `number`th line of the log that says that the session is connected again.
fn wait_for_reconnect(bridge: &Bridge<'_>, number: usize) -> Result<()> {
    let deadline = Instant::now() + RECONNECTED;
    while bridge.log().matches("reconnected after").count() < number {
        ensure!(Instant::now() < deadline, "not reconnected {number} times:\n{}", bridge.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// An interactive connection: what is typed comes back.
struct Terminal {
    process: Process,
    fifo: &'static str,
    lines: usize,
}

impl Terminal {
    fn open(lab: &Lab, fifo: &'static str) -> Result<Self> {
        lab.codespace.shell(&format!("mkfifo {fifo}"))?;
        let process = lab.codespace.spawn(&format!("sh -c 'exec 3<>{fifo}; exec nc 10.20.0.10 7 <&3'"))?;
        Ok(Self { process, fifo, lines: 0 })
    }

    fn type_line(&mut self, lab: &Lab) -> Result<Duration> {
        self.lines += 1;
        let line = format!("line-{}", self.lines);
        let start = Instant::now();
        lab.codespace.shell(&format!("echo {line} > {}", self.fifo))?;
        self.process.wait_for(&line, Duration::from_secs(20))?;
        Ok(start.elapsed())
    }
}

#[test]
fn a_download_and_a_terminal_survive_ssh_being_killed_again_and_again() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    let before = lab.codespace.state()?;
    let leaks = lab.leaks()?;
    let bridge = lab.bridge(&[])?;
    let mut terminal = Terminal::open(&lab, "/run/lab/keys")?;
    terminal.type_line(&lab)?;
    let download = lab
        .codespace
        .spawn("sh -c 'curl -sS --limit-rate 30M http://10.20.0.10/bytes/268435456 | sha256sum'")?;
    for number in 1..=5 {
        kill_ssh(&lab)?;
        wait_for_reconnect(&bridge, number)?;
        let took = terminal.type_line(&lab)?;
        ensure!(took < MOVES, "a keystroke took {took:?} after the link was there again");
    }
    let sum = download.finish(Duration::from_secs(60))?.ok()?;
    assert!(sum.starts_with(&expected(&lab)?), "{sum}");
    assert!(bridge.log().contains("link lost ("), "{}", bridge.log());
    assert!(
        bridge.log().contains("connections kept") || bridge.log().contains("connection kept"),
        "{}",
        bridge.log()
    );
    assert_eq!(lab.leaks()?, leaks, "packets for the laptop's networks reached the internet's router");
    bridge.stop()?;
    drop(terminal);
    assert_eq!(before.diff(&lab.codespace.state()?), "");
    Ok(())
}

fn expected(lab: &Lab) -> Result<String> {
    let sum = lab.corp.shell("curl -sS http://10.20.0.10/bytes/268435456 | sha256sum")?;
    Ok(sum.split(' ').next().unwrap_or_default().to_owned())
}
