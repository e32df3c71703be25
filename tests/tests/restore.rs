//! After every kind of end, the codespace is byte for byte as before.

use std::time::Duration;

use anyhow::{Context, Result};
use gh_net_tests::lab::{Lab, Options};
use nix::sys::signal::{Signal, kill};

const DUAL: Options = Options { codespace_ipv6: true, home_nat: true, noisy_login: false };

/// Checks that the bridge works, and has changed the codespace.
fn is_bridged(lab: &Lab) -> Result<()> {
    assert_eq!(lab.codespace.shell("curl -sS http://www.corp.internal/")?, "hello from corp");
    lab.codespace.shell("curl -sS -g 'http://[fd20:20::10]/'")?;
    let rules = lab.codespace.shell("ip rule; ip -6 rule")?;
    assert_eq!(rules.matches("suppress_prefixlength 0").count(), 2, "{rules}");
    let file = lab.codespace.read("/etc/resolv.conf")?;
    assert!(file.starts_with('#') && file.contains("gh-net"), "the file lacks gh-net's comment: {file}");
    Ok(())
}

fn restores_after(signal: Signal) -> Result<()> {
    for options in [Options::default(), DUAL] {
        let Some(lab) = Lab::for_test(options)? else { return Ok(()) };
        let before = lab.codespace.state()?;
        let main = lab.codespace.shell("ip route; ip -6 route")?;
        let bridge = lab.bridge(&[])?;
        is_bridged(&lab)?;
        let during = lab.codespace.shell("ip route; ip -6 route | grep -v ghnet0")?;
        let added: Vec<_> =
            during.lines().filter(|line| !main.contains(line) && !line.contains("ghnet0")).collect();
        assert!(added.is_empty(), "the main table was edited: {added:?}");
        bridge.stop_by(signal)?;
        assert_eq!(before.diff(&lab.codespace.state()?), "");
    }
    Ok(())
}

#[test]
fn after_ctrl_c() -> Result<()> {
    restores_after(Signal::SIGINT)
}

#[test]
fn after_sigterm() -> Result<()> {
    restores_after(Signal::SIGTERM)
}

#[test]
fn after_sigkill_of_the_sidecar_and_a_next_start() -> Result<()> {
    let Some(lab) = Lab::for_test(DUAL)? else { return Ok(()) };
    let before = lab.codespace.state()?;
    let bridge = lab.bridge(&[])?;
    is_bridged(&lab)?;
    lab.kill_sidecars()?;
    drop(bridge);

    let bridge = lab.bridge(&[])?;
    is_bridged(&lab)?;
    bridge.stop()?;
    assert_eq!(before.diff(&lab.codespace.state()?), "");
    Ok(())
}

#[test]
fn after_sigkill_of_the_sidecar_and_a_cleanup_by_hand() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    let before = lab.codespace.state()?;
    let bridge = lab.bridge(&[])?;
    let pid = *lab.sidecars()?.first().context("no sidecar")?;
    let program = std::fs::read_link(format!("/proc/{pid}/exe"))?;
    lab.kill_sidecars()?;
    drop(bridge);

    assert!(!before.diff(&lab.codespace.state()?).is_empty(), "nothing to clean up");
    lab.codespace.shell(&format!("{} cleanup", program.display()))?;
    assert_eq!(before.diff(&lab.codespace.state()?), "");
    lab.codespace.shell(&format!("{} cleanup", program.display()))?;
    assert_eq!(before.diff(&lab.codespace.state()?), "");
    Ok(())
}

#[test]
fn after_a_signal_to_the_sidecar() -> Result<()> {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
        let before = lab.codespace.state()?;
        let _bridge = lab.bridge(&[])?;
        for pid in lab.sidecars()? {
            kill(pid, signal)?;
        }
        lab.wait_for_sidecars_end()?;
        assert_eq!(before.diff(&lab.codespace.state()?), "");
    }
    Ok(())
}

/// The next start takes over if the sidecar still has the session.
#[test]
fn after_sigkill_of_gh_net_and_a_next_start() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    let before = lab.codespace.state()?;
    lab.bridge(&[])?.kill9()?;
    let bridge = lab.bridge(&[])?;
    is_bridged(&lab)?;
    bridge.stop()?;
    assert_eq!(before.diff(&lab.codespace.state()?), "");
    Ok(())
}

#[test]
fn the_laptop_is_never_changed() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    let before = lab.laptop.state()?;
    let bridge = lab.bridge(&[])?;
    is_bridged(&lab)?;
    assert_eq!(before.diff(&lab.laptop.state()?), "", "while the bridge runs");
    bridge.stop()?;
    assert_eq!(before.diff(&lab.laptop.state()?), "");
    // ssh's master process would outlive its parent if gh-net did not end it.
    let deadline = std::time::Instant::now() + Duration::from_secs(5);
    while !lab.laptop.processes("ssh")?.is_empty() {
        assert!(std::time::Instant::now() < deadline, "an ssh process is left");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
