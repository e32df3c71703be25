//! DNS: all record types over UDP and TCP, and each query at the right resolver.

use std::collections::HashSet;
use std::net::{SocketAddr, UdpSocket};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use gh_net_tests::lab::{Bridged, Host, Lab, Options};
use serde_json::Value;

/// Time limit for gh-net's commands.
const SOON: Duration = Duration::from_secs(10);

static BRIDGED: LazyLock<Option<Bridged>> =
    LazyLock::new(|| Bridged::start(Options::default(), &[]).expect("a bridge"));

fn dig(host: &Host, question: &str) -> Result<String> {
    host.shell(&format!("dig +tries=1 {question}"))
}

fn nameservers(host: &Host) -> Result<Vec<String>> {
    let file = host.read("/etc/resolv.conf")?;
    let servers = file.lines().filter_map(|line| line.strip_prefix("nameserver "));
    Ok(servers.map(|server| server.trim().to_owned()).collect())
}

#[test]
fn all_record_types_over_udp_and_tcp() -> Result<()> {
    let Some(Bridged { lab, .. }) = &*BRIDGED else { return Ok(()) };
    for transport in ["+notcp", "+tcp"] {
        let short = |question: &str| dig(&lab.codespace, &format!("+short {transport} {question}"));
        assert_eq!(short("www.corp.internal A")?, "10.20.0.10");
        assert_eq!(short("www.corp.internal AAAA")?, "fd20:20::10");
        assert_eq!(short("intranet.corp.internal A")?, "www.corp.internal.\n10.20.0.10");
        assert_eq!(short("intranet.corp.internal CNAME")?, "www.corp.internal.");
        assert_eq!(short("text.corp.internal TXT")?, "\"hello from corp\"");
        assert_eq!(short("_ldap._tcp.corp.internal SRV")?, "10 20 389 www.corp.internal.");
        assert_eq!(short("corp.internal MX")?, "10 mail.corp.internal.");
        assert_eq!(short("-x 10.20.0.10")?, "www.corp.internal.");
        assert_eq!(short("-x fd20:20::10")?, "www.corp.internal.");
        assert_eq!(short("svc.corp.internal TYPE65")?, "1 . alpn=\"h2\"");
    }
    Ok(())
}

#[test]
fn large_answers_are_truncated_over_udp_and_complete_over_tcp() -> Result<()> {
    let Some(Bridged { lab, .. }) = &*BRIDGED else { return Ok(()) };
    for (name, records) in [("big", 6), ("huge", 24)] {
        let cut = dig(&lab.codespace, &format!("+ignore +noedns {name}.corp.internal TXT"))?;
        let flags = cut.lines().find(|line| line.contains("flags:")).unwrap_or_default();
        assert!(flags.split([' ', ';']).any(|flag| flag == "tc"), "{name} in 512 bytes: {cut}");
        let whole = dig(&lab.codespace, &format!("+short {name}.corp.internal TXT"))?;
        assert_eq!(whole.lines().count(), records, "{name}");
    }
    let fits = dig(&lab.codespace, "+ignore +bufsize=4096 +short big.corp.internal TXT")?;
    assert_eq!(fits.lines().count(), 6, "with EDNS, 1300 bytes fit a UDP answer");
    Ok(())
}

#[test]
fn negative_answers_stay_negative() -> Result<()> {
    let Some(Bridged { lab, .. }) = &*BRIDGED else { return Ok(()) };
    for transport in ["+notcp", "+tcp"] {
        let none = dig(&lab.codespace, &format!("{transport} nope.corp.internal"))?;
        assert!(none.contains("status: NXDOMAIN"), "{none}");
        let empty = dig(&lab.codespace, &format!("{transport} v4only.corp.internal AAAA"))?;
        assert!(empty.contains("status: NOERROR") && empty.contains("ANSWER: 0"), "{empty}");
        let public = dig(&lab.codespace, &format!("{transport} nope.example.com MX"))?;
        assert!(!public.contains("ANSWER: 1"), "{public}");
    }
    Ok(())
}

#[test]
fn the_search_domains_of_both_sides_apply() -> Result<()> {
    let Some(Bridged { lab, .. }) = &*BRIDGED else { return Ok(()) };
    assert_eq!(lab.codespace.shell("curl -sS http://www/")?, "hello from corp");
    let file = lab.codespace.read("/etc/resolv.conf")?;
    let search = file.lines().rfind(|line| line.starts_with("search ")).context("no search line")?;
    assert!(search.contains("xyz.internal.cloudapp.net") && search.contains("corp.internal"), "{search}");
    Ok(())
}

#[test]
fn names_of_the_laptop_are_not_sent_to_the_public_resolver() -> Result<()> {
    let Some(Bridged { lab, .. }) = &*BRIDGED else { return Ok(()) };
    dig(&lab.codespace, "secret-project.corp.internal")?;
    dig(&lab.codespace, "-x 10.20.77.77")?;
    assert!(lab.corp_dns_log().contains("secret-project.corp.internal"));
    let public = lab.public_dns_log();
    assert!(!public.contains("secret-project.corp.internal") && !public.contains("77.77.20.10"), "{public}");
    Ok(())
}

#[test]
fn public_names_are_answered_by_the_codespaces_own_resolver() -> Result<()> {
    let Some(Bridged { lab, .. }) = &*BRIDGED else { return Ok(()) };
    assert_eq!(dig(&lab.codespace, "+short view.example.com TXT")?, "\"public\"");
    assert_eq!(dig(&lab.codespace, "+short only-public.example A")?, "203.0.113.10");
    assert!(!lab.corp_dns_log().contains("only-public.example"));
    Ok(())
}

#[test]
fn a_name_outside_the_laptops_domains_that_only_the_laptop_knows_is_resolved() -> Result<()> {
    let Some(Bridged { lab, .. }) = &*BRIDGED else { return Ok(()) };
    assert_eq!(dig(&lab.codespace, "+short wiki.partner.example A")?, "10.20.0.10");
    Ok(())
}

/// musl asks all nameservers concurrently and takes the first answer.
#[test]
fn every_listed_nameserver_knows_the_laptops_names() -> Result<()> {
    let Some(Bridged { lab, .. }) = &*BRIDGED else { return Ok(()) };
    for host in [&lab.codespace, &lab.nested] {
        let servers = nameservers(host)?;
        ensure!(!servers.is_empty(), "{} has no name server", host.name());
        for server in servers {
            assert_eq!(dig(host, &format!("@{server} +short www.corp.internal"))?, "10.20.0.10", "{server}");
        }
    }
    Ok(())
}

#[test]
fn no_query_of_three_thousand_is_lost() -> Result<()> {
    let Some(Bridged { lab, .. }) = &*BRIDGED else { return Ok(()) };
    let server = nameservers(&lab.codespace)?.swap_remove(0);
    let server = SocketAddr::new(server.parse()?, 53);
    let client = lab.codespace.thread(move || queries(server, 3000, 100));
    let slowest = client.join().expect("the client does not panic")?;
    assert!(slowest < Duration::from_secs(4), "the slowest answer took {slowest:?}");
    Ok(())
}

/// Sends `count` queries, each once, with at most `window` unanswered at a time. Returns the slowest answer's time.
fn queries(server: SocketAddr, count: u16, window: usize) -> Result<Duration> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut open = HashSet::new();
    let mut buffer = [0; 1500];
    let (mut sent, mut slowest, mut asked) = (0, Duration::ZERO, Instant::now());
    while sent < count || !open.is_empty() {
        if sent < count && open.len() < window {
            socket.send(&query(sent))?;
            open.insert(sent);
            sent += 1;
            asked = Instant::now();
            continue;
        }
        let len =
            socket.recv(&mut buffer).with_context(|| format!("{} queries of {sent} lost", open.len()))?;
        ensure!(len > 12 && buffer[3] & 0xf == 0 && buffer[7] == 1, "an answer is not one record");
        ensure!(open.remove(&u16::from_be_bytes([buffer[0], buffer[1]])), "an answer without a query");
        slowest = slowest.max(asked.elapsed());
    }
    Ok(slowest)
}

/// A query for www.corp.internal A.
fn query(id: u16) -> Vec<u8> {
    let mut query = id.to_be_bytes().to_vec();
    query.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in ["www", "corp", "internal"] {
        query.push(label.len() as u8);
        query.extend(label.as_bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    query
}

#[test]
fn dns_false_leaves_resolv_conf_unchanged() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    let before = lab.codespace.read("/etc/resolv.conf")?;
    let bridge = lab.bridge(&["--dns", "false"])?;
    assert_eq!(lab.codespace.read("/etc/resolv.conf")?, before);
    assert_eq!(lab.codespace.shell("curl -sS http://10.20.0.10/")?, "hello from corp");
    assert!(dig(&lab.codespace, "www.corp.internal")?.contains("NXDOMAIN"));
    bridge.stop().map(drop)
}

#[test]
fn dns_false_means_that_the_laptop_answers_nobody() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    let bridge = lab.bridge(&["--dns", "false"])?;
    for gateway in gateways(&lab)? {
        for transport in ["+notcp", "+tcp"] {
            let output =
                lab.codespace.run(&format!("dig +tries=1 @{gateway} {transport} www.corp.internal"))?;
            assert!(output.text().contains("connection refused"), "{transport} {gateway}: {}", output.text());
        }
    }
    assert!(!lab.corp_dns_log().contains("www.corp.internal"), "the laptop's resolver was asked");
    bridge.stop().map(drop)
}

#[test]
fn the_status_shows_the_name_that_a_connection_was_opened_by() -> Result<()> {
    let Some(Bridged { lab, .. }) = &*BRIDGED else { return Ok(()) };
    let connect = "exec 3<>/dev/tcp/intranet.corp.internal/80; echo connected >&2; read <&3";
    let connection = lab.codespace.spawn(&format!("bash -c '{connect}'"))?;
    connection.wait_for("connected", SOON)?;
    let flows = status(lab)?["flows"].take();
    let is_it = |flow: &Value| flow["name"] == "intranet.corp.internal" && flow["state"] == "established";
    assert!(flows.as_array().context("no flows")?.iter().any(is_it), "{flows}");
    Ok(())
}

/// The laptop's ends of the tunnel.
fn gateways(lab: &Lab) -> Result<Vec<String>> {
    let tunnel = &status(lab)?["link"]["tunnel"]["gateways"];
    let gateways = tunnel.as_array().context("no tunnel")?.iter().filter_map(Value::as_str);
    Ok(gateways.map(str::to_owned).collect())
}

fn status(lab: &Lab) -> Result<Value> {
    let status = lab.gh_net(&["status", "--json"])?.start()?.finish(SOON)?.ok()?;
    serde_json::from_str(&status).with_context(|| format!("{status:?} is no status"))
}

#[test]
fn dns_local_asks_the_laptop_first() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    let bridge = lab.bridge(&["--dns", "local"])?;
    assert_eq!(dig(&lab.codespace, "+short view.example.com TXT")?, "\"corporate\"");
    assert_eq!(dig(&lab.codespace, "+short only-public.example A")?, "203.0.113.10");
    bridge.stop().map(drop)
}

#[test]
fn dns_split_strict_sends_only_names_of_its_domains_to_the_laptop() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    lab.laptop.write("/etc/resolv.conf", 0o644, "nameserver 10.20.0.53\nsearch corp.internal com\n")?;
    let bridge = lab.bridge(&["--dns", "split-strict"])?;
    assert_eq!(dig(&lab.codespace, "+short www.corp.internal A")?, "10.20.0.10");
    assert_eq!(dig(&lab.codespace, "+short view.example.com TXT")?, "\"public\"", "com is not the laptop's");
    assert!(bridge.log().contains("the search domain com"), "{}", bridge.log());
    let partner = dig(&lab.codespace, "wiki.partner.example")?;
    assert!(partner.contains("NXDOMAIN"), "{partner}");
    // Nor by a program that asks the laptop's end of the tunnel itself.
    for gateway in gateways(&lab)? {
        for name in ["wiki.partner.example", "one-label"] {
            let refused = dig(&lab.codespace, &format!("@{gateway} {name}"))?;
            assert!(refused.contains("REFUSED"), "{gateway}: {refused}");
        }
        assert_eq!(dig(&lab.codespace, &format!("@{gateway} +short www.corp.internal A"))?, "10.20.0.10");
    }
    for name in ["wiki.partner.example", "one-label"] {
        assert!(!lab.corp_dns_log().contains(name), "{name} was sent to the laptop");
    }
    bridge.stop().map(drop)
}

#[test]
fn a_name_of_one_label_does_not_leave_the_codespace() -> Result<()> {
    let Some(Bridged { lab, .. }) = &*BRIDGED else { return Ok(()) };
    let answer = dig(&lab.codespace, "one-label")?;
    assert!(answer.contains("NXDOMAIN"), "{answer}");
    for gateway in gateways(lab)? {
        let refused = dig(&lab.codespace, &format!("@{gateway} one-label"))?;
        assert!(refused.contains("REFUSED"), "{gateway}: {refused}");
    }
    assert!(!lab.corp_dns_log().contains("one-label"), "it was sent to the laptop");
    Ok(())
}

#[test]
fn a_rule_with_a_name_admits_what_a_lookup_of_it_gave_and_nothing_else() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    let bridge = lab.bridge(&["--allow", "tcp:wiki.partner.example:80"])?;
    let curl = "curl -sS --connect-timeout 10 http://";
    let before = lab.codespace.run(&format!("{curl}10.20.0.10/"))?;
    assert_ne!(before.code(), 0, "the address is admitted without a lookup: {}", before.text());
    // Another name of the same address, and the laptop's answer to it, is not enough.
    let other = lab.codespace.run(&format!("{curl}v4only.corp.internal/"))?;
    assert_ne!(other.code(), 0, "another name admits the address: {}", other.text());
    assert_eq!(lab.codespace.shell(&format!("{curl}wiki.partner.example/"))?, "hello from corp");
    assert_eq!(lab.codespace.shell(&format!("{curl}10.20.0.10/"))?, "hello from corp", "after the lookup");
    let port = lab.codespace.run("bash -c 'exec 3<>/dev/tcp/10.20.0.10/7'")?;
    assert_ne!(port.code(), 0, "another port is admitted: {}", port.text());
    assert!(!lab.public_dns_log().contains("wiki.partner.example"), "a rule's name is the laptop's");
    bridge.stop().map(drop)
}

#[test]
fn a_public_name_that_leads_into_the_laptops_networks_is_refused_and_told() -> Result<()> {
    let Some(Bridged { lab, bridge, .. }) = &*BRIDGED else { return Ok(()) };
    for transport in ["+notcp", "+tcp"] {
        let answer = dig(&lab.codespace, &format!("{transport} db.example.net A"))?;
        assert!(answer.contains("status: REFUSED") && answer.contains("EDE: 15 (Blocked)"), "{answer}");
        assert!(answer.contains("10.20.0.10 is in the laptop's networks"), "{answer}");
    }
    let curl = lab.codespace.run("curl -sS --connect-timeout 10 http://db.example.net/")?;
    assert_eq!(curl.code(), 6, "curl could not resolve the host: {}", curl.text());
    assert!(!lab.corp_dns_log().contains(" db.example.net from"), "the laptop was asked for it");
    bridge.process().wait_for("the public name db.example.net is refused: it leads to 10.20.0.10", SOON)?;
    let status = status(lab)?;
    let told = status["notes"].as_array().context("no notes")?;
    assert!(told.iter().any(|note| note["code"] == "rebind-refused"), "{status}");
    assert_eq!(lab.codespace.shell("curl -sS http://v4only.corp.internal/")?, "hello from corp");
    Ok(())
}

#[test]
fn a_public_name_passes_with_rebind_allow() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    let bridge = lab.bridge(&["--rebind", "allow"])?;
    assert_eq!(lab.codespace.shell("curl -sS http://db.example.net/")?, "hello from corp");
    assert!(!lab.corp_dns_log().contains(" db.example.net from"), "the laptop was asked for it");
    bridge.stop().map(drop)
}

#[test]
fn a_public_name_in_a_rule_is_the_laptops() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    let bridge = lab.bridge(&["--allow", "db.example.net", "--allow", "*"])?;
    assert_eq!(lab.codespace.shell("curl -sS http://db.example.net/")?, "hello from corp");
    assert_eq!(lab.codespace.shell("curl -sS http://www.corp.internal/")?, "hello from corp");
    assert!(lab.corp_dns_log().contains(" db.example.net from"));
    bridge.stop().map(drop)
}
