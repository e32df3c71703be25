//! `cargo xtask bench`: the bridge beside the raw ssh pipe it runs over and, with `--rivals`, beside the other ways
//! to do what it does, in one run, in one lab, on one machine.
//!
//! The ways take turns, as many rounds as asked: a machine's speed varies from minute to minute, and so it varies
//! for all of them. The tables are Markdown, ready for docs/comparison.md.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use gh_net_tests::lab::{Binaries, Lab, Options, State};

use crate::tools;

mod figures;
mod install;
mod machine;
mod measures;
mod network;
mod pipe;
mod table;
mod ways;

use measures::Round;
use table::Row;
use ways::{BASE, WAYS, Way};

#[derive(Args)]
pub(crate) struct Arguments {
    /// Measures the whole field: ssh -w, ssh -R, tun2proxy and sshuttle too; installs what is missing
    #[arg(long)]
    rivals: bool,
    /// Seconds for each figure of each round
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// How often each way has its turn
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Only the ways whose names contain this (repeatable)
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let ways = arguments.ways();
    ensure!(!ways.is_empty(), "no way has such a name; there are {}", names(&WAYS.each_ref()));
    tools::ensure_lab()?;
    if ways.iter().any(|way| way.rival) {
        install::ensure_all()?;
    }
    println!("Building gh-net and its sidecar …");
    Binaries::get()?;
    let lab = Lab::start(Options::default())?;
    let header = machine::describe(arguments.rounds, arguments.seconds)?;
    println!("{header}\n{}", machine::load()?);

    let mut rows: Vec<_> = ways.iter().map(|way| Row { name: way.name, rounds: Vec::new() }).collect();
    let mut failures = Vec::new();
    for round in 1..=arguments.rounds {
        for (way, row) in ways.iter().zip(&mut rows) {
            println!("round {round} of {}: {}", arguments.rounds, way.name);
            let measured = take(way, &lab, Duration::from_secs(arguments.seconds))?;
            row.rounds.push(measured.sample);
            failures.extend(measured.failures.into_iter().map(|why| format!("{}, {why}", way.name)));
        }
    }
    println!("{}", machine::load()?);
    report(&header, &ways, &rows);
    ensure!(failures.is_empty(), "not everything could be measured:\n{}", failures.join("\n"));
    Ok(())
}

/// One round of one way. That it can't be started is a result like another; that it leaves something behind is not,
/// as the next way would be measured with it.
fn take(way: &Way, lab: &Lab, limit: Duration) -> Result<Round> {
    let before = states(lab)?;
    let round = match (way.start)(lab) {
        Ok(running) => {
            let round = Round::of(lab, running.road, limit);
            running.stop().with_context(|| format!("ending {}", way.name))?;
            round
        }
        Err(error) => Round { failures: vec![format!("start: {error:#}")], ..Round::default() },
    };
    for (before, after) in before.iter().zip(states(lab)?) {
        let diff = before.diff(&after);
        ensure!(diff.is_empty(), "{} left something behind:\n{diff}", way.name);
    }
    Ok(round)
}

fn states(lab: &Lab) -> Result<[State; 3]> {
    Ok([lab.codespace.state()?, lab.laptop.state()?, lab.home.state()?])
}

fn report(header: &str, ways: &[&Way], rows: &[Row]) {
    println!("\n{header}\n\n{}", table::figures(rows));
    println!("Rates in Gbit/s, echoes in µs; *loaded* is the echo while a bulk download runs.");
    let ratios = table::ratios(rows, BASE);
    if !ratios.is_empty() {
        println!("\nAs multiples of the {BASE} of the same round:\n\n{ratios}");
    }
    println!("\nThe ways:\n");
    for way in ways {
        println!("- {}: {}", way.name, way.note);
    }
}

impl Arguments {
    fn ways(&self) -> Vec<&'static Way> {
        let wanted = |way: &&Way| match self.only.as_slice() {
            [] => self.rivals || !way.rival,
            names => names.iter().any(|name| way.name.contains(name.as_str())),
        };
        WAYS.iter().filter(wanted).collect()
    }
}

fn names(ways: &[&Way]) -> String {
    ways.iter().map(|way| way.name).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(rivals: bool, only: &[&str]) -> String {
        let only = only.iter().map(|name| (*name).to_owned()).collect();
        names(&Arguments { rivals, seconds: 1, rounds: 1, only }.ways())
    }

    #[test]
    fn rivals_are_measured_if_asked_for() {
        assert_eq!(chosen(false, &[]), "the laptop itself; raw ssh pipe; raw ssh pipe, aes128-gcm; gh-net");
        assert!(chosen(true, &[]).contains("sshuttle"));
        assert_eq!(chosen(false, &["ssh -w", "gh-net"]), "gh-net; ssh -w");
        assert_eq!(chosen(true, &["no such"]), "");
    }

    #[test]
    fn what_all_are_compared_with_is_always_measured() {
        for rivals in [false, true] {
            assert!(chosen(rivals, &[]).contains(BASE));
        }
    }
}
