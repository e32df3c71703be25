//! The dev container Feature without a Docker engine: its manifest, its scripts, and install.sh in a temporary directory,
//! with each shell that may run it. `cargo xtask test-containers` runs the other tests.

#![allow(
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a failed unwrap is a failed test, in helpers too"
)]

mod install;
mod manifest;

use std::path::{Path, PathBuf};
use std::process::Command;

use gh_net_tests::lab::skip_without;
use gh_net_tests::root;

fn feature(file: &str) -> PathBuf {
    root().join("devcontainer-feature/src/gh-net").join(file)
}

fn read(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn scripts_pass_shellcheck() {
    if skip_without(&["shellcheck"]) {
        return;
    }
    let tests = std::fs::read_dir(root().join("devcontainer-feature/test/gh-net")).unwrap();
    let tests =
        tests.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|e| e == "sh"));
    let scripts: Vec<(&str, PathBuf)> =
        std::iter::once(("sh", feature("install.sh"))).chain(tests.map(|path| ("bash", path))).collect();
    assert!(scripts.len() > 1);
    for (shell, script) in scripts {
        let output = Command::new("shellcheck").args(["--shell", shell]).arg(script).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
}
