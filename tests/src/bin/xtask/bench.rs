//! `cargo xtask bench`: the bridge beside the raw ssh pipe it runs over, in one run on one machine.
//!
//! *up* is from the codespace to the corporate network, *down* the other way.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use gh_net_tests::lab::servers::ECHO;
use gh_net_tests::lab::{Binaries, Host, LAPTOP_USER, Lab, Options};

use crate::tools;

/// Bytes per raw transfer.
const BULK: u64 = 1 << 30;
/// Seconds per iperf3 run.
const SECONDS: u32 = 6;
/// Echoes per measurement; the first tenth warms up.
const ECHOES: usize = 3000;
const GCM: &str = "Ciphers=aes128-gcm@openssh.com";

struct Rates {
    up: f64,
    down: f64,
    echo: Echo,
}

struct Echo {
    p50: Duration,
    p99: Duration,
}

pub(crate) fn run() -> Result<()> {
    tools::ensure_lab()?;
    println!("Building gh-net and its sidecar …");
    Binaries::get()?;
    let lab = Lab::start(Options::default())?;

    println!("\n{:34} {:>10} {:>10} {:>12} {:>12}", "", "up", "down", "echo p50", "echo p99");
    row("the laptop itself, no tunnel", &through_network(&lab.laptop)?);
    let raw = raw_pipe(&lab.laptop, &[])?;
    row("raw ssh pipe, default cipher", &raw);
    row("raw ssh pipe, aes128-gcm", &raw_pipe(&lab.laptop, &["-o", GCM])?);
    let bridge = lab.bridge(&[])?;
    let bridged = through_network(&lab.codespace)?;
    bridge.stop()?;
    row("gh-net", &bridged);
    let later = bridged.echo.p50.as_secs_f64() - raw.echo.p50.as_secs_f64();
    println!(
        "{:34} {:>9.0}% {:>9.0}% {:>+9.0} µs",
        "gh-net against the raw ssh pipe",
        100.0 * bridged.up / raw.up,
        100.0 * bridged.down / raw.down,
        later * 1e6
    );
    Ok(())
}

fn row(name: &str, rates: &Rates) {
    let gigabits = |rate: f64| format!("{:.2} Gb/s", rate / 1e9);
    let micros = |time: Duration| format!("{} µs", time.as_micros());
    println!(
        "{name:34} {:>10} {:>10} {:>12} {:>12}",
        gigabits(rates.up),
        gigabits(rates.down),
        micros(rates.echo.p50),
        micros(rates.echo.p99)
    );
}

/// iperf3 and the echo server, from `host`.
fn through_network(host: &Host) -> Result<Rates> {
    let iperf = |flags: &str| -> Result<f64> {
        let line = format!("iperf3 --json --client 10.20.0.10 --time {SECONDS} {flags}");
        let report: serde_json::Value = serde_json::from_str(&host.shell(&line)?)?;
        report["end"]["sum_received"]["bits_per_second"].as_f64().context("iperf3 reported no rate")
    };
    let (up, down) = (iperf("")?, iperf("--reverse")?);
    let echo = host.thread(|| -> Result<Echo> {
        let mut stream = TcpStream::connect(("10.20.0.10", ECHO))?;
        stream.set_nodelay(true)?;
        let mut answers = stream.try_clone()?;
        echo(&mut stream, &mut answers)
    });
    let echo = echo.join().expect("the echo client does not panic")?;
    Ok(Rates { up, down, echo })
}

/// `ssh host cat`, in both directions.
fn raw_pipe(laptop: &Host, options: &[&str]) -> Result<Rates> {
    // The laptop's stdin is what the codespace downloads.
    let (mut child, started) = ssh(laptop, options, "echo x; cat > /dev/null; echo x")?;
    let mut input = child.stdin.take().context("stdin is a pipe")?;
    let block = vec![0u8; 128 * 1024];
    for _ in 0..BULK / block.len() as u64 {
        input.write_all(&block)?;
    }
    drop(input);
    read_exactly(&mut child, 2)?;
    let down = rate(started);
    ensure!(child.wait()?.success(), "ssh failed");

    let (mut child, started) = ssh(laptop, options, &format!("echo x; head -c {BULK} /dev/zero"))?;
    read_exactly(&mut child, BULK)?;
    let up = rate(started);
    ensure!(child.wait()?.success(), "ssh failed");

    let (mut child, _) = ssh(laptop, options, "echo x; exec cat")?;
    let mut input = child.stdin.take().context("stdin is a pipe")?;
    let mut answers = child.stdout.take().context("stdout is a pipe")?;
    let echo = echo(&mut input, &mut answers)?;
    drop(input);
    child.wait()?;
    Ok(Rates { up, down, echo })
}

/// Starts a command over ssh and waits for the `x` line by which it says that it runs.
fn ssh(laptop: &Host, options: &[&str], line: &str) -> Result<(Child, Instant)> {
    let mut command = laptop.command_as(LAPTOP_USER, 1000, "ssh");
    command.args(options).arg("codespace").arg(line);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut child = laptop.enter(move || command.spawn())?;
    read_exactly(&mut child, 2)?;
    Ok((child, Instant::now()))
}

fn read_exactly(child: &mut Child, count: u64) -> Result<()> {
    let stdout = child.stdout.as_mut().context("stdout is a pipe")?;
    let mut buffer = vec![0u8; 128 * 1024];
    let mut left = count;
    while left > 0 {
        let most = buffer.len().min(left as usize);
        let read = stdout.read(&mut buffer[..most])?;
        ensure!(read > 0, "ssh ended early");
        left -= read as u64;
    }
    Ok(())
}

fn rate(started: Instant) -> f64 {
    BULK as f64 * 8.0 / started.elapsed().as_secs_f64()
}

/// The round trip of one byte.
fn echo(to: &mut impl Write, from: &mut impl Read) -> Result<Echo> {
    let mut trips = Vec::with_capacity(ECHOES);
    let mut byte = [0u8];
    for _ in 0..ECHOES {
        let sent = Instant::now();
        to.write_all(b"x")?;
        to.flush()?;
        from.read_exact(&mut byte)?;
        trips.push(sent.elapsed());
    }
    let trips = &mut trips[ECHOES / 10..];
    trips.sort_unstable();
    Ok(Echo { p50: trips[trips.len() / 2], p99: trips[trips.len() * 99 / 100] })
}
