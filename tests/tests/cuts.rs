//! Long cuts of the link, with flows of every kind open at once. `cargo xtask test-long` runs this.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use gh_net_tests::lab::traffic::{Everything, MOVES};
use gh_net_tests::lab::{Bridge, Lab, Options, Terminal};

/// How long a new connection waits for its first answer (`tcp_syn_retries`): Linux gives it up after 127 s.
const OPENING: Duration = Duration::from_secs(127);
/// Attempts to connect are at most 30 s apart, and each is given up after 20 s.
const RECONNECTED: Duration = Duration::from_secs(60);
/// A connection that is opened so long before the end of a cut is still waiting when the link is there again.
const STILL_OPENING: Duration = Duration::from_secs(45);

#[test]
#[ignore = "takes 18 minutes"]
fn flows_of_every_kind_survive_two_minutes_and_fourteen() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    let (before, leaks) = (lab.codespace.state()?, lab.leaks()?);
    let bridge = lab.bridge(&["--grace", "30m"])?;
    let mut traffic = Everything::start(&lab, 2, Duration::from_secs(3600))?;
    let mut idle = Terminal::open(&lab, "idle")?;
    let begun = Instant::now();
    for (number, minutes) in [(1, 2), (2, 14)] {
        cut(&lab, &bridge, number, Duration::from_secs(minutes * 60))?;
        traffic.moves().with_context(|| format!("after {minutes} minutes:\n{}", bridge.log()))?;
        // Nothing else was sent on this one.
        let took = idle.type_line()?;
        ensure!(took < MOVES, "a keystroke on the idle connection took {took:?} after {minutes} minutes");
        ensure!(lab.codespace.shell("curl -sS http://www.corp.internal/")? == "hello from corp");
        println!("{:>4} s: everything moves after a cut of {minutes} min", begun.elapsed().as_secs());
    }
    traffic.finish()?;
    println!("{}", bridge.log());
    ensure!(lab.leaks()? == leaks, "packets for the laptop's networks reached the internet's router");
    bridge.stop()?;
    assert_eq!(before.diff(&lab.codespace.state()?), "");
    Ok(())
}

/// Drops all packets of the link for this time, and waits until it is replaced.
fn cut(lab: &Lab, bridge: &Bridge<'_>, number: usize, time: Duration) -> Result<()> {
    lab.start_black_hole()?;
    let end = Instant::now() + time;
    let wait_until = |at: Instant| sleep(at.saturating_duration_since(Instant::now()));

    // Opened too early for this cut, and late enough.
    let early = lab.codespace.spawn("curl -sS http://10.20.0.10/")?;
    wait_until(end - STILL_OPENING);
    let late = lab.codespace.spawn("curl -sS http://10.20.0.10/")?;
    if time > OPENING * 2 {
        let output = early.finish(Duration::from_secs(1))?;
        ensure!(output.code() != 0, "a connection was opened without a link");
    }
    let start = Instant::now();
    ensure!(lab.codespace.shell("dig +short +tries=1 +time=4 example.com")? == "203.0.113.10");
    ensure!(start.elapsed() < Duration::from_secs(2), "a public name took {:?}", start.elapsed());

    wait_until(end);
    lab.end_black_hole()?;
    let deadline = Instant::now() + RECONNECTED;
    while bridge.log().matches("reconnected after").count() < number {
        ensure!(Instant::now() < deadline, "not reconnected:\n{}", bridge.log());
        sleep(Duration::from_millis(20));
    }
    ensure!(late.finish(MOVES)?.ok()? == "hello from corp");
    Ok(())
}
