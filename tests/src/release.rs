//! What a release holds, by name. `cargo xtask dist` makes it, the release workflow publishes it, and gh, the dev
//! container Feature and people choose from it by these names alone.

/// The name by which gh knows the program for one of its architectures: its rule is how the name ends.
pub fn program(architecture: &str) -> String {
    format!("gh-net-linux-{architecture}")
}

/// The names of all assets of a release, sorted.
pub fn assets(version: &str) -> Vec<String> {
    let mut names = vec!["SHA256SUMS".to_owned()];
    for architecture in ["amd64", "arm64"] {
        names.push(program(architecture));
        names.push(format!("gh-net-{version}-linux-{architecture}.tar.gz"));
    }
    for machine in ["x86_64", "aarch64"] {
        names.push(format!("gh-net-sidecar-{machine}"));
        names.push(format!("gh-net-sidecar-{machine}.sha256"));
    }
    names.sort();
    names
}
