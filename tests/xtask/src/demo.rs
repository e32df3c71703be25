//! `cargo xtask demo`: shows the bridge with ordinary programs such as curl, dig and ping.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use gh_net_lab::{Binaries, Bridge, Host, Lab, Options, Wan};

use crate::distance::Distance;
use crate::steps::Steps;
use crate::tools;

#[derive(Args)]
pub(crate) struct Arguments {
    /// Shows the bridge over a distant line: RATE,ROUND-TRIP, as in 50mbit,40ms, then optionally ,queue=SIZE
    /// ,loss=PERCENT% and ,jitter=TIME; or dsl, lte, office, ocean, hotel
    #[arg(long, value_name = "LINE")]
    wan: Option<Distance>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    Steps::of(|steps| {
        steps.run("install tools", tools::ensure_lab)?;
        println!("Building gh-net and its sidecar …");
        steps.run("build programs", Binaries::get)?;
        println!(
            "Building the lab: codespace, internet, laptop, corporate network, each a network namespace …"
        );
        let lab = steps.run("build the lab", || Lab::start(Options::default()))?;
        let _wan = arguments.wan.map(|distance| make_distant(&lab, distance)).transpose()?;
        steps.run("show", || show(&lab))
    })?;
    println!("\n✓ everything worked");
    Ok(())
}

/// The line lasts as long as what this returns.
fn make_distant(lab: &Lab, distance: Distance) -> Result<Wan> {
    let wan = lab.wan(distance.shape())?;
    title(&format!("The laptop is far from the codespace: {distance}"));
    shows(&lab.laptop, "ping -c 2 172.16.5.4", " 0% packet loss")?;
    Ok(wan)
}

fn show(lab: &Lab) -> Result<()> {
    let before = lab.codespace.state()?;

    title("Without the bridge the codespace does not reach the corporate network");
    fails(&lab.codespace, "curl -sS --max-time 2 http://10.20.0.10/")?;
    fails(&lab.codespace, "curl -sS --max-time 2 http://www.corp.internal/")?;

    let leaked_before = lab.leaks()?;

    title("gh-net starts on the laptop, as an ordinary user, over a real sshd");
    println!("laptop$ gh-net --ssh codespace");
    let bridge = lab.bridge(&[])?;
    println!("{}", indented(&bridge.log()));
    bridged(lab, leaked_before)?;
    stop(bridge)?;

    title("At the end the codespace is as it was");
    let diff = before.diff(&lab.codespace.state()?);
    ensure!(diff.is_empty(), "the codespace is not as it was:\n{diff}");
    println!("  rules, routes, links, addresses, nftables and resolv.conf: byte for byte as before");
    shows(&lab.codespace, "ip rule", "lookup main")?;
    shows(&lab.codespace, "cat /etc/resolv.conf", "nameserver 172.16.5.1")
}

fn bridged(lab: &Lab, leaked_before: u64) -> Result<()> {
    let Lab { codespace, .. } = lab;
    title("Programs in the codespace reach it, by address and by name, without configuration");
    shows(codespace, "curl -sS http://10.20.0.10/", "hello from corp")?;
    shows(codespace, "curl -sS 'http://[fd20:20::10]/'", "hello from corp")?;
    shows(codespace, "curl -sS http://www.corp.internal/", "hello from corp")?;
    shows(
        codespace,
        "curl -sS http://www/whoami   # a search domain of the laptop; corp sees the laptop",
        ":",
    )?;
    shows(codespace, "ping -c 2 10.20.0.10", " 0% packet loss")?;
    shows(codespace, "ping -c 2 fd20:20::10", " 0% packet loss")?;
    shows(codespace, "dig +noall +answer _ldap._tcp.corp.internal SRV", "389 www.corp.internal.")?;
    shows(codespace, "dig +noall +answer -x 10.20.0.10", "www.corp.internal.")?;
    fails(codespace, "curl -sS http://10.20.0.10:81/   # a closed port")?;

    title("So does a container in the codespace");
    lab.start_container()?;
    shows(&lab.nested, "curl -sS http://www.corp.internal/", "hello from corp")?;

    title("The internet stays direct: it sees the codespace's own address");
    shows(codespace, "curl -sS http://example.com/whoami", "172.16.5.4")?;
    shows(codespace, "ip route get 203.0.113.10", "dev eth0")?;

    title("What has changed in the codespace");
    shows(codespace, "ip rule", "suppress_prefixlength 0")?;
    shows(codespace, "ip route show table all dev ghnet0", "10.20.0.0/16")?;
    shows(codespace, "cat /etc/resolv.conf", "corp.internal")?;

    title("Not one packet for the laptop's networks reached the internet's router");
    let leaks = lab.leaks()? - leaked_before;
    println!("  {leaks} packets counted");
    ensure!(leaks == 0, "{leaks} packets leaked");
    Ok(())
}

fn stop(bridge: Bridge<'_>) -> Result<()> {
    title("Ctrl-C");
    let output = bridge.stop()?;
    println!("{}", indented(output.errors().lines().last().unwrap_or_default()));
    Ok(())
}

fn title(text: &str) {
    println!("\n=== {text}");
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect::<String>().trim_end().to_owned()
}

/// Shows a command that must succeed, with an output that contains `wanted`.
fn shows(host: &Host, line: &str, wanted: &str) -> Result<()> {
    println!("{}$ {line}", host.name());
    let text = host.shell(line)?;
    println!("{}", indented(&text));
    ensure!(text.contains(wanted), "`{line}` did not print {wanted:?}");
    Ok(())
}

/// Shows a command that must fail.
fn fails(host: &Host, line: &str) -> Result<()> {
    println!("{}$ {line}", host.name());
    let output = host.run_for(Duration::from_secs(20), line).context("it must fail quickly")?;
    println!("{}", indented(&format!("{}{}", output.text(), output.errors())));
    ensure!(output.code() != 0, "`{line}` should have failed");
    Ok(())
}
