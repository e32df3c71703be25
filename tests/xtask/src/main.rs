//! `cargo xtask`: the project's chores. Each works on a fresh Debian or Ubuntu machine that has only Rust.

#![allow(clippy::print_stdout, reason = "a tool of the command line that talks to a person")]

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use dist::{Again, Toolchain};
use gh_net_lab::Binaries;

mod bench;
mod check;
mod containers;
mod demo;
mod dist;
mod documents;
mod flake;
mod shell;
mod steps;
mod suite;
mod tools;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The chores of gh-net")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Builds gh-net and its static sidecar into target/bundle
    Build,
    /// Builds a lab of network namespaces, bridges it, and shows that the bridge works and leaves no trace
    Demo,
    /// Builds what a release holds into target/dist: static programs, archives, checksums
    Dist {
        /// Build everything a second time, elsewhere, and compare: it is to be the same bytes
        #[arg(long)]
        check: bool,
    },
    /// Checks a change: format, lints, docs, all tests with the development build, cargo-deny
    Test,
    /// Checks a release beside that: builds its programs, one of them twice, and tests them; the flake
    TestRelease,
    /// Runs the long tests: the simulation with many seeds, and test-containers
    TestLong,
    /// Tests the dev container Feature, the image and the compose example with a Docker engine of its own
    TestContainers,
    /// Evaluates, builds and runs what the Nix flake gives, with a stub in nixpkgs' place
    Nix,
    /// Measures the bridge beside a raw ssh pipe and, if asked, its rivals, in one run
    Bench(bench::Arguments),
    /// Writes the documents that are generated from the code
    Docs,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if !matches!(arguments.chore, Chore::Build | Chore::Docs | Chore::Dist { .. }) {
        tools::enter_user_namespace();
    }
    let done = match arguments.chore {
        Chore::Build => build(),
        Chore::Demo => demo::run(),
        Chore::Dist { check } => dist(if check { Again::Everything } else { Again::Nothing }),
        Chore::Test => check::run(),
        Chore::TestRelease => check::release(),
        Chore::TestLong => check::long(),
        Chore::TestContainers => containers::run(),
        Chore::Nix => flake::run(),
        Chore::Bench(arguments) => bench::run(&arguments),
        Chore::Docs => documents::write(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("\n✗ {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> anyhow::Result<()> {
    let bundle = Binaries::release()?.bundle()?;
    println!("\n✓ gh-net and its sidecar are in {}", bundle.display());
    Ok(())
}

fn dist(again: Again) -> anyhow::Result<()> {
    let dist = dist::run(&Toolchain::ready()?, again)?;
    println!("\n✓ what a release holds is in {}", dist.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
        let parsed =
            Arguments::try_parse_from(["xtask", "bench", "--rivals", "--seconds", "5", "--rounds", "2"]);
        assert!(matches!(parsed.map(|arguments| arguments.chore), Ok(Chore::Bench(_))));
        assert!(Arguments::try_parse_from(["xtask", "bench", "--seconds", "0"]).is_err());
    }
}
