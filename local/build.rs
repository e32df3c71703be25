//! Embeds sidecars in gh-net: the files `gh-net-sidecar-<architecture>` in the directory that `GH_NET_EMBED_SIDECARS`
//! names at build time. Without the variable none is embedded, and gh-net copies sidecars from files only.

#![allow(clippy::print_stdout, reason = "how a build script talks to cargo")]

use std::path::Path;
use std::{env, fs};

const VARIABLE: &str = "GH_NET_EMBED_SIDECARS";
const ARCHITECTURES: [&str; 2] = ["x86_64", "aarch64"];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed={VARIABLE}");
    let entries: String = match env::var_os(VARIABLE).filter(|directory| !directory.is_empty()) {
        Some(directory) => ARCHITECTURES.map(|name| entry(Path::new(&directory), name)).concat(),
        None => String::new(),
    };
    let out = env::var_os("OUT_DIR").expect("cargo sets OUT_DIR");
    let code = format!("const EMBEDDED: &[(&str, &[u8])] = &[{entries}];\n");
    fs::write(Path::new(&out).join("embedded.rs"), code).expect("OUT_DIR can be written to");
}

/// One element of the list.
fn entry(directory: &Path, architecture: &str) -> String {
    let file = directory.join(format!("gh-net-sidecar-{architecture}"));
    let file = file.canonicalize().unwrap_or_else(|error| panic!("{VARIABLE}: {}: {error}", file.display()));
    println!("cargo:rerun-if-changed={}", file.display());
    format!("({architecture:?}, include_bytes!({file:?})),")
}
