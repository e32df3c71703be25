//! Names while there is no link, or a dead one that nobody has noticed yet.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use gh_net_tests::lab::{Lab, Options, Process};
use nix::sys::signal::Signal;
use serde_json::Value;

/// An answer that waits for nothing has to be there in this time. The lookups that waited took 3 s and 4.5 s.
const AT_ONCE: &str = "+time=2";
/// As long as glibc waits.
const PATIENT: &str = "+time=5";
/// A reconnect takes an ssh login and a handshake.
const RECONNECTED: Duration = Duration::from_secs(30);

/// What dig prints for a question that is asked once.
fn dig(lab: &Lab, question: &str) -> Result<String> {
    lab.codespace.shell(&format!("dig +tries=1 {question}"))
}

fn is(answer: &str, status: &str) -> bool {
    answer.contains(&format!("status: {status},"))
}

/// The address in an answer, and its TTL.
fn address(answer: &str) -> Option<(&str, u32)> {
    let line = answer.lines().find(|line| !line.starts_with(';') && line.contains("\tA\t"))?;
    let mut words = line.split_whitespace();
    let ttl = words.nth(1)?.parse().ok()?;
    Some((words.last()?, ttl))
}

fn assert_stale(answer: &str, expected: &str) {
    let (address, ttl) = address(answer).unwrap_or_else(|| panic!("no address: {answer}"));
    assert_eq!(address, expected);
    assert!((1..=30).contains(&ttl), "{answer}");
    assert!(answer.contains("EDE: 3 (Stale Answer)"), "{answer}");
}

/// The state of the link as the sidecar sees it.
fn link(lab: &Lab) -> Result<String> {
    // A process that has just ended, such as the one that ssh had started, has no program any more.
    let program = |pid| std::fs::read_link(format!("/proc/{pid}/exe")).ok();
    let program = lab.sidecars()?.into_iter().find_map(program).context("no sidecar")?;
    let status = lab.codespace.shell(&format!("{} status --json", program.display()))?;
    let status: Value = serde_json::from_str(&status)?;
    Ok(status["session"]["link"]["state"].as_str().context("no state")?.to_owned())
}

#[test]
fn names_while_the_link_is_lost() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    let bridge = lab.bridge(&["--grace", "15m"])?;
    for known in ["www.corp.internal", "-x 10.20.0.10", "wiki.partner.example"] {
        ensure!(is(&dig(&lab, known)?, "NOERROR"), "{known}");
    }
    ensure!(is(&dig(&lab, "v4only.corp.internal AAAA")?, "NOERROR"));

    // A laptop that is stopped does not connect again.
    bridge.process().signal(Signal::SIGSTOP)?;
    lab.kill_ssh()?;
    let deadline = Instant::now() + RECONNECTED;
    while link(&lab)? != "grace" {
        ensure!(Instant::now() < deadline, "the sidecar has not noticed the end of the link");
        std::thread::sleep(Duration::from_millis(20));
    }
    // Not one of the questions for the laptop holds up those after it.
    let never_asked = lab.codespace.spawn(&format!("dig +tries=1 {PATIENT} intranet.corp.internal"))?;
    let asked = Instant::now();
    let public = dig(&lab, &format!("{AT_ONCE} example.com"))?;
    assert_eq!(address(&public).map(|(address, _)| address), Some("203.0.113.10"), "{public}");
    let unknown = dig(&lab, &format!("{AT_ONCE} nope.example"))?;
    assert!(is(&unknown, "NXDOMAIN"), "{unknown}");
    assert_stale(&dig(&lab, &format!("{AT_ONCE} wiki.partner.example"))?, "10.20.0.10");

    assert_stale(&dig(&lab, &format!("{PATIENT} www.corp.internal"))?, "10.20.0.10");
    assert_stale(&dig(&lab, &format!("{PATIENT} +tcp www.corp.internal"))?, "10.20.0.10");
    let reverse = dig(&lab, &format!("{PATIENT} -x 10.20.0.10"))?;
    assert!(reverse.contains("www.corp.internal.") && reverse.contains("EDE: 3"), "{reverse}");
    let empty = dig(&lab, &format!("{PATIENT} v4only.corp.internal AAAA"))?;
    assert!(is(&empty, "NOERROR") && empty.contains("ANSWER: 0"), "{empty}");
    let never_asked = never_asked.finish(RECONNECTED)?.ok()?;
    assert!(is(&never_asked, "SERVFAIL") && never_asked.contains("EDE: 23"), "{never_asked}");
    assert!(asked.elapsed() > Duration::from_secs(4), "it did not wait for the link");
    assert_eq!(link(&lab)?, "grace");

    bridge.process().signal(Signal::SIGCONT)?;
    let mut digs: Vec<Process> = Vec::new();
    let deadline = Instant::now() + RECONNECTED;
    loop {
        digs.push(lab.codespace.spawn(&format!("dig +tries=1 {PATIENT} intranet.corp.internal"))?);
        if bridge.process().wait_for("reconnected after", Duration::from_millis(500)).is_ok() {
            break;
        }
        ensure!(Instant::now() < deadline, "not reconnected:\n{}", bridge.log());
    }
    let mut waited = false;
    for dig in digs {
        let answer = dig.finish(RECONNECTED)?.ok()?;
        // The first ones may have given up before.
        if !is(&answer, "SERVFAIL") {
            assert_eq!(address(&answer).map(|(address, _)| address), Some("10.20.0.10"), "{answer}");
            assert!(!answer.contains("EDE"), "{answer}");
            waited |= query_time(&answer)? >= Duration::from_millis(100);
        }
    }
    assert!(waited, "no question was asked while there was no link");

    let log = lab.corp_dns_log();
    let again = dig(&lab, "www.corp.internal")?;
    assert!(address(&again).is_some() && !again.contains("EDE"), "{again}");
    assert!(lab.corp_dns_log().len() > log.len(), "the laptop is asked again");
    bridge.stop().map(drop)
}

/// How long dig waited for the answer.
fn query_time(answer: &str) -> Result<Duration> {
    let line = answer.lines().find_map(|line| line.strip_prefix(";; Query time: "));
    let milliseconds = line.and_then(|line| line.strip_suffix(" msec")).context("no query time")?;
    Ok(Duration::from_millis(milliseconds.parse()?))
}

#[test]
fn names_while_a_dead_link_has_not_been_noticed() -> Result<()> {
    for mode in ["split", "local"] {
        let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
        let bridge = lab.bridge(&["--grace", "15m", "--dns", mode])?;
        ensure!(is(&dig(&lab, "www.corp.internal")?, "NOERROR"));
        lab.start_black_hole()?;
        for _ in 0..2 {
            let public = dig(&lab, &format!("{AT_ONCE} example.com"))?;
            assert_eq!(
                address(&public).map(|(address, _)| address),
                Some("203.0.113.10"),
                "{mode}: {public}"
            );
            let unknown = dig(&lab, &format!("{AT_ONCE} nope.example"))?;
            assert!(is(&unknown, "NXDOMAIN"), "{mode}: {unknown}");
        }
        assert_stale(&dig(&lab, &format!("{PATIENT} www.corp.internal"))?, "10.20.0.10");
        assert_eq!(link(&lab)?, "up", "too slow to see what this test is for");

        lab.end_black_hole()?;
        let deadline = Instant::now() + RECONNECTED * 2;
        while !is(&dig(&lab, &format!("{PATIENT} mail.corp.internal"))?, "NOERROR") {
            ensure!(Instant::now() < deadline, "{mode}: names do not come back:\n{}", bridge.log());
        }
        let again = dig(&lab, "www.corp.internal")?;
        assert!(address(&again).is_some() && !again.contains("EDE"), "{mode}: {again}");
        bridge.stop()?;
    }
    Ok(())
}
