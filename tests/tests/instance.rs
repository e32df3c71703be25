//! A running session is found, shown and ended by the user who runs it.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use gh_net_tests::lab::{LAPTOP_USER, Lab, Options, Output, Terminal};
use nix::sys::signal::Signal;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(20);
/// An ssh login, a copy of the sidecar, a handshake.
const READY: Duration = Duration::from_secs(40);

fn gh_net(lab: &Lab, args: &[&str]) -> Result<Output> {
    lab.gh_net(args)?.start()?.finish(LIMIT)
}

#[test]
fn a_session_is_shown_and_ended() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    let before = lab.codespace.state()?;
    assert_eq!(gh_net(&lab, &["status"])?.ok()?, "no session");

    let bridge = lab.bridge(&[])?;
    lab.codespace.shell("curl -sS http://www.corp.internal/")?;
    let terminal = Terminal::open(&lab, "keys")?;
    let status: Value = serde_json::from_str(&gh_net(&lab, &["status", "--json"])?.ok()?)?;
    assert_eq!(status["schema"], 1);
    assert_eq!(
        (&status["session"]["target"], &status["session"]["state"]),
        (&"codespace".into(), &"open".into())
    );
    assert_eq!(status["link"]["state"], "up");
    let routes = status["routes"].as_array().map(Vec::as_slice).unwrap_or_default();
    let corp = routes.iter().find(|route| route["prefix"] == "10.20.0.0/16").expect("the corporate network");
    assert_eq!(corp["reason"], serde_json::json!({ "kind": "route", "interface": "corp0" }));
    let flows = status["flows"].as_array().map(Vec::as_slice).unwrap_or_default();
    assert!(
        flows.iter().any(|flow| flow["server"].as_str().is_some_and(|server| server == "10.20.0.10:7")),
        "{flows:?}"
    );
    let names = status["names"].as_array().map(Vec::as_slice).unwrap_or_default();
    assert!(names.iter().any(|lookup| lookup["name"] == "www.corp.internal."), "{names:?}");

    let text = gh_net(&lab, &["status"])?.ok()?;
    assert!(text.contains("10.20.0.0/16 (route on corp0)"), "{text}");

    assert_eq!(gh_net(&lab, &["stop", "another"])?.code(), 1);
    gh_net(&lab, &["stop", "codespace"])?.ok()?;
    let ended = bridge.into_process().finish(LIMIT)?;
    assert_eq!(ended.code(), 0, "{}", ended.errors());
    terminal.wait_for_end(LIMIT)?;
    lab.wait_for_sidecars_end()?;
    assert_eq!(before.diff(&lab.codespace.state()?), "");
    Ok(())
}

#[test]
fn a_second_start_is_refused_and_the_first_one_goes_on() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    let before = lab.codespace.state()?;
    let bridge = lab.bridge(&["--grace", "15m"])?;
    let mut terminal = Terminal::open(&lab, "keys")?;
    let status: Value = serde_json::from_str(&gh_net(&lab, &["status", "--json"])?.ok()?)?;
    let (pid, logins) = (&status["pid"], lab.logins());

    // Another spelling of the same host as well.
    let spelled = format!("ssh://{}@172.16.5.4:2222", lab.codespace_user());
    for destination in ["codespace", &spelled] {
        let refused = gh_net(&lab, &["--ssh", destination])?;
        assert_eq!(refused.code(), 1, "{}", refused.errors());
        let said = refused.errors();
        assert!(said.contains(&format!("process {pid} already has a session with {destination}")), "{said}");
        assert!(said.contains(&format!("`gh-net stop {pid}`")), "{said}");
    }
    // A shell with another directory for such files sees the same sessions.
    lab.laptop.shell("install -d -o 1000 -m 700 /run/other")?;
    let elsewhere = |args| lab.gh_net(args)?.env("XDG_RUNTIME_DIR", "/run/other").start()?.finish(LIMIT);
    assert!(elsewhere(&["--ssh", "codespace"])?.errors().contains("already has a session with codespace"));
    assert_eq!(elsewhere(&["status", "--json"])?.ok()?.lines().count(), 1);
    assert_eq!(logins, lab.logins(), "a start that was refused has dialled");
    terminal.type_line()?;

    // A link that is lost changes nothing.
    lab.kill_sshd()?;
    bridge.process().wait_for("link lost (", LIMIT)?;
    assert!(gh_net(&lab, &["--ssh", "codespace"])?.errors().contains("already has a session"));
    let _sshd = lab.start_sshd()?;
    bridge.wait_for_reconnect(1)?;
    terminal.type_line()?;

    // What the message says works, and so does a start right after it.
    gh_net(&lab, &["stop", &pid.to_string()])?.ok()?;
    let again = lab.bridge(&[])?;
    assert_eq!(bridge.into_process().finish(LIMIT)?.code(), 0);
    again.stop()?;
    assert_eq!(before.diff(&lab.codespace.state()?), "");
    assert!(!lab.laptop.run("ls /tmp | grep '^gh-net-1000$'")?.status.success(), "a session left its folder");
    Ok(())
}

#[test]
fn of_two_starts_at_the_same_moment_one_wins() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    for _ in 0..3 {
        let starts = (0..4).map(|_| lab.gh_net(&["--ssh", "codespace"])?.start());
        let mut starts = starts.collect::<Result<Vec<_>>>()?;
        let deadline = Instant::now() + READY;
        while starts.len() > 1 {
            ensure!(Instant::now() < deadline, "{} starts go on", starts.len());
            let mut left = Vec::new();
            for mut start in starts {
                if start.running()? {
                    left.push(start);
                    continue;
                }
                let refused = start.finish(LIMIT)?;
                assert_eq!(refused.code(), 1, "{}", refused.errors());
                assert!(refused.errors().contains("already has a session"), "{}", refused.errors());
            }
            starts = left;
            sleep(Duration::from_millis(20));
        }
        let winner = starts.pop().expect("one of them");
        winner.wait_for("ready", READY)?;
        winner.signal(Signal::SIGINT)?;
        assert_eq!(winner.finish(LIMIT)?.code(), 0);
        lab.wait_for_sidecars_end()?;
    }
    Ok(())
}

#[test]
fn a_killed_session_is_no_obstacle_for_the_next_one() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    let before = lab.codespace.state()?;
    let killed = lab.bridge(&["--grace", "15m"])?;
    killed.kill9()?;
    assert_eq!(gh_net(&lab, &["status"])?.ok()?, "no session");
    let bridge = lab.bridge(&["--grace", "15m"])?;
    assert_eq!(lab.codespace.shell("curl -sS http://10.20.0.10/")?, "hello from corp");
    assert_eq!(gh_net(&lab, &["--ssh", "codespace"])?.code(), 1);
    bridge.stop()?;
    assert_eq!(before.diff(&lab.codespace.state()?), "");
    Ok(())
}

#[test]
fn sessions_with_two_codespaces_work_side_by_side() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    let _sshd = lab.start_other_codespace()?;
    let before = (lab.codespace.state()?, lab.lan.state()?);
    let one = lab.bridge(&["--grace", "15m"])?;
    let other = lab.gh_net(&["--ssh", "other", "--grace", "15m"])?.ready()?;
    for host in [&lab.codespace, &lab.lan] {
        assert_eq!(host.shell("curl -sS http://10.20.0.10/")?, "hello from corp", "{}", host.name());
    }
    assert_eq!(gh_net(&lab, &["status", "--json"])?.ok()?.lines().count(), 2);
    assert_eq!(gh_net(&lab, &["--ssh", "other"])?.code(), 1);

    gh_net(&lab, &["stop", "codespace"])?.ok()?;
    assert_eq!(one.into_process().finish(LIMIT)?.code(), 0);
    assert_eq!(lab.lan.shell("curl -sS http://10.20.0.10/")?, "hello from corp");
    let text = gh_net(&lab, &["status"])?.ok()?;
    assert!(text.starts_with("session   other open"), "{text}");
    gh_net(&lab, &["stop"])?.ok()?;
    assert_eq!(other.into_process().finish(LIMIT)?.code(), 0);
    assert_eq!(before.0.diff(&lab.codespace.state()?), "");
    assert_eq!(before.1.diff(&lab.lan.state()?), "");
    Ok(())
}

#[test]
fn a_suspended_session_is_no_obstacle_to_the_commands_about_others() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    let _sshd = lab.start_other_codespace()?;
    let suspended = lab.bridge(&["--grace", "15m"])?;
    let status: Value = serde_json::from_str(&gh_net(&lab, &["status", "--json"])?.ok()?)?;
    let pid = status["pid"].to_string();
    suspended.process().signal(Signal::SIGSTOP)?;
    let silent = format!("process {pid} does not answer; it may be suspended");

    let other = lab.gh_net(&["--ssh", "other"])?.ready()?;
    let shown = gh_net(&lab, &["status", "--json"])?;
    assert_eq!(shown.code(), 1);
    assert!(shown.errors().contains(&silent), "{}", shown.errors());
    let status: Value = serde_json::from_str(&shown.text())?;
    assert_eq!(status["session"]["target"], "other");
    // By its process, then by its name.
    gh_net(&lab, &["stop", &status["pid"].to_string()])?.ok()?;
    assert_eq!(other.into_process().finish(LIMIT)?.code(), 0);
    let other = lab.gh_net(&["--ssh", "other"])?.ready()?;
    gh_net(&lab, &["stop", "other"])?.ok()?;
    assert_eq!(other.into_process().finish(LIMIT)?.code(), 0);

    for args in [&["stop"][..], &["stop", &pid], &["stop", "codespace"]] {
        let failed = gh_net(&lab, args)?;
        assert_eq!(failed.code(), 1, "{args:?}");
        assert!(failed.errors().contains(&silent), "{args:?}: {}", failed.errors());
    }
    // It goes on, and does what it was asked meanwhile.
    suspended.process().signal(Signal::SIGCONT)?;
    assert_eq!(suspended.into_process().finish(LIMIT)?.code(), 0);
    Ok(())
}

#[test]
fn who_took_a_suspended_session_over_is_not_taken_over_by_a_third_start() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    let first = lab.bridge(&["--grace", "15m"])?;
    first.process().signal(Signal::SIGSTOP)?;
    let second = lab.bridge(&["--grace", "15m"])?;
    assert!(second.log().contains("is suspended; this start takes the session over"), "{}", second.log());
    let status: Value = serde_json::from_str(&gh_net(&lab, &["status", "--json"])?.text())?;
    let refusal = format!("process {} already has a session with codespace", status["pid"]);
    let third = || gh_net(&lab, &["--ssh", "codespace"]);
    let refused = third()?;
    assert!(refused.code() == 1 && refused.errors().contains(&refusal), "{}", refused.errors());

    // Nor after the first one has ended.
    first.process().signal(Signal::SIGCONT)?;
    let taken_over = first.into_process().finish(LIMIT)?;
    assert!(taken_over.errors().contains("has taken the session over"), "{}", taken_over.errors());
    let refused = third()?;
    assert!(refused.code() == 1 && refused.errors().contains(&refusal), "{}", refused.errors());
    assert_eq!(lab.codespace.shell("curl -sS http://10.20.0.10/")?, "hello from corp");
    second.stop()?;
    Ok(())
}

#[test]
fn a_session_can_be_watched() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    let bridge = lab.bridge(&["--grace", "15m"])?;
    let json = lab.gh_net(&["status", "--watch", "--json"])?.start()?;
    let text = lab.gh_net(&["status", "--watch"])?.start()?;
    json.wait_for("\"state\":\"up\"", LIMIT)?;
    // A reader that has seen enough ends it.
    let mut head = lab.laptop.command_as(LAPTOP_USER, 1000, "/bin/sh");
    head.args(["-c", "/run/lab/bin/gh-net status --watch --json | head -n 1"]);
    let first: Value = serde_json::from_str(&lab.laptop.start(head)?.finish(LIMIT)?.ok()?)?;
    assert_eq!(first["schema"], 1);

    lab.kill_sshd()?;
    json.wait_for("\"state\":\"down\"", LIMIT)?;
    text.wait_for("reconnecting for ", LIMIT)?;
    text.wait_for("next attempt in ", LIMIT)?;
    let _sshd = lab.start_sshd()?;
    bridge.wait_for_reconnect(1)?;
    let deadline = Instant::now() + LIMIT;
    while json.stdout().lines().last().is_none_or(|line| !line.contains("\"state\":\"up\"")) {
        ensure!(Instant::now() < deadline, "the new link is not shown:\n{}", json.stdout());
        sleep(Duration::from_millis(20));
    }
    // Ctrl-C ends the watching, not the session.
    text.signal(Signal::SIGINT)?;
    assert_eq!(text.finish(LIMIT)?.code(), 0);
    bridge.stop()?;
    let json = json.finish(LIMIT)?;
    let lines: Vec<Value> = json.ok()?.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let states = lines.iter().map(|line| line["link"]["state"].as_str().unwrap_or("none"));
    let mut states: Vec<_> = states.collect();
    states.dedup();
    assert_eq!((states.first(), states.last()), (Some(&"up"), Some(&"none")), "{states:?}");
    assert!(states.contains(&"down") && states[1..].contains(&"up"), "{states:?}");
    let end = lines.last().map(|line| &line["session"]["state"]);
    assert_eq!(end, Some(&"ended".into()));
    Ok(())
}

#[test]
fn on_a_terminal_the_picture_is_drawn_in_place() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    let bridge = lab.bridge(&[])?;
    let on_terminal = |term: &str| {
        let mut script = lab.laptop.command_as(LAPTOP_USER, 1000, "/usr/bin/script");
        script.env("TERM", term).args(["-qec", "/run/lab/bin/gh-net status --watch", "/dev/null"]);
        lab.laptop.start(script)
    };
    let (screen, dumb) = (on_terminal("xterm")?, on_terminal("dumb")?);
    screen.wait_for("\x1b[J", LIMIT)?;
    // Its times go on.
    screen.wait_for("A\r", LIMIT)?;
    dumb.wait_for("10.20.0.0/16 (route on corp0)", LIMIT)?;
    bridge.stop()?;
    let (screen, dumb) = (screen.finish(LIMIT)?, dumb.finish(LIMIT)?);
    assert_eq!((screen.code(), dumb.code()), (0, 0));
    assert!(screen.text().contains("no session"), "{}", screen.text());
    assert!(dumb.text().contains("ended") && !dumb.text().contains('\x1b'), "{}", dumb.text());
    Ok(())
}
