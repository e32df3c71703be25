//! What the codespace is refused is shown, and what it does is recorded.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gh_net_tests::lab::{Lab, Options};
use nix::sys::signal::{Signal, kill};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(20);
const AUDIT: &str = "/tmp/gh-net-audit.jsonl";
const DENY: &str = "tcp:10.20.0.10:81";

fn lines(lab: &Lab) -> Result<Vec<Value>> {
    let text = lab.laptop.shell(&format!("cat {AUDIT}"))?;
    text.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
}

#[test]
fn a_refused_flow_is_in_the_status_in_the_log_and_in_the_audit() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    let bridge = lab.bridge(&["--audit", AUDIT, "--deny", DENY])?;
    lab.codespace.shell("curl -sS http://10.20.0.10/")?;
    ensure!(lab.codespace.run("curl -sS --max-time 5 http://10.20.0.10:81/")?.code() != 0, "not refused");

    let status = lab.gh_net(&["status", "--json"])?.start()?.finish(LIMIT)?.ok()?;
    let status: Value = serde_json::from_str(&status)?;
    let denied = &status["denied"][0];
    assert_eq!(
        (&denied["server"], &denied["protocol"]),
        (&"10.20.0.10:81".into(), &"tcp".into()),
        "{status}"
    );
    assert_eq!(
        (&denied["rule"], &denied["refusal"]),
        (&"--deny tcp:10.20.0.10:81".into(), &"prohibited".into())
    );
    let text = lab.gh_net(&["status"])?.start()?.finish(LIMIT)?.ok()?;
    ensure!(text.contains("-> 10.20.0.10:81") && text.contains(&format!(": --deny {DENY}")), "{text}");

    // SIGTERM ends the session in an orderly way, and all lines are written.
    let process = bridge.into_process();
    process.signal(Signal::SIGTERM)?;
    let ended = process.finish(LIMIT)?;
    assert_eq!(ended.code(), 0, "{}", ended.errors());
    ensure!(ended.errors().contains("→ 10.20.0.10:81: --deny tcp:10.20.0.10:81"), "{}", ended.errors());
    let lines = lines(&lab)?;
    let events: Vec<&str> = lines.iter().filter_map(|line| line["event"].as_str()).collect();
    assert_eq!((events.first(), events.last()), (Some(&"session-begin"), Some(&"session-end")), "{events:?}");
    let find = |event: &str, server: &str| {
        lines.iter().find(|line| line["event"] == event && line["server"] == server).cloned()
    };
    find("flow-opened", "10.20.0.10:80").context("the request is not recorded")?;
    let closed = find("flow-closed", "10.20.0.10:80").context("its end is not recorded")?;
    ensure!(closed["downlink_bytes"].as_u64() > Some(0) && closed["verdict"] == "forwarded", "{closed}");
    let refused = find("flow-denied", "10.20.0.10:81").context("the refusal is not recorded")?;
    assert_eq!((&refused["verdict"], &refused["rule"]), (&"denied".into(), &format!("--deny {DENY}").into()));
    assert_eq!(lab.laptop.shell(&format!("stat -c %a {AUDIT}"))?, "600");
    Ok(())
}

#[test]
fn a_flow_that_a_name_refuses_is_shown_with_the_name() -> Result<()> {
    const NAME: &str = "intranet.corp.internal";
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    let bridge = lab.bridge(&["--audit", AUDIT, "--deny", NAME])?;
    ensure!(
        lab.codespace.run(&format!("curl -sS -4 --max-time 5 http://{NAME}/"))?.code() != 0,
        "not refused"
    );
    lab.codespace.run(&format!("bash -c 'echo anybody >/dev/udp/{NAME}/7'"))?;

    let status = lab.gh_net(&["status", "--json"])?.start()?.finish(LIMIT)?.ok()?;
    let status: Value = serde_json::from_str(&status)?;
    assert_eq!(status["rules"], serde_json::json!([format!("--deny {NAME}")]));
    let denied = status["denied"].as_array().context("no list")?;
    for protocol in ["tcp", "udp"] {
        let found = denied.iter().find(|denied| denied["protocol"] == protocol).context(protocol)?;
        assert_eq!((&found["name"], &found["rule"]), (&NAME.into(), &format!("--deny {NAME}").into()));
    }
    let text = lab.gh_net(&["status"])?.start()?.finish(LIMIT)?.ok()?;
    ensure!(text.contains(&format!("-> {NAME} (10.20.0.10:80)")), "{text}");
    ensure!(text.contains(&format!("rules     --deny {NAME}")), "{text}");

    let process = bridge.into_process();
    process.signal(Signal::SIGTERM)?;
    let log = process.finish(LIMIT)?;
    let line = format!("→ {NAME} (10.20.0.10:80): --deny {NAME}");
    ensure!(log.errors().contains(&line), "{}", log.errors());
    let lines = lines(&lab)?;
    for protocol in ["tcp", "udp"] {
        let is_it = |line: &&Value| line["event"] == "flow-denied" && line["protocol"] == protocol;
        let line = lines.iter().find(is_it).context(protocol)?;
        assert_eq!((&line["name"], &line["rule"]), (&NAME.into(), &format!("--deny {NAME}").into()));
    }
    Ok(())
}

/// Neither a new session of the same gh-net nor the next gh-net takes an identity again.
#[test]
fn each_flow_of_a_file_has_an_identity_of_its_own() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    let request = || lab.codespace.shell("curl -sS http://10.20.0.10/");
    let bridge = lab.bridge(&["--audit", AUDIT, "--grace", "15m"])?;
    request()?;
    for pid in lab.sidecars()? {
        // One may end by itself because another one did.
        let _ = kill(pid, Signal::SIGKILL);
    }
    bridge.process().wait_for("with a new session; ", Duration::from_secs(30))?;
    request()?;
    bridge.stop()?;
    let bridge = lab.bridge(&["--audit", AUDIT])?;
    request()?;
    bridge.stop()?;

    let lines = lines(&lab)?;
    let identities = |event: &str| -> Vec<&str> {
        let lines = lines.iter().filter(|line| line["event"] == event && line["protocol"] == "tcp");
        lines.filter_map(|line| line["flow"].as_str()).collect()
    };
    let (opened, closed) = (identities("flow-opened"), identities("flow-closed"));
    assert_eq!(opened, closed, "one after the other");
    assert_eq!((opened.len(), opened.iter().collect::<BTreeSet<_>>().len()), (3, 3), "{opened:?}");
    Ok(())
}
