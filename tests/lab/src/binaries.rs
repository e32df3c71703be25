//! The programs under test: gh-net and the sidecar.
//!
//! The demo and the tests run the development build: its profile, features and target directory are those of
//! `cargo test`, so nothing is compiled twice. It runs on this machine only. The release build is for users and
//! benchmarks; its sidecar is one static file that runs on any Linux of this architecture.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};

use crate::root;

/// The packages that are selected in a development build. Cargo unifies the features of all selected packages, so with
/// gh-net-tests selected, dependencies have the same features as in `cargo test`.
pub const DEVELOPMENT: &str = "--locked --package gh-net --package gh-net-sidecar --package gh-net-tests";

static CHOSEN: OnceLock<Result<Binaries>> = OnceLock::new();

/// Where the programs under test are.
#[derive(Debug, Clone)]
pub struct Binaries {
    /// gh-net, for the laptop.
    pub gh_net: PathBuf,
    /// gh-net-sidecar, for the codespace.
    pub sidecar: PathBuf,
}

impl Binaries {
    /// The programs that labs run: those given to [`Self::choose`]; else [`Self::named`]; else the development build, made once per process.
    ///
    /// # Errors
    /// They can't be built.
    pub fn get() -> Result<&'static Self> {
        let chosen = CHOSEN.get_or_init(|| Self::named().map_or_else(Self::development, Ok));
        chosen.as_ref().map_err(|error| anyhow::anyhow!("{error:#}"))
    }

    /// Those that `GH_NET_TEST_BIN` and `GH_NET_TEST_SIDECAR` name.
    pub fn named() -> Option<Self> {
        let path = |name| env::var_os(name).map(PathBuf::from);
        Some(Self { gh_net: path("GH_NET_TEST_BIN")?, sidecar: path("GH_NET_TEST_SIDECAR")? })
    }

    /// Selects the programs that the labs of this process run. Only the first call has an effect.
    pub fn choose(self) {
        let _ = CHOSEN.set(Ok(self));
    }

    /// Builds the programs as `cargo test` would.
    ///
    /// # Errors
    /// cargo is missing, or the code does not compile.
    pub fn development() -> Result<Self> {
        cargo(
            &format!("build {DEVELOPMENT} --bin gh-net --bin gh-net-sidecar"),
            &[("CARGO_TARGET_DIR", "target")],
        )?;
        let folder = root().join("target/debug");
        Ok(Self { gh_net: folder.join("gh-net"), sidecar: folder.join("gh-net-sidecar") })
    }

    /// Builds the programs optimized and static, with one command, so that common dependencies are compiled once.
    ///
    /// # Errors
    /// cargo is missing, or the code does not compile.
    pub fn release() -> Result<Self> {
        const STATIC: &[(&str, &str)] =
            &[("RUSTFLAGS", "-C target-feature=+crt-static"), ("CARGO_TARGET_DIR", "target/static")];
        let target = format!("{}-unknown-linux-gnu", env::consts::ARCH);
        // With an explicit target, the flags don't apply to build scripts and macros, which can't be static.
        cargo(
            &format!("build --release --locked --package gh-net --package gh-net-sidecar --target {target}"),
            STATIC,
        )?;
        let folder = root().join("target/static").join(target).join("release");
        Ok(Self { gh_net: folder.join("gh-net"), sidecar: folder.join("gh-net-sidecar") })
    }

    /// The variables by which tests find these programs.
    pub fn variables(&self) -> [(&'static str, &OsStr); 2] {
        [("GH_NET_TEST_BIN", self.gh_net.as_os_str()), ("GH_NET_TEST_SIDECAR", self.sidecar.as_os_str())]
    }

    /// Copies the programs into one directory, under the names by which gh-net finds the sidecar in its own directory.
    ///
    /// # Errors
    /// The directory can't be created or written to.
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
