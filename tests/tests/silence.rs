//! Links that go silent without an end, and several laptops that compete for one codespace.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use gh_net_tests::lab::{Bridge, Lab, Options};
use nix::sys::signal::Signal;

/// The documented time after which each end gives up a silent idle link, with a margin for a busy machine.
const GIVEN_UP: Duration = Duration::from_secs(29 + 10);
/// Time for a probe of the laptop that holds the session and for a message to it, with a margin.
const DECIDED: Duration = Duration::from_secs(20);

/// Attempts to connect are at most 30 s apart; each takes an ssh login.
const RECONNECTED: Duration = Duration::from_secs(60);

fn works(lab: &Lab) -> Result<()> {
    ensure!(lab.codespace.shell("curl -sS http://www.corp.internal/")? == "hello from corp");
    Ok(())
}

#[test]
fn both_ends_give_up_a_link_that_is_black_holed() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    let before = lab.codespace.state()?;
    let bridge = lab.bridge(&["--grace", "0s"])?;
    works(&lab)?;
    lab.start_black_hole()?;
    let deadline = Instant::now() + GIVEN_UP;
    lab.wait_for_sidecars_end_by(deadline)?;
    assert_eq!(before.diff(&lab.codespace.state()?), "");
    let output = bridge.into_process().finish(deadline.saturating_duration_since(Instant::now()))?;
    assert_eq!(output.code(), 1);
    assert!(output.errors().contains("no data from the codespace for 1"), "{}", output.errors());

    lab.end_black_hole()?;
    let bridge = lab.bridge(&[])?;
    works(&lab)?;
    bridge.stop()?;
    assert_eq!(before.diff(&lab.codespace.state()?), "");
    Ok(())
}

#[test]
fn with_a_grace_both_ends_of_a_black_holed_link_meet_again() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    let before = lab.codespace.state()?;
    let bridge = lab.bridge(&["--grace", "1s"])?;
    works(&lab)?;
    lab.start_black_hole()?;
    let deadline = Instant::now() + GIVEN_UP;
    // The grace over, the sidecar undoes everything and ends.
    lab.wait_for_sidecars_end_by(deadline)?;
    assert_eq!(before.diff(&lab.codespace.state()?), "");
    let left = deadline.saturating_duration_since(Instant::now());
    bridge.process().wait_for("link lost (no data from the codespace for 1", left)?;

    lab.end_black_hole()?;
    bridge.process().wait_for("with a new session", RECONNECTED)?;
    works(&lab)?;
    bridge.stop()?;
    assert_eq!(before.diff(&lab.codespace.state()?), "");
    Ok(())
}

/// Stops gh-net as a suspended laptop does: its ssh connection stays open, but nothing answers on it.
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
    let errors = output.errors();
    assert!(errors.contains("dev@laptop") && errors.contains("has taken the session over"), "{errors}");
    works(&lab)?;
    bridge.stop()?;
    assert_eq!(before.diff(&lab.codespace.state()?), "");
    Ok(())
}

#[test]
fn another_laptop_takes_over_while_the_link_of_the_first_is_black_holed() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    lab.make_laptop(&lab.lan)?;
    let before = lab.codespace.state()?;
    let first = lab.bridge(&["--grace", "15m"])?;
    works(&lab)?;
    lab.start_black_hole()?;

    let second = lab.gh_net_on(&lab.lan, &["--ssh", "codespace"])?.ready()?;
    let mut first = first.into_process();
    ensure!(first.running()?, "the first laptop noticed the black hole before the second one took over");
    second.process().wait_for("took the session over from dev@laptop (from 198.51.100.2)", DECIDED)?;
    // The second laptop has no route to the corporate network, but is on the same LAN as the first one.
    ensure!(lab.codespace.shell("curl -sS http://192.168.1.20:8000/")? == "hello from laptop");
    ensure!(works(&lab).is_err(), "the codespace still uses the networks of the first laptop");

    // The first one tries to get its session back, and learns that it can't.
    first.wait_for("from the codespace for 1", GIVEN_UP)?;
    lab.end_black_hole()?;
    let output = first.finish(RECONNECTED)?;
    assert_ne!(output.code(), 0);
    let errors = output.errors();
    assert!(errors.contains("dev@lan") && errors.contains("has taken the session over"), "{errors}");
    ensure!(lab.codespace.shell("curl -sS http://192.168.1.20:8000/")? == "hello from laptop");
    second.stop()?;
    assert_eq!(before.diff(&lab.codespace.state()?), "");
    Ok(())
}

#[test]
fn laptops_that_are_alive_never_evict_each_other() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    lab.make_laptop(&lab.lan)?;
    let bridge = lab.bridge(&[])?;
    for _ in 0..3 {
        let refused = lab.gh_net_on(&lab.lan, &["--ssh", "codespace"])?.start()?;
        let refused = refused.finish(Duration::from_secs(40))?;
        assert_ne!(refused.code(), 0);
        let errors = refused.errors();
        assert!(
            errors.contains("another gh-net session is in progress: dev@laptop (from 198.51.100.2)"),
            "{errors}"
        );
        works(&lab)?;
    }
    assert!(!bridge.log().contains("taken"), "{}", bridge.log());
    bridge.stop().map(drop)
}

/// More than the owner serves at a time: half of them ask and don't read the answer, the others don't even ask.
#[test]
fn local_clients_that_say_or_read_nothing_leave_the_session_alone() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    let bridge = lab.bridge(&[])?;
    let owner = *lab.sidecars()?.first().context("a sidecar")?;
    let socket = format!("/proc/{owner}/root/run/gh-net/owner.sock");
    let clients: Vec<_> = (0..100)
        .map(|number| -> Result<UnixStream> {
            let mut client = UnixStream::connect(&socket).context("connecting to the owner")?;
            if number % 2 == 0 {
                client.write_all(b"\"status\"\n")?;
            }
            Ok(client)
        })
        .collect::<Result<_>>()?;
    works(&lab)?;
    let status = lab.codespace.run_for(DECIDED, "/proc/$(pgrep -o gh-net-sidecar)/exe status")?;
    assert_eq!(status.code(), 0, "{}", status.errors());
    works(&lab)?;
    drop(clients);
    bridge.stop().map(drop)
}
