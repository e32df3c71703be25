//! A long fast line gets further lanes, and one flow uses all of them.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use gh_net_tests::lab::traffic::{Client, Pace};
use gh_net_tests::lab::wan::Shape;
use gh_net_tests::lab::{Bridge, Lab, Options, Process};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(90);
/// More than ssh lets one channel carry there: 2 MiB in 200 ms are 84 Mbit/s.
const MEGABITS: u64 = 160;
const BYTES: u64 = 192 << 20;
const SHORT: u64 = 48 << 20;

fn long_line() -> Shape {
    let rate = MEGABITS * 1_000_000;
    Shape {
        rate: Some(rate),
        delay: Duration::from_millis(100),
        queue: Some(rate as usize / 40),
        ..Shape::default()
    }
}

/// A lab whose codespace has a sidecar already: to copy that over the line takes long.
fn lab() -> Result<Option<Lab>> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(None) };
    lab.bridge(&[])?.stop()?;
    Ok(Some(lab))
}

/// The processes of the lanes in the codespace, the oldest first. One more is the owner.
fn lanes(lab: &Lab) -> Result<Vec<Pid>> {
    let mut attached = lab.sidecars()?;
    attached.retain(|pid| nix::unistd::getsid(Some(*pid)).is_ok_and(|session| session != *pid));
    attached.sort();
    Ok(attached)
}

/// Waits until the log has this text this many times.
fn wait_for(bridge: &Bridge<'_>, text: &str, times: usize) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while bridge.log().matches(text).count() < times {
        ensure!(Instant::now() < deadline, "{text:?} is not there {times} times:\n{}", bridge.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// The number of lanes that the status shows, for programs and for people.
fn shown_lanes(lab: &Lab) -> Result<(Option<u64>, String)> {
    let status = |args: &[&str]| lab.gh_net(args)?.start()?.finish(PATIENCE)?.ok();
    let json: Value = serde_json::from_str(&status(&["status", "--json"])?)?;
    let text = status(&["status"])?;
    let link = text.lines().find(|line| line.contains("round trip")).context("no link")?;
    Ok((json["link"]["lanes"].as_u64(), link.to_owned()))
}

/// Kills the process of the newest lane.
fn kill_lane(lab: &Lab) -> Result<Option<Process>> {
    kill(*lanes(lab)?.last().context("no lane")?, Signal::SIGKILL)?;
    Ok(None)
}

/// Kills the ssh connection of all lanes.
fn kill_connection(lab: &Lab) -> Result<Option<Process>> {
    lab.kill_sshd()?;
    lab.start_sshd().map(Some)
}

fn a_transfer_survives(
    end: fn(&Lab) -> Result<Option<Process>>,
    start: fn(&Lab, u64, &Pace) -> Client,
) -> Result<()> {
    let Some(lab) = lab()? else { return Ok(()) };
    let before = lab.codespace.state()?;
    let _wan = lab.wan(long_line())?;
    let bridge = lab.bridge(&["--grace", "15m", "--trace", "debug"])?;
    ensure!(lanes(&lab)?.len() == 1, "there are lanes before there is a need for them");
    let (count, text) = shown_lanes(&lab)?;
    ensure!(count == Some(1) && !text.contains("lanes"), "{count:?} {text}");
    let pace = Pace::default();
    pace.hurry();
    let transfer = start(&lab, BYTES, &pace);
    wait_for(&bridge, "the link has 3 lanes", 1)?;
    let (count, text) = shown_lanes(&lab)?;
    ensure!(count >= Some(3) && text.contains(" lanes"), "{count:?} {text}");
    let _sshd = end(&lab)?;
    bridge.wait_for_reconnect(1)?;
    // The next link gets lanes as well.
    wait_for(&bridge, "the link has 3 lanes", 2)?;
    transfer.finish(Instant::now() + PATIENCE)?;
    bridge.stop()?;
    assert_eq!(before.diff(&lab.codespace.state()?), "");
    Ok(())
}

#[test]
fn a_download_survives_the_end_of_one_of_its_lanes() -> Result<()> {
    a_transfer_survives(kill_lane, Client::download)
}

#[test]
fn an_upload_survives_the_end_of_one_of_its_lanes() -> Result<()> {
    a_transfer_survives(kill_lane, Client::upload)
}

#[test]
fn a_download_survives_the_end_of_all_its_lanes_at_once() -> Result<()> {
    a_transfer_survives(kill_connection, Client::download)
}

/// A transfer over a connection with this number of channels at most.
fn a_transfer_with_channels(lab: &Lab, channels: usize) -> Result<()> {
    lab.kill_sshd()?;
    let config = "/run/lab/sshd_config";
    let allowed = format!("MaxSessions {channels}\n{}", lab.codespace.read(config)?);
    lab.codespace.write(config, 0o600, allowed)?;
    let _sshd = lab.start_sshd()?;
    let _wan = lab.wan(long_line())?;
    let bridge = lab.bridge(&["--grace", "15m"])?;
    let pace = Pace::default();
    pace.hurry();
    for start in [Client::download, Client::upload] {
        start(lab, SHORT, &pace).finish(Instant::now() + PATIENCE)?;
    }
    let log = bridge.log();
    let text = format!("more ssh channels than {channels} would make the link faster");
    ensure!(log.matches(&text).count() == 1, "not once for the link:\n{log}");
    ensure!(!log.contains("WARN") && !log.contains("reconnect"), "{log}");
    ensure!(lanes(lab)?.len() == channels, "{channels} allowed, {:?}", lanes(lab)?);
    bridge.stop()?;
    Ok(())
}

#[test]
fn a_link_keeps_to_the_one_channel_that_the_server_allows() -> Result<()> {
    let Some(lab) = lab()? else { return Ok(()) };
    a_transfer_with_channels(&lab, 1)
}

#[test]
fn a_link_keeps_to_the_two_channels_that_the_server_allows() -> Result<()> {
    let Some(lab) = lab()? else { return Ok(()) };
    a_transfer_with_channels(&lab, 2)
}
