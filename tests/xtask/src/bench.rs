//! `cargo xtask bench`: compares gh-net with the raw ssh pipe that it runs over and, with `--rivals`, with other tunnels
//! for the same purpose, in one run, on one machine, each in a lab of its own. `--far`: over distant lines ([`far`]);
//! `--floods`: what other programs notice of floods ([`floods`]).
//!
//! A machine's speed varies from minute to minute. So the tunnels are measured in turn, for several rounds, which
//! exposes all of them to the same variation. The tables are Markdown, ready for docs/comparison.md.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::{ArgGroup, Args};
use gh_net_lab::{Binaries, Lab, Options};

use crate::tools;

mod far;
mod figures;
mod floods;
mod install;
mod machine;
mod measures;
mod network;
mod pipe;
mod table;
mod tunnels;

use install::{SSHUTTLE, TUN2PROXY};
use measures::Round;
use table::Row;
use tunnels::{BASE, TUNNELS, Tunnel};

#[derive(Args)]
#[group(skip)]
#[command(group = ArgGroup::new("instead").args(["far", "floods"]))]
pub(crate) struct Arguments {
    /// Also measures gh-net's rivals: ssh -w, ssh -R, tun2proxy and sshuttle; installs what is missing
    #[arg(long)]
    rivals: bool,
    /// Measures gh-net over distant lines instead, beside the raw ssh pipe and bare TCP
    #[arg(long, conflicts_with = "rivals")]
    far: bool,
    /// Measures what other programs notice of floods instead, and the memory that these take
    #[arg(long, conflicts_with_all = ["rivals", "far", "seconds"])]
    floods: bool,
    /// Only this distant line: dsl, lte, office, ocean, hotel, or RATE,ROUND-TRIP as for the demo (repeatable)
    #[arg(long, value_name = "LINE", requires = "far")]
    link: Vec<String>,
    /// Also writes the figures of --far or --floods to this file
    #[arg(long, value_name = "FILE", requires = "instead")]
    json: Option<PathBuf>,
    /// Seconds for each figure of each round [default: 2, far 5]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: Option<u64>,
    /// How often each tunnel is measured
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Only what has a name that contains this (repeatable)
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let Arguments { link: links, only, rounds, seconds, json, .. } = arguments;
    if arguments.far {
        ready()?;
        far::Plan { links, only, rounds: *rounds, seconds: seconds.unwrap_or(5), json: json.as_deref() }.run()
    } else if arguments.floods {
        ready()?;
        floods::Plan { only, rounds: *rounds, json: json.as_deref() }.run()
    } else {
        near(arguments)
    }
}

/// Installs what the lab needs, and chooses the programs to measure.
fn ready() -> Result<()> {
    tools::ensure_lab()?;
    choose_programs()
}

/// The programs that variables name, so that builds can be compared; otherwise a release of these sources.
fn choose_programs() -> Result<()> {
    let programs = match Binaries::named() {
        Some(named) => named,
        None => {
            println!("Building gh-net and its sidecar …");
            Binaries::release()?
        }
    };
    programs.choose();
    Ok(())
}

fn near(arguments: &Arguments) -> Result<()> {
    let tunnels = arguments.tunnels();
    ensure!(!tunnels.is_empty(), "no tunnel has such a name; the names are: {}", names(&TUNNELS.each_ref()));
    tools::ensure_lab()?;
    if tunnels.iter().any(|tunnel| tunnel.rival) {
        install::ensure_all()?;
    }
    choose_programs()?;
    let header = format!(
        "{}, sshuttle {SSHUTTLE}, tun2proxy {TUN2PROXY}. {} rounds of {} s per figure, the tunnels in turn: median \
         (least–most).",
        machine::describe()?,
        arguments.rounds,
        arguments.limit().as_secs()
    );
    println!("{header}\n{}", machine::load()?);

    let mut rows: Vec<_> =
        tunnels.iter().map(|tunnel| Row { name: tunnel.name, rounds: Vec::new() }).collect();
    let mut failures = Vec::new();
    let ended = take_turns(arguments, &tunnels, &mut rows, &mut failures);
    println!("{}", machine::load()?);
    // Also after an early end, because the measurements until then took long.
    report(&header, &tunnels, &rows);
    ended?;
    ensure!(failures.is_empty(), "not everything could be measured:\n{}", failures.join("\n"));
    Ok(())
}

fn take_turns(
    arguments: &Arguments,
    tunnels: &[&Tunnel],
    rows: &mut [Row],
    failures: &mut Vec<String>,
) -> Result<()> {
    for round in 1..=arguments.rounds {
        for (tunnel, row) in tunnels.iter().zip(rows.iter_mut()) {
            let turn = format!("round {round} of {}: {}", arguments.rounds, tunnel.name);
            println!("{turn}");
            let measured = measure(tunnel, arguments.limit())?;
            row.rounds.push(measured.sample);
            failures.extend(measured.failures.into_iter().map(|why| format!("{turn}, {why}")));
        }
    }
    Ok(())
}

/// One round of one tunnel, in a lab of its own: connections that a tunnel leaves open at its end would disturb the next
/// one. If a tunnel can't be started, that is recorded as a failure, and the other tunnels are still measured.
fn measure(tunnel: &Tunnel, limit: Duration) -> Result<Round> {
    let lab = Lab::start(Options::default())?;
    Ok(match (tunnel.start)(&lab) {
        Ok(running) => Round::of(&lab, running.carrier, limit),
        Err(error) => Round { failures: vec![format!("start: {error:#}")], ..Round::default() },
    })
}

fn report(header: &str, tunnels: &[&Tunnel], rows: &[Row]) {
    println!("\n{header}\n\n{}", table::figures(rows));
    println!("Rates in Gbit/s, echoes in µs; *loaded* is the echo while a bulk download runs.");
    let ratios = table::ratios(rows, BASE);
    if !ratios.is_empty() {
        println!("\nAs multiples of the {BASE} of the same round:\n\n{ratios}");
    }
    println!("\nThe tunnels:\n");
    for tunnel in tunnels {
        println!("- {}: {}", tunnel.name, tunnel.note);
    }
}

impl Arguments {
    fn limit(&self) -> Duration {
        Duration::from_secs(self.seconds.unwrap_or(2))
    }

    fn tunnels(&self) -> Vec<&'static Tunnel> {
        let wanted = |tunnel: &&Tunnel| match self.only.as_slice() {
            [] => self.rivals || !tunnel.rival,
            names => names.iter().any(|name| tunnel.name.contains(name.as_str())),
        };
        TUNNELS.iter().filter(wanted).collect()
    }
}

fn names(tunnels: &[&Tunnel]) -> String {
    tunnels.iter().map(|tunnel| tunnel.name).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(rivals: bool, only: &[&str]) -> String {
        let only = only.iter().map(|name| (*name).to_owned()).collect();
        let arguments = Arguments {
            rivals,
            far: false,
            floods: false,
            link: vec![],
            json: None,
            seconds: None,
            rounds: 1,
            only,
        };
        names(&arguments.tunnels())
    }

    #[test]
    fn rivals_are_measured_on_request() {
        assert_eq!(chosen(false, &[]), "the laptop itself; raw ssh pipe; raw ssh pipe, aes128-gcm; gh-net");
        assert!(chosen(true, &[]).contains("sshuttle"));
        assert_eq!(chosen(false, &["ssh -w", "tun2proxy"]), "ssh -w; ssh -R + tun2proxy");
        assert_eq!(chosen(true, &["no such"]), "");
    }

    #[test]
    fn the_baseline_is_always_measured() {
        for rivals in [false, true] {
            assert!(chosen(rivals, &[]).contains(BASE));
        }
    }
}
