//! The distant line between the codespace and the laptop's home, seen by ordinary programs.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gh_net_tests::lab::wan::Shape;
use gh_net_tests::lab::{Direction, Lab, Options};

const PATIENCE: Duration = Duration::from_secs(20);
/// A TCP segment's payload in a packet of 1500 bytes, with timestamps (RFC 7323).
const PAYLOAD: f64 = 1448.0 / 1500.0;

fn line(megabits: u64, one_way: Duration) -> Shape {
    let rate = megabits * 1_000_000;
    // Room for 100 ms.
    Shape { rate: Some(rate), delay: one_way, queue: Some(rate as usize / 80), ..Shape::default() }
}

/// The shortest of some round trips, in milliseconds: what else runs on the machine delays some of them.
fn shortest_ping(lab: &Lab) -> Result<f64> {
    let summary = lab.laptop.shell("ping -n -c 20 -i 0.05 172.16.5.4 | tail -1")?;
    let figures = summary.split(" = ").nth(1).context("ping printed no summary")?;
    Ok(figures.split('/').next().context("ping printed no minimum")?.parse()?)
}

/// Megabits per second that one TCP connection carries, packet headers included: the median second, as the receiver counts.
/// The first second is the connection's slow start, and in the last one the queue drains.
fn throughput(lab: &Lab, direction: Direction) -> Result<f64> {
    let server = lab.codespace.spawn("iperf3 --server --one-off --json --port 5210")?;
    let listens = "ss -Htln sport = :5210 | grep -q . && exit; sleep 0.02";
    lab.codespace.shell(&format!("for attempt in $(seq 500); do {listens}; done; exit 1"))?;
    let reverse = match direction {
        Direction::Up => "--reverse",
        Direction::Down => "",
    };
    let client =
        lab.laptop.shell(&format!("iperf3 --client 172.16.5.4 --port 5210 --time 5 --json {reverse}"))?;
    let server = server.finish(PATIENCE)?.text();
    let receiver = match direction {
        Direction::Up => client,
        Direction::Down => server,
    };
    let report: serde_json::Value = serde_json::from_str(&receiver)?;
    let seconds = report["intervals"].as_array().context("iperf3 reported no intervals")?;
    let rate = |second: &serde_json::Value| second["sum"]["bits_per_second"].as_f64().unwrap_or_default();
    let mut rates: Vec<_> = seconds.iter().map(rate).collect();
    rates.sort_by(f64::total_cmp);
    ensure!(rates.len() >= 5, "too few intervals: {report}");
    Ok(rates[rates.len() / 2] / 1e6 / PAYLOAD)
}

fn is_about(what: &str, value: f64, wanted: f64, tolerance: f64) -> Result<()> {
    ensure!((value - wanted).abs() <= tolerance, "{what}: {value} instead of {wanted}");
    Ok(())
}

#[test]
fn a_distant_line_has_the_delay_and_the_rate_of_its_shape() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    let mut wan = lab.wan(line(20, Duration::from_millis(20)))?;
    is_about("the round trip in ms", shortest_ping(&lab)?, 40.0, 1.0)?;
    for direction in [Direction::Up, Direction::Down] {
        is_about("the rate in Mbit/s", throughput(&lab, direction)?, 20.0, 0.4)?;
    }

    // Each direction by itself, while it runs.
    wan.set(Direction::Up, line(5, Duration::from_millis(10)));
    wan.set(Direction::Down, line(50, Duration::from_millis(50)));
    is_about("the round trip in ms", shortest_ping(&lab)?, 60.0, 1.0)?;
    is_about("the uplink's rate in Mbit/s", throughput(&lab, Direction::Up)?, 5.0, 0.1)?;
    is_about("the downlink's rate in Mbit/s", throughput(&lab, Direction::Down)?, 50.0, 1.0)?;

    wan.set(Direction::Down, Shape { loss: 1.0, ..Shape::default() });
    let lost = lab.laptop.run("ping -n -c 2 -i 0.05 -W 0.2 172.16.5.4")?;
    ensure!(lost.text().contains("100% packet loss"), "{}", lost.text());
    ensure!(wan.counts(Direction::Down).lost >= 2, "{:?}", wan.counts(Direction::Down));

    drop(wan);
    let near = shortest_ping(&lab)?;
    ensure!(near < 5.0, "without the line a round trip still takes {near} ms");
    Ok(())
}

#[test]
fn a_bridge_lasts_while_a_line_comes_and_goes() -> Result<()> {
    for home_nat in [true, false] {
        let Some(lab) = Lab::for_test(Options { home_nat, ..Options::default() })? else { return Ok(()) };
        let bridge = lab.bridge(&[])?;
        let before = lab.leaks()?;
        let fetch = || lab.codespace.shell("curl -sS --max-time 10 -w ' %{time_total}' http://10.20.0.10/");
        let wan = lab.wan(line(10, Duration::from_millis(75)))?;
        let distant = fetch()?;
        drop(wan);
        let near = fetch()?;
        let seconds = |answer: &str| -> Result<f64> {
            Ok(answer.strip_prefix("hello from corp").context(answer.to_owned())?.trim().parse()?)
        };
        ensure!(seconds(&distant)? >= 0.3, "two round trips: {distant}");
        ensure!(seconds(&near)? < seconds(&distant)?, "{near} near, {distant} distant");
        ensure!(!bridge.log().contains("reconnected"), "the link was lost:\n{}", bridge.log());
        ensure!(lab.leaks()? == before, "packets leaked");
    }
    Ok(())
}
