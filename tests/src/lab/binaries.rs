//! The programs under test: gh-net, and the sidecar as one static file that runs anywhere.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};

/// Where the programs under test are.
#[derive(Debug, Clone)]
pub struct Binaries {
    /// gh-net, for the laptop.
    pub gh_net: PathBuf,
    /// gh-net-sidecar, static.
    pub sidecar: PathBuf,
}

impl Binaries {
    /// Takes the programs from where `GH_NET_BIN` and `GH_NET_SIDECAR` say, or builds them, once a process.
    ///
    /// # Errors
    /// They can't be built.
    pub fn get() -> Result<&'static Self> {
        static BUILT: OnceLock<Result<Binaries>> = OnceLock::new();
        let built = BUILT.get_or_init(|| match (env::var_os("GH_NET_BIN"), env::var_os("GH_NET_SIDECAR")) {
            (Some(gh_net), Some(sidecar)) => Ok(Self { gh_net: gh_net.into(), sidecar: sidecar.into() }),
            _ => Self::build(),
        });
        built.as_ref().map_err(|error| anyhow::anyhow!("{error:#}"))
    }

    /// The cargo commands that build the programs, as (arguments, environment).
    fn commands() -> [(&'static str, &'static [(&'static str, &'static str)]); 2] {
        const STATIC: &[(&str, &str)] =
            &[("RUSTFLAGS", "-C target-feature=+crt-static"), ("CARGO_TARGET_DIR", "target/static")];
        [
            ("build --release --package gh-net", &[("CARGO_TARGET_DIR", "target")]),
            ("build --release --package gh-net-sidecar --target x86_64-unknown-linux-gnu", STATIC),
        ]
    }

    /// Builds the programs.
    ///
    /// # Errors
    /// cargo is not there, or the code does not compile.
    pub fn build() -> Result<Self> {
        for (arguments, environment) in Self::commands() {
            let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
            let mut command = Command::new(cargo);
            command.current_dir(root()).args(arguments.split(' ')).envs(environment.iter().copied());
            let status = command.status().with_context(|| format!("starting cargo {arguments}"))?;
            ensure!(status.success(), "`cargo {arguments}` failed");
        }
        Ok(Self {
            gh_net: root().join("target/release/gh-net"),
            sidecar: root().join("target/static/x86_64-unknown-linux-gnu/release/gh-net-sidecar"),
        })
    }
}

/// The workspace's directory.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace")
}
