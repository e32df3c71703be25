//! Rules: what they allow is reached, what they deny is refused at once; the recipes of docs/policy.md do what they say.

use std::fs;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use gh_net_tests::lab::{LAPTOP_HOME, Lab, Options, Output, Terminal};
use gh_net_tests::root;

const LIMIT: Duration = Duration::from_secs(20);
/// Curl's exit code if the connection is refused in whatever way. Silence would be a time-out, which is 28.
const REFUSED: i32 = 7;

fn curl(lab: &Lab, url: &str) -> Result<Output> {
    lab.codespace.run(&format!("curl -sS -g --max-time 30 {url}"))
}

fn reached(lab: &Lab, url: &str, said: &str) -> Result<()> {
    assert_eq!(curl(lab, url)?.ok()?, said, "{url}");
    Ok(())
}

fn refused(lab: &Lab, url: &str) -> Result<()> {
    let output = curl(lab, url)?;
    assert_eq!(output.code(), REFUSED, "{url}: {}", output.errors());
    Ok(())
}

/// The error of a TCP connection from the codespace.
fn connect_error(lab: &Lab, to: &str) -> Option<ErrorKind> {
    let to: SocketAddr = to.parse().expect("an address");
    lab.codespace.enter(move || TcpStream::connect_timeout(&to, LIMIT)).err().map(|error| error.kind())
}

/// The error of a UDP socket in the codespace that sent to this address.
fn datagram_error(lab: &Lab, to: &'static str) -> Option<ErrorKind> {
    lab.codespace
        .enter(move || {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.set_read_timeout(Some(LIMIT))?;
            socket.connect(to)?;
            socket.send(b"anybody there?")?;
            socket.recv(&mut [0; 64]).map(drop)
        })
        .err()
        .map(|error| error.kind())
}

fn gh_net(lab: &Lab, args: &[&str]) -> Result<Output> {
    lab.gh_net(args)?.start()?.finish(LIMIT)
}

fn configure(lab: &Lab, text: &str) -> Result<()> {
    lab.laptop.write(format!("{LAPTOP_HOME}/.config/gh-net/config.toml"), 0o644, text)
}

#[test]
fn the_first_rule_that_matches_decides_and_the_refused_learn_it_at_once() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    let rules = ["--deny", "tcp:10.20.0.10:9", "--allow", "tcp:10.20.0.10:7-80", "--deny", "10.20.0.10:80"];
    let more = ["--allow", "[fd20:20::10]:80", "--allow", "icmp:10.20.0.0/16", "--allow", "udp:10.20.0.53:7"];
    let bridge = lab.bridge(&[&rules[..], &more].concat())?;

    reached(&lab, "http://10.20.0.10/", "hello from corp")?;
    reached(&lab, "'http://[fd20:20::10]/'", "hello from corp")?;
    // A hole in a range that is allowed; a port beyond it; another host; another network.
    for to in ["10.20.0.10:9", "10.20.0.10:5432", "10.20.0.53:80", "192.168.1.50:80"] {
        assert_eq!(connect_error(&lab, to), Some(ErrorKind::HostUnreachable), "{to}");
    }
    assert_eq!(connect_error(&lab, "[fd20:20::10]:5432"), Some(ErrorKind::PermissionDenied));

    assert!(lab.codespace.shell("ping -c 1 -W 20 10.20.0.10")?.contains("1 received"));
    let denied = lab.codespace.run("ping -c 1 -W 20 fd20:20::10")?;
    let said = String::from_utf8_lossy(&denied.stdout).into_owned();
    assert!(said.contains("prohibited"), "{said}");

    assert_eq!(datagram_error(&lab, "10.20.0.53:7"), None);
    assert_eq!(datagram_error(&lab, "10.20.0.10:7"), Some(ErrorKind::HostUnreachable));
    // Names are resolved all the same.
    assert_eq!(lab.codespace.shell("dig +tries=1 +short www.corp.internal")?, "10.20.0.10");
    bridge.stop().map(drop)
}

#[test]
fn a_reload_judges_connections_again_and_an_error_changes_nothing() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    assert_eq!(gh_net(&lab, &["reload"])?.code(), 1, "there is no session");
    configure(&lab, "rules = [\"deny 10.20.0.66\"]\n")?;
    let bridge = lab.bridge(&["--deny", "10.20.0.10:5432"])?;
    let terminal = Terminal::open(&lab, "keys")?;
    refused(&lab, "http://10.20.0.66/")?;
    let view = || lab.codespace.shell("dig +tries=1 +short TXT view.example.com");
    assert_eq!(view()?, "\"public\"");

    let broken = |text: &str, said: &str| -> Result<()> {
        configure(&lab, text)?;
        let refused = gh_net(&lab, &["reload"])?;
        assert_eq!(refused.code(), 2, "{}", refused.errors());
        let errors = refused.errors();
        assert!(errors.contains(".config/gh-net/config.toml") && errors.contains(said), "{errors}");
        Ok(())
    };
    broken("rules = [\"allow db\"]\n", "rules: in \"allow db\", \"db\" is a name without a dot")?;
    broken("\nrules = [\n", "line 2")?;
    reached(&lab, "http://10.20.0.10/", "hello from corp")?;
    refused(&lab, "http://10.20.0.66/")?;

    // A name that a rule names is the laptop's from now on.
    configure(
        &lab,
        "rules = [\"allow 10.20.0.10:80\", \"allow view.example.com:443\"]\nexclude = \"10.9.9.9\"\n",
    )?;
    let said = gh_net(&lab, &["reload"])?.ok()?;
    assert!(
        said.contains("2 rules added, 1 removed; 1 connection ended; other settings have changed"),
        "{said}"
    );
    terminal.wait_for_end(LIMIT)?;
    reached(&lab, "http://10.20.0.10/", "hello from corp")?;
    refused(&lab, "http://10.20.0.10:7/")?;
    let deadline = Instant::now() + LIMIT;
    while view()? != "\"corporate\"" {
        ensure!(Instant::now() < deadline, "view.example.com is still asked of the codespace's resolver");
    }

    // The flag stays, before the file's rules.
    configure(&lab, "rules = \"allow 10.20.0.10:80-5432\"\n")?;
    assert!(gh_net(&lab, &["reload"])?.ok()?.contains("1 rule added, 2 removed; 0 connections ended"));
    refused(&lab, "http://10.20.0.10:5432/")?;
    assert!(gh_net(&lab, &["reload"])?.ok()?.contains("no rule has changed"));

    // An empty list allows everything that the flag does not deny, which is worth a warning.
    configure(&lab, "rules = []\n")?;
    let said = gh_net(&lab, &["reload"])?.ok()?;
    assert!(
        said.ends_with("there is no `allow` any more, so everything that no rule denies is allowed now"),
        "{said}"
    );
    bridge.stop().map(drop)
}

#[test]
fn a_dry_run_says_which_rule_decides() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    configure(&lab, "rules = [\"allow db.corp.internal:5432\", \"allow udp:*:53\"]\n")?;
    let rules = |args: &[&str]| gh_net(&lab, &[&["rules"], args].concat());
    let file = format!("({LAPTOP_HOME}/.config/gh-net/config.toml)");
    assert_eq!(
        rules(&["db.corp.internal:5432"])?.ok()?,
        format!(
            "tcp 10.20.0.10:5432 (db.corp.internal): forwarded by 10.20.0.0/16 (route on corp0): allow db.corp.internal:5432 {file}"
        )
    );
    for (target, said) in [
        ("10.20.0.10:5432", "tcp 10.20.0.10:5432: refused: no rule allows it"),
        ("icmp:10.20.0.10", "icmp 10.20.0.10: refused: no rule allows it"),
        ("192.168.1.20:53", "tcp 192.168.1.20:53: refused: an address of this computer, or a reserved one"),
        ("203.0.113.10:80", "tcp 203.0.113.10:80: not forwarded, the codespace uses its own way: no route"),
    ] {
        assert_eq!(rules(&[target])?.ok()?, said);
    }
    let json: serde_json::Value =
        serde_json::from_str(&rules(&["--deny", "*", "--json", "udp:[fd20:20::10]:53"])?.ok()?)?;
    assert_eq!((&json["forwarded"], &json["rule"]), (&false.into(), &"--deny *".into()));
    assert_eq!(rules(&["10.20.0.10"])?.code(), 2);
    assert_eq!(rules(&["nope.corp.internal:80"])?.code(), 1);
    Ok(())
}

#[test]
fn a_running_session_judges_by_its_rules_and_the_names_it_has_learnt() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    let bridge = lab.bridge(&["--allow", "db.corp.internal:5432", "--host-port", "3000", "--deny", "*:9"])?;
    let rules = |args: &[&str]| gh_net(&lab, &[&["rules"], args].concat())?.ok();
    let ends = |args: &[&str], end: &str| -> Result<()> {
        let said = rules(args)?;
        ensure!(said.starts_with("process ") && said.ends_with(end), "{said}");
        Ok(())
    };
    let address = "10.20.0.10:5432";
    ends(&[address], &format!(": tcp {address}: refused: no rule allows it"))?;
    let forwarded = "forwarded by 10.20.0.0/16 (route on corp0): --allow db.corp.internal:5432";
    ends(&["db.corp.internal:5432"], &format!("tcp {address} (db.corp.internal): {forwarded}"))?;
    // That was no lookup of the codespace.
    refused(&lab, &format!("http://{address}/"))?;
    reached(&lab, "-4 http://db.corp.internal:5432/", "hello from database")?;
    ends(&[address], &format!("tcp {address} (db.corp.internal): {forwarded}"))?;

    assert_eq!(
        gh_net(&lab, &["rules", "--deny", "*", "host.gh-net.internal:3000"])?.code(),
        1,
        "no session is asked"
    );
    let both = rules(&["host.gh-net.internal:3000"])?;
    let open = "(host.gh-net.internal): forwarded to port 3000 of this computer: --host-port";
    assert!(both.lines().count() == 2 && both.lines().all(|line| line.ends_with(open)), "{both}");
    let gateway = lab.codespace.shell("getent ahostsv4 host.gh-net.internal")?;
    let gateway = gateway.split_whitespace().next().context("no address")?;
    ends(&[&format!("{gateway}:3000")], "forwarded to port 3000 of this computer: --host-port")?;
    let json: serde_json::Value = serde_json::from_str(&rules(&["--json", address])?)?;
    assert_eq!(
        (&json["forwarded"], &json["names"]),
        (&true.into(), &serde_json::json!(["db.corp.internal"]))
    );
    // With a flag it is a dry run.
    assert_eq!(rules(&["--deny", "*", address])?, format!("tcp {address}: refused: --deny *"));
    bridge.stop().map(drop)
}

/// The block of the recipe with this title.
fn recipe(title: &str) -> Result<String> {
    let text = fs::read_to_string(root().join("docs/policy.md"))?;
    let (_, section) =
        text.split_once(&format!("\n## {title}\n")).with_context(|| format!("no recipe {title}"))?;
    let lines = section.lines().skip_while(|line| !line.starts_with("    "));
    let block = lines.take_while(|line| line.starts_with("    ")).map(|line| &line[4..]);
    Ok(block.collect::<Vec<_>>().join("\n"))
}

/// The arguments of a recipe's command after the codespace.
fn arguments(title: &str) -> Result<Vec<String>> {
    let command = recipe(title)?;
    let arguments = command.strip_prefix("gh-net my-codespace ").context(title.to_owned())?;
    shlex::split(arguments).with_context(|| command.clone())
}

#[test]
fn recipe_only_the_database() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    let arguments = arguments("Only the database")?;
    let bridge = lab.bridge(&arguments.iter().map(String::as_str).collect::<Vec<_>>())?;
    reached(&lab, "http://10.20.0.10:5432/", "hello from database")?;
    for url in [
        "http://10.20.0.10/",
        "http://10.20.0.53:5432/",
        "'http://[fd20:20::10]:5432/'",
        "http://192.168.1.50/",
    ] {
        refused(&lab, url)?;
    }
    assert_ne!(lab.codespace.run("ping -c 1 -W 20 10.20.0.10")?.code(), 0);
    bridge.stop().map(drop)
}

#[test]
fn recipe_a_name_instead_of_an_address() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    let arguments = arguments("A name instead of an address")?;
    let bridge = lab.bridge(&arguments.iter().map(String::as_str).collect::<Vec<_>>())?;
    refused(&lab, "http://10.20.0.10:5432/")?;
    reached(&lab, "-4 http://db.corp.internal:5432/", "hello from database")?;
    // The address is known by the name from now on, for this port alone.
    reached(&lab, "http://10.20.0.10:5432/", "hello from database")?;
    refused(&lab, "http://10.20.0.10:80/")?;
    reached(&lab, "http://wiki.partner.example/", "hello from corp")?;
    refused(&lab, "-6 http://www.corp.internal/")?;
    bridge.stop().map(drop)
}

#[test]
fn recipe_never_the_production_network() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    let arguments = arguments("Never the production network")?;
    let bridge = lab.bridge(&arguments.iter().map(String::as_str).collect::<Vec<_>>())?;
    refused(&lab, "http://10.20.0.66/")?;
    reached(&lab, "http://10.20.0.10/", "hello from corp")?;
    reached(&lab, "http://192.168.1.50/", "hello from lan")?;
    bridge.stop().map(drop)
}

#[test]
fn recipe_a_fence_for_an_ai_agent() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    configure(&lab, &recipe("A fence for an AI agent")?)?;
    let bridge = lab.bridge(&[])?;
    reached(&lab, "http://10.20.0.10/", "hello from corp")?;
    reached(&lab, "http://10.20.0.10:5432/", "hello from database")?;
    for url in ["http://10.20.0.10:7/", "http://10.20.0.53/", "http://192.168.1.50/"] {
        refused(&lab, url)?;
    }
    // It fences the laptop's networks alone.
    reached(&lab, "http://203.0.113.10/", "hello from internet")?;
    bridge.stop().map(drop)
}
