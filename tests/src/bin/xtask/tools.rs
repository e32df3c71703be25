//! The programs the lab needs: installed where that is possible, named where it is not.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Result, bail, ensure};
use gh_net_tests::lab::{explain_missing_privilege, missing_tools, privileged};

use crate::shell::{self, PLAIN};

/// Sees to it that the lab can run.
pub(crate) fn ensure_lab() -> Result<()> {
    install_missing()?;
    ensure!(privileged(), "{}", explain_missing_privilege());
    Ok(())
}

/// Installs what is missing with apt, as root.
pub(crate) fn install_missing() -> Result<()> {
    let missing = missing_tools();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: BTreeSet<_> = missing.iter().map(|(_, package)| *package).collect();
    let packages = packages.into_iter().collect::<Vec<_>>().join(" ");
    let apt = Path::new("/usr/bin/apt-get").exists();
    if !(apt && nix::unistd::geteuid().is_root()) {
        let programs: Vec<_> = missing.iter().map(|(program, _)| *program).collect();
        bail!(
            "the lab lacks {}; install them (Debian: apt-get install {packages}) or run this as root on Debian or Ubuntu",
            programs.join(", ")
        );
    }
    let quiet = [("DEBIAN_FRONTEND", "noninteractive")];
    shell::run("apt-get update -q", PLAIN)?;
    shell::run(&format!("apt-get install -q -y --no-install-recommends {packages}"), &quiet)?;
    let left: Vec<_> = missing_tools().into_iter().map(|(program, _)| program).collect();
    ensure!(left.is_empty(), "apt-get installed {packages}, but {} are still missing", left.join(", "));
    Ok(())
}
