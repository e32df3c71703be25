//! `cargo xtask soak`: the programs of a release in a lab, with connections that come and go and a link that is cut again
//! and again, for as long as wanted. At the end nothing may have grown: memory, open descriptors, flows.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use clap::Args;
use gh_net_lab::{Binaries, Bridge, Lab, Options};

use crate::steps::Steps;
use crate::tools;

mod churn;
mod samples;

use churn::{Churn, Counts};
use samples::{Sample, Samples};

/// How many clients use the bridge at the same time.
const CLIENTS: u64 = 6;
/// A link lives for a time between these.
const LIFE: (u64, u64) = (5, 40);
/// One of so many cuts is a black hole; the others kill ssh.
const BLACK_HOLES: u64 = 6;
/// The length of a black hole in seconds, at most.
const BLACK_HOLE: u64 = 25;
/// After the traffic, flows end at the latest when their UDP mappings time out, which takes 5 minutes.
const QUIET: Duration = Duration::from_secs(6 * 60);
/// A link is replaced within this time.
const RECONNECTED: Duration = Duration::from_secs(90);

/// How long traffic and cuts last, if not said otherwise.
const MINUTES: u64 = 20;

#[derive(Args)]
pub(crate) struct Arguments {
    /// How long traffic and cuts last; the wait for the end of the last flows is added
    #[arg(long, default_value_t = MINUTES, value_parser = clap::value_parser!(u64).range(1..))]
    minutes: u64,
    /// The seed of a run to repeat; by default, another one each time
    #[arg(long)]
    seed: Option<u64>,
}

impl Default for Arguments {
    fn default() -> Self {
        Self { minutes: MINUTES, seed: None }
    }
}

/// Numbers from a seed (xorshift64).
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        // The generator's only fixed point is 0; and neighbouring seeds must not begin alike.
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).max(1))
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seed = arguments.seed.unwrap_or(clock.as_secs());
    println!("seed {seed}: repeat with `cargo xtask soak --minutes {} --seed {seed}`", arguments.minutes);
    soak(Duration::from_secs(arguments.minutes * 60), seed)
        .with_context(|| format!("with the seed {seed}"))?;
    println!("\n✓ nothing has grown, and the codespace is as it was");
    Ok(())
}

fn soak(time: Duration, seed: u64) -> Result<()> {
    Steps::of(|steps| {
        steps.run("install tools", tools::ensure_lab)?;
        // Those that a caller has named are taken as they are.
        if std::env::var_os("GH_NET_TEST_BIN").is_none() {
            println!("Building gh-net and its sidecar …");
            steps.run("build programs", Binaries::release)?.choose();
        }
        let lab = steps.run("build the lab", || Lab::start(Options::default()))?;
        let (before, leaks) = (lab.codespace.state()?, lab.leaks()?);
        let bridge = lab.bridge(&["--grace", "15m"])?;
        let mut samples = Samples::new(&lab, &bridge);
        let start = samples.start()?;
        let counts = steps.run("traffic and cuts", || under_way(&lab, &bridge, &mut samples, time, seed))?;
        let end = steps.run("quiet", || samples.empty(QUIET))?;
        println!("\n{}\n{counts}", samples.table());
        judge(&samples, &start, &end)?;
        ensure!(lab.leaks()? == leaks, "packets for the laptop's networks reached the internet's router");
        bridge.stop()?;
        let diff = before.diff(&lab.codespace.state()?);
        ensure!(diff.is_empty(), "the codespace is not as it was:\n{diff}");
        Ok(())
    })
}

/// Traffic, cuts and samples at the same time.
fn under_way(
    lab: &Lab,
    bridge: &Bridge<'_>,
    samples: &mut Samples<'_>,
    time: Duration,
    seed: u64,
) -> Result<Counts> {
    let end = Instant::now() + time;
    let broken = AtomicBool::new(false);
    let goes_on = || Instant::now() < end && !broken.load(Ordering::Relaxed);
    // Whichever fails ends the others.
    let watched = |result: Result<Counts>| result.inspect_err(|_| broken.store(true, Ordering::Relaxed));
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let mut churn = Churn::new(lab, Random::new(seed ^ (number + 1) << 32), number);
                scope.spawn(move || watched(churn.run(&goes_on)))
            })
            .collect();
        let cuts = scope.spawn(|| watched(cut(lab, bridge, &mut Random::new(seed), &goes_on)));
        let sampled = samples.collect(&goes_on).inspect_err(|_| broken.store(true, Ordering::Relaxed));
        let mut counts = cuts.join().expect("it does not panic")?;
        for client in clients {
            counts = counts + client.join().expect("it does not panic")?;
        }
        sampled.map(|()| counts)
    })
}

/// Cuts the link again and again.
fn cut(lab: &Lab, bridge: &Bridge<'_>, random: &mut Random, goes_on: &impl Fn() -> bool) -> Result<Counts> {
    let mut counts = Counts::default();
    while goes_on() {
        let next = Instant::now() + Duration::from_secs(LIFE.0 + random.below(LIFE.1 - LIFE.0 + 1));
        while goes_on() && Instant::now() < next {
            thread::sleep(Duration::from_millis(100));
        }
        let links = bridge.log().matches("reconnected after").count();
        if random.below(BLACK_HOLES) == 0 {
            lab.start_black_hole()?;
            thread::sleep(Duration::from_secs(1 + random.below(BLACK_HOLE)));
            lab.end_black_hole()?;
            counts.black_holes += 1;
            // A short one is survived by the link itself.
            if bridge.log().matches("link lost (").count() == links {
                continue;
            }
        } else {
            lab.kill_ssh()?;
            counts.kills += 1;
        }
        let deadline = Instant::now() + RECONNECTED;
        while bridge.log().matches("reconnected after").count() <= links {
            ensure!(Instant::now() < deadline, "not reconnected within {RECONNECTED:?}:\n{}", bridge.log());
            thread::sleep(Duration::from_millis(50));
        }
    }
    ensure!(!bridge.log().contains("with a new session"), "a session was lost:\n{}", bridge.log());
    Ok(counts)
}

/// Compares the end with the start, and the last quarter with the second.
fn judge(samples: &Samples<'_>, start: &Sample, end: &Sample) -> Result<()> {
    ensure!(end.flows == 0, "{} flows are left", end.flows);
    let (start, end) = (start.descriptors(), end.descriptors());
    println!("open descriptors of (gh-net without flows, sidecar): {start:?} before, {end:?} after");
    ensure!(start == end, "descriptors are left open");
    samples.memory_is_flat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_numbers_and_neighbours_others() {
        let numbers = |seed| {
            let mut random = Random::new(seed);
            (0..8).map(|_| random.below(1000)).collect::<Vec<_>>()
        };
        assert_eq!(numbers(7), numbers(7));
        assert_ne!(numbers(7), numbers(8));
        assert!(numbers(0).iter().any(|&number| number > 0));
    }
}
