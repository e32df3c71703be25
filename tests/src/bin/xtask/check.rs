//! `cargo xtask test`: everything CI runs, each command shown.

use anyhow::Result;
use gh_net_tests::lab::Binaries;

use crate::shell::{self, PLAIN, root};
use crate::{flake, tools};

const CARGO_DENY: &str = "0.20.2";

pub(crate) fn run() -> Result<()> {
    // Without root the end-to-end tests say that they are skipped; the rest is run all the same.
    if let Err(why) = tools::install_missing() {
        println!("{why:#}");
    }
    shell::run("cargo fmt --all --check", PLAIN)?;
    shell::run("cargo clippy --workspace --all-targets --locked -- -D warnings", PLAIN)?;
    shell::run(
        "cargo doc --workspace --no-deps --document-private-items --locked",
        &[("RUSTDOCFLAGS", "-D warnings")],
    )?;
    let binaries = Binaries::build()?;
    let places = [("GH_NET_TEST_BIN", &binaries.gh_net), ("GH_NET_TEST_SIDECAR", &binaries.sidecar)];
    shell::run("cargo test --workspace --locked --no-fail-fast", &places)?;
    nix()?;
    deny()?;
    println!("\n✓ all passed");
    Ok(())
}

/// The flake, or on a laptop without Nix a word that it was not looked at.
fn nix() -> Result<()> {
    match flake::ensure_tools() {
        Err(why) if std::env::var_os("CI").is_none_or(|ci| ci != "true") => {
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
