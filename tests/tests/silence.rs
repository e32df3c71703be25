//! A link that goes silent without an end, and two laptops that want one codespace.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use gh_net_tests::lab::{Bridge, Lab, Options};
use nix::sys::signal::Signal;

/// The documented time in which both ends give up an idle link that has gone silent, and some room for a busy machine.
const GIVEN_UP: Duration = Duration::from_secs(29 + 10);
/// How long a laptop is asked for a sign of life before another one takes the session over, and some room.
const DECIDED: Duration = Duration::from_secs(20);

/// An attempt to connect waits for 30 s at most after the one before, and then takes an ssh login.
const RECONNECTED: Duration = Duration::from_secs(60);

/// Drops everything between laptop and codespace, in both directions, without a word to either.
const BLACK_HOLE: &str = "nft 'table inet black_hole { chain forward { type filter hook forward priority -1; \
     ip daddr 172.16.5.4 drop; ip saddr 172.16.5.4 drop; }; }'";

fn works(lab: &Lab) -> Result<()> {
    ensure!(lab.codespace.shell("curl -sS http://www.corp.internal/")? == "hello from corp");
    Ok(())
}

#[test]
fn both_ends_give_up_a_link_that_is_black_holed_and_meet_again() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    let before = lab.codespace.state()?;
    let bridge = lab.bridge(&["--grace", "1s"])?;
    works(&lab)?;
    lab.home.shell(BLACK_HOLE)?;
    let deadline = Instant::now() + GIVEN_UP;
    // The grace over, the sidecar undoes everything and ends.
    lab.wait_for_sidecars_end_by(deadline)?;
    assert_eq!(before.diff(&lab.codespace.state()?), "");
    let left = deadline.saturating_duration_since(Instant::now());
    bridge.process().wait_for("link lost (nothing came from the codespace for 1", left)?;

    lab.home.shell("nft delete table inet black_hole")?;
    bridge.process().wait_for("with a new session", RECONNECTED)?;
    works(&lab)?;
    bridge.stop()?;
    assert_eq!(before.diff(&lab.codespace.state()?), "");
    Ok(())
}

/// Stops gh-net as a laptop that falls asleep does: its ssh connection stays as it is, and nobody answers.
fn fall_asleep(bridge: &Bridge<'_>) -> Result<()> {
    bridge.process().signal(Signal::SIGSTOP)
}

#[test]
fn a_new_start_takes_over_from_a_laptop_that_is_silent_and_both_are_told() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    let before = lab.codespace.state()?;
    let asleep = lab.bridge(&[])?;
    works(&lab)?;
    fall_asleep(&asleep)?;

    let bridge = lab.bridge(&[])?;
    bridge.process().wait_for("took the session over from dev@laptop", DECIDED)?;
    works(&lab)?;

    asleep.process().signal(Signal::SIGCONT)?;
    let output = asleep.into_process().finish(DECIDED)?;
    assert_ne!(output.code(), 0);
    let said = output.errors();
    assert!(said.contains("dev@laptop") && said.contains("has taken the session over"), "{said}");
    works(&lab)?;
    bridge.stop()?;
    assert_eq!(before.diff(&lab.codespace.state()?), "");
    Ok(())
}

#[test]
fn laptops_that_are_alive_never_evict_each_other() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    let bridge = lab.bridge(&[])?;
    for _ in 0..3 {
        let refused = lab.gh_net(&["--ssh", "codespace"])?.start()?.finish(Duration::from_secs(40))?;
        assert_ne!(refused.code(), 0);
        let said = refused.errors();
        assert!(
            said.contains("another gh-net session is in progress: dev@laptop (from 198.51.100.2)"),
            "{said}"
        );
        works(&lab)?;
    }
    assert!(!bridge.log().contains("taken"), "{}", bridge.log());
    bridge.stop().map(drop)
}
