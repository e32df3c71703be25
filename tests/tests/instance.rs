//! A running session is found, shown and ended by the user who runs it.

use std::time::Duration;

use anyhow::Result;
use gh_net_tests::lab::{Lab, Options, Output, Terminal};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(20);

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
