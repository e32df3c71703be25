//! gh-net as packages install it finds the sidecar that came with it, and needs nothing else.
//!
//! The package is the one whose `bin/gh-net` the variable `GH_NET_TEST_PACKAGE` names; without it, one that is laid
//! out here from the programs under test.

use std::env;
use std::env::consts::ARCH;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use gh_net_tests::lab::{Binaries, LAPTOP_HOME, LAPTOP_USER, Lab, Options};

/// An ssh login, a copy of the sidecar, a handshake.
const READY: Duration = Duration::from_secs(40);

/// A package on the lab's laptop.
struct Package {
    /// Its gh-net.
    program: PathBuf,
    /// What is in its sidecar for this machine.
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

/// `program` bridges the codespace, and what runs over there is the package's sidecar.
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
        assert!(program == package.sidecar, "another sidecar runs over there than the package's");
    }
    Ok(())
}

#[test]
fn where_it_lies() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    let package = Package::on_laptop(&lab)?;
    bridges(&lab, &package.program, &package)
}

#[test]
fn by_a_link_as_profiles_have_it() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    let package = Package::on_laptop(&lab)?;
    let link = format!("{LAPTOP_HOME}/.local/bin/gh-net");
    let program = package.program.display();
    lab.laptop.shell(&format!("mkdir -p {LAPTOP_HOME}/.local/bin; ln -s {program} {link}"))?;
    bridges(&lab, Path::new(&link), &package)
}
