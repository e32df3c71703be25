//! The names of a release's assets. `cargo xtask dist` builds the assets, the release workflow publishes them, and gh, the
//! dev container Feature and users find them by name.

/// The program for one of gh's architectures. gh selects it by the end of the name.
pub fn program(architecture: &str) -> String {
    format!("gh-net-linux-{architecture}")
}

/// The name of the archive for an architecture, without its extension; also the name of the folder in it.
pub fn archive(version: &str, architecture: &str) -> String {
    format!("gh-net-{version}-linux-{architecture}")
}

/// The name of the sidecar for a machine type of `uname -m`.
pub fn sidecar(machine: &str) -> String {
    format!("gh-net-sidecar-{machine}")
}

/// The names of all assets of a release, sorted.
pub fn assets(version: &str) -> Vec<String> {
    let mut names = vec!["SHA256SUMS".to_owned()];
    for architecture in ["amd64", "arm64"] {
        names.push(program(architecture));
        names.push(archive(version, architecture) + ".tar.gz");
    }
    for machine in ["x86_64", "aarch64"] {
        names.push(sidecar(machine));
    }
    names.sort();
    names
}
