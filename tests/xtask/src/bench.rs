//! `cargo xtask bench`: the bridge beside the raw ssh pipe it runs over and, with `--rivals`, beside the other ways
//! to do what it does, in one run, in one lab's networks, on one machine.
//!
//! The ways take turns, as many rounds as asked: a machine's speed varies from minute to minute, and so it varies
//! for all of them. The tables are Markdown, ready for docs/comparison.md.

use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Args;
use gh_net_lab::{Binaries, Lab, Options};

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
    Binaries::release()?.choose();
    let header = machine::describe(arguments.rounds, arguments.seconds)?;
    println!("{header}\n{}", machine::load()?);

    let mut rows: Vec<_> = ways.iter().map(|way| Row { name: way.name, rounds: Vec::new() }).collect();
    let mut failures = Vec::new();
    let ended = take_turns(arguments, &ways, &mut rows, &mut failures);
    println!("{}", machine::load()?);
    // Also if the end came early: what was measured until then took its time.
    report(&header, &ways, &rows);
    ended?;
    ensure!(failures.is_empty(), "not everything could be measured:\n{}", failures.join("\n"));
    Ok(())
}

fn take_turns(
    arguments: &Arguments,
    ways: &[&Way],
    rows: &mut [Row],
    failures: &mut Vec<String>,
) -> Result<()> {
    for round in 1..=arguments.rounds {
        for (way, row) in ways.iter().zip(rows.iter_mut()) {
            let turn = format!("round {round} of {}: {}", arguments.rounds, way.name);
            println!("{turn}");
            let measured = take(way, Duration::from_secs(arguments.seconds))?;
            row.rounds.push(measured.sample);
            failures.extend(measured.failures.into_iter().map(|why| format!("{turn}, {why}")));
        }
    }
    Ok(())
}

/// One round of one way, in a lab of its own: connections that one way did not live to close would come upon the
/// next one's. That a way can't be started is a result like another.
fn take(way: &Way, limit: Duration) -> Result<Round> {
    let lab = Lab::start(Options::default())?;
    Ok(match (way.start)(&lab) {
        Ok(running) => Round::of(&lab, running.road, limit),
        Err(error) => Round { failures: vec![format!("start: {error:#}")], ..Round::default() },
    })
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
        assert_eq!(chosen(false, &["ssh -w", "tun2proxy"]), "ssh -w; ssh -R + tun2proxy");
        assert_eq!(chosen(true, &["no such"]), "");
    }

    #[test]
    fn what_all_are_compared_with_is_always_measured() {
        for rivals in [false, true] {
            assert!(chosen(rivals, &[]).contains(BASE));
        }
    }
}
