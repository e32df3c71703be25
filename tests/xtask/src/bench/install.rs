//! Installs the rivals' programs below target/tools, in the versions that are compared.

use std::path::PathBuf;

use anyhow::{Result, ensure};

use crate::shell::{self, PLAIN, root};
use crate::tools;

pub(super) const SSHUTTLE: &str = "2.0.0";
pub(super) const TUN2PROXY: &str = "0.8.7";

/// Installs those that are missing.
pub(super) fn ensure_all() -> Result<()> {
    tools::ensure_programs(
        "the comparison",
        &[("proxychains4", "proxychains4"), ("python3", "python3"), ("pip3", "python3-pip")],
    )?;
    sshuttle()?;
    tun2proxy().map(drop)
}

/// sshuttle as a tar archive of Python modules. It has to be unpacked for use, because sshuttle reads its own sources.
pub(super) fn sshuttle() -> Result<PathBuf> {
    let folder = root().join(format!("target/tools/sshuttle-{SSHUTTLE}"));
    let packed = folder.join("sshuttle.tar");
    if !packed.exists() {
        let (folder, packed) = (folder.display(), packed.display());
        shell::run(
            &format!("pip3 install --quiet --no-compile --target {folder} sshuttle=={SSHUTTLE}"),
            PLAIN,
        )?;
        shell::run(&format!("tar -cf {packed} -C {folder} sshuttle"), PLAIN)?;
    }
    Ok(packed)
}

pub(super) fn tun2proxy() -> Result<PathBuf> {
    let folder = root().join(format!("target/tools/tun2proxy-{TUN2PROXY}"));
    let program = folder.join("bin/tun2proxy-bin");
    if !program.exists() {
        let folder = folder.display();
        shell::run(&format!("cargo install --quiet --locked --root {folder} tun2proxy@{TUN2PROXY}"), PLAIN)?;
    }
    ensure!(program.exists(), "cargo installed tun2proxy, but not as {}", program.display());
    Ok(program)
}
