//! The programs under test: gh-net, and the sidecar as one static file that runs anywhere.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};

use crate::root;

/// Where the programs under test are.
#[derive(Debug, Clone)]
pub struct Binaries {
    /// gh-net, for the laptop.
    pub gh_net: PathBuf,
    /// gh-net-sidecar, static.
    pub sidecar: PathBuf,
}

impl Binaries {
    /// Takes the programs from where `GH_NET_TEST_BIN` and `GH_NET_TEST_SIDECAR` say, or builds them, once a process.
    ///
    /// # Errors
    /// They can't be built.
    pub fn get() -> Result<&'static Self> {
        static BUILT: OnceLock<Result<Binaries>> = OnceLock::new();
        let built = BUILT.get_or_init(|| {
            match (env::var_os("GH_NET_TEST_BIN"), env::var_os("GH_NET_TEST_SIDECAR")) {
                (Some(gh_net), Some(sidecar)) => Ok(Self { gh_net: gh_net.into(), sidecar: sidecar.into() }),
                _ => Self::build(),
            }
        });
        built.as_ref().map_err(|error| anyhow::anyhow!("{error:#}"))
    }

    /// Builds the programs.
    ///
    /// # Errors
    /// cargo is not there, or the code does not compile.
    pub fn build() -> Result<Self> {
        cargo("build --release --locked --package gh-net", &[("CARGO_TARGET_DIR", "target")])?;
        Ok(Self { gh_net: root().join("target/release/gh-net"), sidecar: Self::build_sidecar()? })
    }

    fn build_sidecar() -> Result<PathBuf> {
        const STATIC: &[(&str, &str)] =
            &[("RUSTFLAGS", "-C target-feature=+crt-static"), ("CARGO_TARGET_DIR", "target/static")];
        // Named, the target is another one than that of build scripts and macros, which can't be static.
        let arguments = format!("build --release --locked --package gh-net-sidecar --target {}", target());
        cargo(&arguments, STATIC)?;
        Ok(root().join("target/static").join(target()).join("release/gh-net-sidecar"))
    }

    /// Copies the programs into one directory, under the names by which gh-net finds the sidecar beside itself.
    ///
    /// # Errors
    /// The directory can't be made or written to.
    pub fn bundle(&self) -> Result<PathBuf> {
        let bundle = root().join("target/bundle");
        fs::create_dir_all(&bundle).with_context(|| format!("making {}", bundle.display()))?;
        let sidecar = format!("gh-net-sidecar-{}", env::consts::ARCH);
        for (from, name) in [(&self.gh_net, "gh-net"), (&self.sidecar, &*sidecar)] {
            fs::copy(from, bundle.join(name)).with_context(|| format!("copying {}", from.display()))?;
        }
        Ok(bundle)
    }
}

fn cargo(arguments: &str, environment: &[(&str, &str)]) -> Result<()> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(root()).args(arguments.split(' ')).envs(environment.iter().copied());
    let status = command.status().with_context(|| format!("starting cargo {arguments}"))?;
    ensure!(status.success(), "`cargo {arguments}` failed");
    Ok(())
}

fn target() -> String {
    format!("{}-unknown-linux-gnu", env::consts::ARCH)
}
