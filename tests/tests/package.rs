//! gh-net as installed by a package finds the package's sidecar, and needs nothing else.
//!
//! The variable `GH_NET_TEST_PACKAGE` names the package's `bin/gh-net`. Without it, the tests lay out a package from the
//! programs under test.

use std::env;
use std::env::consts::ARCH;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use gh_net_tests::lab::{Binaries, LAPTOP_HOME, LAPTOP_USER, Lab, Options};

/// Time limit for an ssh login, a copy of the sidecar and a handshake.
const READY: Duration = Duration::from_secs(40);

/// A package on the lab's laptop.
struct Package {
    /// Its gh-net.
    program: PathBuf,
    /// The content of its sidecar for this machine.
    sidecar: Vec<u8>,
}

impl Package {
    fn on_laptop(lab: &Lab) -> Result<Self> {
        if let Some(program) = env::var_os("GH_NET_TEST_PACKAGE").map(PathBuf::from) {
            let prefix = program.parent().and_then(Path::parent).context("the package's bin/gh-net")?;
            let sidecar = prefix.join(format!("libexec/gh-net/gh-net-sidecar-{ARCH}"));
            let sidecar = fs::read(&sidecar).with_context(|| format!("reading {}", sidecar.display()))?;
            return Ok(Self { program, sidecar });
        }
        let binaries = Binaries::get()?;
        let prefix = "/run/lab/package";
        lab.laptop.install(&binaries.gh_net, &format!("{prefix}/bin/gh-net"))?;
        let sidecar = format!("{prefix}/libexec/gh-net/gh-net-sidecar-{ARCH}");
        lab.laptop.install(&binaries.sidecar, &sidecar)?;
        Ok(Self { program: format!("{prefix}/bin/gh-net").into(), sidecar: fs::read(&binaries.sidecar)? })
    }
}

/// Checks that `program` bridges the codespace with the package's sidecar.
fn bridges(lab: &Lab, program: &Path, package: &Package) -> Result<()> {
    let mut command = lab.laptop.command_as(LAPTOP_USER, 1000, program);
    command.args(["--ssh", "codespace", "--gui", "false"]);
    let gh_net = lab.laptop.start(command)?;
    gh_net.wait_for("ready", READY)?;
    assert_eq!(lab.codespace.shell("curl -sS http://www.corp.internal/")?, "hello from corp");
    let running = lab.sidecars()?;
    assert!(!running.is_empty(), "no sidecar runs in the codespace");
    for pid in running {
        let program = fs::read(format!("/proc/{pid}/exe"))?;
        assert!(program == package.sidecar, "the sidecar in the codespace is not the package's");
    }
    Ok(())
}

#[test]
fn the_installed_program_finds_its_sidecar() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    let package = Package::on_laptop(&lab)?;
    bridges(&lab, &package.program, &package)
}

#[test]
fn a_symlink_to_the_program_finds_the_sidecar() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    let package = Package::on_laptop(&lab)?;
    let link = format!("{LAPTOP_HOME}/.local/bin/gh-net");
    let program = package.program.display();
    lab.laptop.shell(&format!("mkdir -p {LAPTOP_HOME}/.local/bin; ln -s {program} {link}"))?;
    bridges(&lab, Path::new(&link), &package)
}
