//! Following the codespace: networks that come and go there, other gateways and resolvers, and other programs that change
//! what gh-net has set.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use gh_net_tests::lab::{Bridge, Lab, Options};
use serde_json::Value;

/// Time limit for what is noticed and followed.
const FOLLOWED: Duration = Duration::from_secs(20);
/// A dead link is found after 29 s when it is idle.
const LOST: Duration = Duration::from_secs(29 + 10);
const RECONNECTED: Duration = Duration::from_secs(60);

const CORP: &str = "curl -sS --max-time 10 http://10.20.0.10/";
const INSISTS: &str = "left alone until it stops: names of the laptop's networks are not resolved";

/// A network of containers that overlaps the corporate network: the nested container has the address of a server there.
fn add_network(lab: &Lab) -> Result<()> {
    lab.nested.shell("ip addr add 10.20.0.10/24 dev eth0")?;
    lab.codespace.shell(
        "ip link add docker1 type bridge; ip addr add 10.20.0.1/24 dev docker1; ip link set docker1 up
        ip link set veth0 master docker1",
    )?;
    Ok(())
}

fn remove_network(lab: &Lab) -> Result<()> {
    lab.codespace.shell("ip link set veth0 master docker0; ip link delete docker1")?;
    lab.nested.shell("ip addr del 10.20.0.10/24 dev eth0").map(drop)
}

/// Waits until a line of the log says so.
fn said(bridge: &Bridge, words: &str) -> Result<()> {
    bridge.process().wait_for(words, FOLLOWED)
}

/// Waits until it holds in the codespace, whose changes nobody reports to the test.
fn eventually(what: &str, holds: impl Fn() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + FOLLOWED;
    while !holds()? {
        ensure!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn is_hooked(lab: &Lab) -> Result<bool> {
    Ok(lab.codespace.read("/etc/resolv.conf")?.contains("\nnameserver 198.1"))
}

fn status(lab: &Lab) -> Result<Value> {
    let output = lab.gh_net(&["status", "--json"])?.start()?.finish(FOLLOWED)?;
    Ok(serde_json::from_str(&output.ok()?)?)
}

fn resolver_hook(lab: &Lab) -> Result<bool> {
    // The first request asks the sidecar, and may be answered before it has answered.
    Ok(status(lab)?["sidecar"]["resolver_hook"].as_bool().unwrap_or(true))
}

fn overlaps(lab: &Lab) -> Result<usize> {
    let status = status(lab)?;
    let notes = status["notes"].as_array().map(Vec::as_slice).unwrap_or_default();
    Ok(notes.iter().filter(|note| note["code"] == "overlap").count())
}

#[test]
fn a_network_of_the_codespace_that_comes_later_wins_until_it_goes() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    let before = lab.codespace.state()?;
    let leaks = lab.leaks()?;
    let bridge = lab.bridge(&[])?;
    assert_eq!(lab.codespace.shell(CORP)?, "hello from corp");

    add_network(&lab)?;
    said(&bridge, "now reaches 10.20.0.0/24 by itself (docker1): it wins over the laptop's route")?;
    assert_eq!(lab.codespace.shell(CORP)?, "hello from nested");
    eventually("the status does not list the overlap", || Ok(overlaps(&lab)? == 1))?;
    // The rest of the laptop's network goes on.
    lab.corp.shell("ip addr add 10.20.1.10/16 dev eth0")?;
    assert_eq!(lab.codespace.shell("curl -sS --max-time 10 http://10.20.1.10/")?, "hello from corp");

    remove_network(&lab)?;
    said(&bridge, "no longer reaches 10.20.0.0/24 by itself (docker1)")?;
    assert_eq!(lab.codespace.shell(CORP)?, "hello from corp");
    eventually("the status still lists the overlap", || Ok(overlaps(&lab)? == 0))?;

    // One that overlaps nothing is one line of the laptop's own.
    lab.codespace.shell(
        "ip link add docker2 type bridge; ip addr add 172.19.0.1/16 dev docker2; ip link set docker2 up",
    )?;
    said(&bridge, "the codespace has changed: its own networks +172.19.0.0/16")?;
    lab.codespace.shell("ip link delete docker2")?;
    said(&bridge, "the codespace has changed: its own networks -172.19.0.0/16")?;
    let log = bridge.log();
    for once in ["now reaches", "no longer reaches", "+172.19.0.0/16", "-172.19.0.0/16"] {
        assert_eq!(log.matches(once).count(), 1, "{once}:\n{log}");
    }
    assert_eq!(lab.leaks()?, leaks, "packets for the laptop's networks reached the internet's router");
    bridge.stop()?;
    assert_eq!(before.diff(&lab.codespace.state()?), "");
    Ok(())
}

/// The sidecar takes the packets of 64 bridges, by the order of their names.
#[test]
fn the_status_names_the_container_bridges_that_are_left_out_now() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    lab.codespace.shell("for number in $(seq 100 164); do ip link add br-$number type bridge; done")?;
    let left_out = || -> Result<Vec<String>> {
        let status = status(&lab)?;
        let notes = status["notes"].as_array().context("no notes")?.iter();
        let notes = notes.filter(|note| note["code"] == "left-out");
        Ok(notes.map(|note| note["text"].as_str().unwrap_or_default().to_owned()).collect())
    };
    let bridge = lab.bridge(&[])?;
    let names = |bridges: &'static str| {
        let names = move |texts: &[String]| matches!(texts, [text] if text.contains(bridges));
        eventually(bridges, || Ok(names(&left_out()?)))
    };
    names("containers behind br-164, docker0 do not enter the tunnel")?;
    lab.codespace.shell("ip link delete br-100")?;
    names("containers behind docker0 do not enter the tunnel")?;
    lab.codespace.shell("ip link add br-z type bridge")?;
    eventually("the status does not name the other bridge", || {
        Ok(left_out()?.iter().any(|text| text.contains("behind br-z, docker0 do not enter")))
    })?;
    lab.codespace.shell("for number in $(seq 101 110); do ip link delete br-$number; done")?;
    eventually("the status still names bridges", || Ok(left_out()?.is_empty()))?;
    bridge.stop()?;
    Ok(())
}

#[test]
fn another_gateway_and_other_resolvers_stay_out_of_the_tunnel() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    let bridge = lab.bridge(&["--route", "auto", "--route", "203.0.113.0/24"])?;
    // The new resolver and the new gateway are in networks that are forwarded.
    lab.internet.shell("ip addr add 10.20.7.1/24 dev cs0")?;
    lab.codespace
        .shell("ip addr add 10.20.7.2/32 dev eth0; ip route add 10.20.7.1/32 dev eth0 src 172.16.5.4")?;
    let theirs = "nameserver 203.0.113.10\n";
    lab.codespace.write("/etc/resolv.conf", 0o644, theirs)?;
    said(&bridge, "its resolvers are now 203.0.113.10")?;
    lab.codespace
        .shell("ip route replace default via 10.20.7.1 src 172.16.5.4; ip route del 10.20.7.1/32 dev eth0")?;
    eventually("the gateway is not kept out of the tunnel", || {
        Ok(lab.codespace.shell("ip route show table 26727")?.contains("throw 10.20.7.1"))
    })?;
    // Public names are asked there, directly.
    assert_eq!(lab.codespace.shell("dig +short +tries=1 +time=4 example.com")?, "203.0.113.10");
    assert_eq!(lab.codespace.shell("dig +short +tries=1 +time=4 www.corp.internal")?, "10.20.0.10");
    assert!(lab.codespace.shell("ip route get 203.0.113.10")?.contains("dev eth0"));
    assert!(lab.codespace.shell("ip route get 203.0.113.11")?.contains("dev ghnet0"));
    assert_eq!(lab.codespace.shell(CORP)?, "hello from corp");
    bridge.stop()?;
    assert_eq!(lab.codespace.read("/etc/resolv.conf")?, theirs);
    Ok(())
}

#[test]
fn rules_that_another_program_removes_are_set_again() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    let before = lab.codespace.state()?;
    let bridge = lab.bridge(&[])?;
    // Rules of one priority may change places.
    let sorted = || lab.codespace.shell("ip rule | sort");
    let rules = sorted()?;
    for removal in ["ip rule del pref 30001", "ip rule del pref 30000", "ip link set ghnet0 down"] {
        lab.codespace.shell(removal)?;
        eventually(removal, || {
            let route = lab.codespace.shell("ip route get 10.20.0.10")?;
            Ok(sorted()? == rules && route.contains("dev ghnet0"))
        })?;
        // From then on nothing leaks.
        let leaks = lab.leaks()?;
        assert_eq!(lab.codespace.shell(CORP)?, "hello from corp", "{removal}");
        assert_eq!(
            lab.codespace.shell("curl -sS --max-time 10 http://www.corp.internal/")?,
            "hello from corp"
        );
        assert_eq!(
            lab.leaks()?,
            leaks,
            "{removal}: packets for the laptop's networks reached the internet's router"
        );
    }
    said(
        &bridge,
        "another program has removed the routing rule 30001 (iif lo lookup 26727, IPv4), and it is set again",
    )?;
    bridge.stop()?;
    assert_eq!(before.diff(&lab.codespace.state()?), "");
    Ok(())
}

#[test]
fn resolv_conf_that_another_program_rewrites_is_its_own_again_at_the_end() -> Result<()> {
    let theirs = "# Generated by dhclient\nsearch theirs.example\nnameserver 203.0.113.10\n";
    for by_rename in [false, true] {
        let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
        let bridge = lab.bridge(&[])?;
        if by_rename {
            // A mount point can't be replaced.
            lab.codespace.shell("umount /etc/resolv.conf")?;
            lab.codespace.write("/etc/resolv.conf.new", 0o644, theirs)?;
            lab.codespace.shell("mv /etc/resolv.conf.new /etc/resolv.conf")?;
        } else {
            lab.codespace.write("/etc/resolv.conf", 0o644, theirs)?;
        }
        said(
            &bridge,
            "another program has rewritten /etc/resolv.conf (it begins with \"Generated by dhclient\")",
        )?;
        assert!(is_hooked(&lab)?);
        assert_eq!(
            lab.codespace.shell("curl -sS --max-time 10 http://www.corp.internal/")?,
            "hello from corp"
        );
        assert_eq!(lab.codespace.shell("curl -sS --max-time 10 http://example.com/whoami")?, "172.16.5.4");
        assert!(lab.codespace.read("/etc/resolv.conf")?.contains("\nsearch theirs.example corp.internal\n"));
        bridge.stop()?;
        assert_eq!(lab.codespace.read("/etc/resolv.conf")?, theirs, "by rename: {by_rename}");
    }
    Ok(())
}

#[test]
fn a_program_that_insists_on_resolv_conf_is_left_alone() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    let bridge = lab.bridge(&[])?;
    // Each time with other text: the same one may be that of a daemon, which is waited for.
    let guard = lab.codespace.spawn(
        "sh -c 'number=0; while :; do if ! grep -q \"^# guarded\" /etc/resolv.conf; then number=$((number + 1)); \
         printf \"# guarded\\nnameserver 172.16.5.1\\n# %s\\n\" $number > /etc/resolv.conf; fi; sleep 0.05; done'",
    )?;
    said(&bridge, INSISTS)?;
    assert!(!is_hooked(&lab)?, "it was the last to write");
    drop(guard);
    assert!(bridge.log().contains("begins with \"guarded\""), "{}", bridge.log());
    assert_eq!(bridge.log().matches(INSISTS).count(), 1);
    eventually("the status says that the hook is set", || Ok(!resolver_hook(&lab)?))?;
    assert_eq!(lab.codespace.shell(CORP)?, "hello from corp", "addresses work as before");
    bridge.stop()?;
    let left = lab.codespace.read("/etc/resolv.conf")?;
    assert!(left.starts_with("# guarded\nnameserver 172.16.5.1\n"), "{left}");
    Ok(())
}

#[test]
fn the_codespace_is_followed_without_a_link_too() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    let leaks = lab.leaks()?;
    let bridge = lab.bridge(&["--grace", "15m"])?;
    lab.start_black_hole()?;
    bridge.process().wait_for("link lost (", LOST)?;

    add_network(&lab)?;
    assert_eq!(lab.codespace.shell(CORP)?, "hello from nested");
    let theirs = "nameserver 203.0.113.10\n";
    lab.codespace.write("/etc/resolv.conf", 0o644, theirs)?;
    eventually("resolv.conf is not hooked again", || is_hooked(&lab))?;
    assert_eq!(lab.codespace.shell("dig +short +tries=1 +time=4 example.com")?, "203.0.113.10");
    remove_network(&lab)?;
    assert_ne!(lab.codespace.run("curl -sS --max-time 2 http://10.20.0.10/")?.code(), 0, "there is no link");
    lab.codespace.shell("ip rule del pref 30001")?;
    eventually("the rule is not set again", || Ok(lab.codespace.shell("ip rule")?.contains("30001:")))?;
    assert_ne!(lab.codespace.run("curl -sS --max-time 2 http://10.20.0.10/")?.code(), 0, "there is no link");
    assert_eq!(lab.leaks()?, leaks, "packets for the laptop's networks reached the internet's router");

    lab.end_black_hole()?;
    bridge.process().wait_for("reconnected after", RECONNECTED)?;
    assert_eq!(lab.codespace.shell("curl -sS --max-time 10 http://www.corp.internal/")?, "hello from corp");
    bridge.stop()?;
    assert_eq!(lab.codespace.read("/etc/resolv.conf")?, theirs);
    Ok(())
}
