//! The lab without a bridge: the assumptions of the other tests.

use std::sync::{LazyLock, Mutex};

use anyhow::Result;
use gh_net_tests::lab::servers::Pattern;
use gh_net_tests::lab::{CODESPACE, CODESPACE_WITHOUT_SSHD, Lab, Options};

static LAB: LazyLock<Option<Lab>> = LazyLock::new(|| Lab::for_test(Options::default()).expect("the lab"));
/// The leak counters are shared by the whole lab, so tests that use them run one after the other.
static COUNTING: Mutex<()> = Mutex::new(());

#[test]
fn only_the_laptop_reaches_the_corporate_network() -> Result<()> {
    let Some(lab) = &*LAB else { return Ok(()) };
    let _turn = COUNTING.lock();
    for url in ["http://10.20.0.10/", "http://[fd20:20::10]/", "http://www.corp.internal/"] {
        assert_eq!(lab.laptop.shell(&format!("curl -sS -g {url}"))?, "hello from corp");
        let fails = lab.codespace.run(&format!("curl -sS -g --max-time 2 {url}"))?;
        assert_ne!(fails.code(), 0, "{}", fails.text());
    }
    for address in ["10.20.0.10", "fd20:20::10"] {
        lab.laptop.shell(&format!("ping -c 1 -s 20000 {address}"))?;
    }
    Ok(())
}

#[test]
fn the_ordinary_users_of_the_laptop_log_in_and_become_root() -> Result<()> {
    let Some(lab) = &*LAB else { return Ok(()) };
    let laptop = |line: &str| lab.laptop.shell(&format!("su dev -c '{line}'"));
    assert_eq!(laptop("ssh codespace id -un")?, lab.codespace_user());
    if lab.has_sudo() {
        assert_eq!(laptop("ssh codespace sudo -n id -un")?, "root");
    }
    assert_eq!(laptop("ssh codespace-root id -un")?, "root");
    assert_eq!(laptop("id -u")?, "1000");
    let peer = laptop("ssh codespace echo \\$SSH_CONNECTION")?;
    assert!(peer.starts_with("198.51.100.2 "), "{peer}");
    Ok(())
}

#[test]
fn each_side_has_its_own_dns() -> Result<()> {
    let Some(lab) = &*LAB else { return Ok(()) };
    assert_eq!(lab.codespace.shell("dig +short view.example.com TXT")?, "\"public\"");
    assert_eq!(lab.laptop.shell("dig +short view.example.com TXT")?, "\"corporate\"");
    let corp = |question: &str| lab.laptop.shell(&format!("dig +short {question}"));
    assert_eq!(corp("www.corp.internal A")?, "10.20.0.10");
    assert_eq!(corp("www.corp.internal AAAA")?, "fd20:20::10");
    assert_eq!(corp("intranet.corp.internal A")?, "www.corp.internal.\n10.20.0.10");
    assert_eq!(corp("_ldap._tcp.corp.internal SRV")?, "10 20 389 www.corp.internal.");
    assert_eq!(corp("corp.internal MX")?, "10 mail.corp.internal.");
    assert_eq!(corp("-x 10.20.0.10")?, "www.corp.internal.");
    assert_eq!(corp("svc.corp.internal TYPE65")?, "1 . alpn=\"h2\"");
    assert!(corp("big.corp.internal TXT")?.len() > 1200);
    assert!(corp("huge.corp.internal TXT")?.len() > 4096);
    assert!(lab.laptop.shell("dig nope.corp.internal")?.contains("NXDOMAIN"));
    assert!(lab.codespace.shell("dig nope.corp.internal")?.contains("NXDOMAIN"));
    assert!(lab.corp_dns_log().contains("nope.corp.internal"));
    Ok(())
}

#[test]
fn the_router_counts_what_must_not_reach_it() -> Result<()> {
    let Some(lab) = &*LAB else { return Ok(()) };
    let _turn = COUNTING.lock();
    let before = lab.leaks()?;
    lab.codespace.shell("curl -sS http://203.0.113.10/")?;
    lab.nested.shell("curl -sS http://203.0.113.10/")?;
    lab.laptop.shell("curl -sS http://203.0.113.10/")?;
    assert_eq!(lab.leaks()?, before, "the internet itself is no leak");
    lab.codespace.run("ping -c 1 -W 1 10.20.0.10")?;
    assert_eq!(lab.leaks()?, before + 1);
    Ok(())
}

#[test]
fn a_container_reaches_the_internet_through_the_codespace() -> Result<()> {
    let Some(lab) = &*LAB else { return Ok(()) };
    assert_eq!(lab.nested.shell("curl -sS http://example.com/whoami")?, "172.16.5.4");
    assert_eq!(lab.codespace.shell("curl -sS http://172.17.0.2/")?, "hello from nested");
    Ok(())
}

#[test]
fn without_nat_the_codespace_sees_the_laptop_itself() -> Result<()> {
    let Some(lab) = Lab::for_test(Options { home_nat: false, ..Options::default() })? else { return Ok(()) };
    let peer = lab.laptop.shell("su dev -c 'ssh codespace echo \\$SSH_CONNECTION'")?;
    assert!(peer.starts_with("192.168.1.20 "), "{peer}");
    assert_eq!(lab.leaks()?, 0);
    Ok(())
}

#[test]
fn a_codespace_with_ipv6_reaches_the_internet_over_it() -> Result<()> {
    let options = Options { codespace_ipv6: true, ..Options::default() };
    let Some(lab) = Lab::for_test(options)? else { return Ok(()) };
    let page = lab.codespace.shell("curl -sS -6 http://example.com/whoami")?;
    assert_eq!(page, "fd00:c0de::4");
    Ok(())
}

#[test]
fn bulk_transfers_are_complete() -> Result<()> {
    let Some(lab) = &*LAB else { return Ok(()) };
    let len = 3_000_001;
    let fetch = format!("curl -sS http://10.20.0.10/bytes/{len}");
    let down = lab.laptop.shell(&format!("{fetch} | sha256sum"))?;
    assert_eq!(down, format!("{}  -", Pattern::sha256(len)));
    let up = lab.laptop.shell(&format!("{fetch} | curl -sS --data-binary @- http://10.20.0.10/sink"))?;
    assert_eq!(up, format!("{len} {}", Pattern::sha256(len)));
    Ok(())
}

#[test]
fn the_state_of_a_host_changes_only_with_the_host() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    let before = lab.codespace.state()?;
    lab.codespace.shell("curl -sS http://example.com/")?;
    lab.laptop.shell("su dev -c 'ssh codespace true'")?;
    assert_eq!(before.diff(&lab.codespace.state()?), "");
    lab.codespace.shell("ip route add 10.20.0.0/16 via 172.16.5.1")?;
    let after = before.diff(&lab.codespace.state()?);
    assert!(after.contains("+ 10.20.0.0/16 via 172.16.5.1"), "{after}");
    Ok(())
}

#[test]
fn the_real_gh_lists_the_codespaces_of_the_fake_api() -> Result<()> {
    let Some(mut lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    lab.start_github()?;
    let environment = "GITHUB_API_URL=http://127.0.0.1:8100/two GH_TOKEN=x GH_CONFIG_DIR=/tmp/gh";
    let list = lab
        .laptop
        .shell(&format!("{environment} /run/lab/gh/gh codespace list --json name --jq '.[].name'"))?;
    assert_eq!(list, format!("{CODESPACE}\n{CODESPACE_WITHOUT_SSHD}"));
    let unknown = lab.laptop.run(&format!("{environment} /run/lab/gh/gh codespace ssh --config -c nope"))?;
    assert!(unknown.errors().contains("HTTP 404"), "{}", unknown.errors());

    let config = format!("/run/lab/gh/gh codespace ssh --config -c {CODESPACE} > ~/config");
    let login = "ssh -F ~/config cs.big-fish-x7.main id -un";
    assert_eq!(lab.laptop.shell(&format!("su dev -c '{config}; {login}'"))?, lab.codespace_user());
    Ok(())
}
