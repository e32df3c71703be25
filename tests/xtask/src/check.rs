//! `cargo xtask test`: everything CI runs, each command shown.

use std::env::consts::ARCH;

use anyhow::Result;
use gh_net_lab::Binaries;
use gh_net_lab::{in_ci, release};

use crate::dist::{self, Again, Toolchain};
use crate::shell::{self, PLAIN, root};
use crate::{flake, tools};

/// What the tests of a release look at it with.
const DIST_TOOLS: [(&str, &str); 4] = [
    ("qemu-aarch64-static", "qemu-user-static"),
    ("readelf", "binutils"),
    ("groff", "groff-base"),
    ("getent", "libc-bin"),
];

const CARGO_DENY: &str = "0.20.2";

pub(crate) fn run() -> Result<()> {
    // Without root the end-to-end tests say that they are skipped; the rest is run all the same.
    for installed in [tools::install_missing(), tools::ensure_programs("looking at a release", &DIST_TOOLS)] {
        if let Err(why) = installed {
            println!("{why:#}");
        }
    }
    shell::run("cargo fmt --all --check", PLAIN)?;
    shell::run("cargo clippy --workspace --all-targets --locked -- -D warnings", PLAIN)?;
    shell::run(
        "cargo doc --workspace --no-deps --document-private-items --locked",
        &[("RUSTDOCFLAGS", "-D warnings")],
    )?;
    // The tests run the programs that are released. Those that link with glibc are in the flake's test.
    let places = match Toolchain::ready() {
        Ok(toolchain) => {
            let dist = dist::run(&toolchain, Again::Sidecar)?;
            let (gh_net, sidecar) = (dist.join(dist::gh_net(ARCH)), dist.join(release::sidecar(ARCH)));
            vec![("GH_NET_TEST_BIN", gh_net), ("GH_NET_TEST_SIDECAR", sidecar), ("GH_NET_TEST_DIST", dist)]
        }
        Err(why) if in_ci() => return Err(why),
        Err(why) => {
            println!("what a release holds is not built: {why:#}");
            let binaries = Binaries::development()?;
            vec![("GH_NET_TEST_BIN", binaries.gh_net), ("GH_NET_TEST_SIDECAR", binaries.sidecar)]
        }
    };
    shell::run("cargo test --workspace --locked --no-fail-fast", &places)?;
    nix()?;
    deny()?;
    println!("\nnot run here: `cargo xtask test-containers`, which takes a Docker engine");
    println!("✓ all passed");
    Ok(())
}

/// The flake, or on a laptop without Nix a word that it was not looked at.
fn nix() -> Result<()> {
    match flake::ensure_tools() {
        Err(why) if !in_ci() => {
            println!("\nSKIPPED: the flake: {why:#}");
            Ok(())
        }
        tools => tools.and_then(|()| flake::run()),
    }
}

/// Licences, sources and doubled crates. Advisories need a database from the network and are left to the forge.
fn deny() -> Result<()> {
    let tools = root().join("target/tools");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let installed = std::env::split_paths(&path).any(|folder| folder.join("cargo-deny").exists());
    let ours = tools.join("bin/cargo-deny");
    if !installed && !ours.exists() {
        let root = tools.display();
        shell::run(
            &format!("cargo install --quiet --debug --locked --root {root} cargo-deny@{CARGO_DENY}"),
            PLAIN,
        )?;
    }
    let program = if installed { "cargo-deny".to_owned() } else { ours.display().to_string() };
    shell::run(&format!("{program} --locked check bans licenses sources"), PLAIN)
}
