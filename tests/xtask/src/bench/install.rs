//! The rivals' programs, in the versions that are compared: below target/tools, for as long as that is kept.

use std::path::PathBuf;

use anyhow::{Result, ensure};

use crate::shell::{self, PLAIN, root};
use crate::tools;

pub(super) const SSHUTTLE: &str = "2.0.0";
pub(super) const TUN2PROXY: &str = "0.8.7";

/// Sees to it that all of them are there.
pub(super) fn ensure_all() -> Result<()> {
    tools::ensure_programs(
        "the comparison",
        &[("proxychains4", "proxychains4"), ("python3", "python3"), ("pip3", "python3-pip")],
    )?;
    sshuttle()?;
    tun2proxy().map(drop)
}

/// sshuttle as a tar of Python's modules: it reads its own source files, so they can't stay packed.
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
