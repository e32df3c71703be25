//! `cargo xtask`: the project's tasks. Each works on a fresh Debian or Ubuntu machine that has only Rust.

#![allow(clippy::print_stdout, reason = "a command line tool")]

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use dist::{Again, Toolchain};
use gh_net_lab::Binaries;

mod bench;
mod check;
mod containers;
mod demo;
mod dist;
mod distance;
mod documents;
mod flake;
mod shell;
mod soak;
mod steps;
mod suite;
mod sys;
mod tools;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The tasks of gh-net's developers")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Builds gh-net and its static sidecar into target/bundle
    Build,
    /// Builds a lab of network namespaces, bridges it, and shows that the bridge works and leaves no trace
    Demo(demo::Arguments),
    /// Builds a release's files into target/dist: static programs, archives, checksums
    Dist {
        /// Build everything a second time, at other paths, and check that the files are the same
        #[arg(long)]
        check: bool,
    },
    /// Checks a change: format, lints, docs, all tests with the development build, cargo-deny
    Test,
    /// Checks a release: builds its programs, one of them twice, and tests them; checks the flake
    TestRelease,
    /// Runs the long tests: the simulation with many seeds, long cuts, all floods, a soak, and test-containers
    TestLong,
    /// Uses a bridge for some minutes while its link is cut again and again, and checks that nothing grows
    Soak(soak::Arguments),
    /// Tests the dev container Feature, the image and the compose example with a Docker engine of its own
    TestContainers,
    /// Evaluates, builds and runs the outputs of the Nix flake, with a stub in place of nixpkgs
    Nix,
    /// Compares the bridge with a raw ssh pipe and, with --rivals, with other tunnels
    Bench(bench::Arguments),
    /// Writes the documents that are generated from the code
    Docs,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if !matches!(arguments.task, Task::Build | Task::Docs | Task::Dist { .. }) {
        tools::enter_user_namespace();
    }
    let done = match arguments.task {
        Task::Build => build(),
        Task::Demo(arguments) => demo::run(&arguments),
        Task::Dist { check } => dist(if check { Again::Everything } else { Again::Nothing }),
        Task::Test => check::run(),
        Task::TestRelease => check::release(),
        Task::TestLong => check::long(),
        Task::Soak(arguments) => soak::run(&arguments),
        Task::TestContainers => containers::run(),
        Task::Nix => flake::run(),
        Task::Bench(arguments) => bench::run(&arguments),
        Task::Docs => documents::write(),
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
    println!("\n✓ the release's files are in {}", dist.display());
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
        assert!(matches!(parsed.map(|arguments| arguments.task), Ok(Task::Bench(_))));
        assert!(Arguments::try_parse_from(["xtask", "bench", "--seconds", "0"]).is_err());
    }
}
