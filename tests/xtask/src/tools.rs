//! Installs the programs that tasks need, or names them if that is not possible.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, bail, ensure};
use gh_net_lab::{missing_lab_tools, missing_tools, obstacle, privileged};

use crate::shell::{self, PLAIN, root};

/// Set in a user namespace that this program created: it looks like root there, but is not.
const MARK: &str = "GH_NET_XTASK_IN_NAMESPACE";
const UNSHARE: [&str; 3] = ["--user", "--map-root-user", "--map-auto"];

/// Without root, restarts this program in a user namespace if that is allowed, which is enough for the lab. If it is not
/// allowed, this returns, and the tasks that need the lab report that.
pub(crate) fn enter_user_namespace() {
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(UNSHARE);
        command
    };
    let allowed = || {
        let mut trial = unshare();
        trial.arg("true").stderr(Stdio::null());
        trial.status().is_ok_and(|status| status.success())
    };
    if privileged() || !allowed() {
        return;
    }
    if let Ok(ourselves) = env::current_exe() {
        let error = unshare().arg(ourselves).args(env::args_os().skip(1)).env(MARK, "1").exec();
        println!("restarting in a user namespace failed: {error}");
    }
}

/// Installs what the lab is missing, and checks that it can run.
pub(crate) fn ensure_lab() -> Result<()> {
    install("the lab", missing_lab_tools)?;
    obstacle().map_or(Ok(()), |why| Err(anyhow!(why)))
}

/// Installs what the lab and the tests are missing.
pub(crate) fn install_missing() -> Result<()> {
    install("the tests", missing_tools)
}

/// Installs those of `programs` that are missing, given with their Debian packages.
pub(crate) fn ensure_programs(task: &str, programs: &[(&'static str, &'static str)]) -> Result<()> {
    let path = env::var_os("PATH").unwrap_or_default();
    let there = |program: &str| env::split_paths(&path).any(|folder| folder.join(program).exists());
    install(task, || programs.iter().copied().filter(|(program, _)| !there(program)).collect())
}

/// Whether this process is root, and not only in a user namespace that it created.
pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root() && env::var_os(MARK).is_none()
}

/// Installs with apt, as root, the programs that `missing` returns with their Debian packages, for `who`.
pub(crate) fn install(who: &str, missing: impl Fn() -> Vec<(&'static str, &'static str)>) -> Result<()> {
    let lacking = missing();
    if lacking.is_empty() {
        return Ok(());
    }
    let packages: BTreeSet<_> = lacking.iter().map(|(_, package)| *package).collect();
    let packages = packages.into_iter().collect::<Vec<_>>().join(" ");
    if !is_apt_ours() {
        let programs: Vec<_> = lacking.iter().map(|(program, _)| *program).collect();
        bail!(
            "{who} lacks {}; install them (Debian: apt-get install {packages}) or run this as root on Debian or Ubuntu",
            programs.join(", ")
        );
    }
    shell::run("apt-get update -q", PLAIN)?;
    apt_install(&packages)?;
    let left: Vec<_> = missing().into_iter().map(|(program, _)| program).collect();
    ensure!(left.is_empty(), "apt-get installed {packages}, but {} are still missing", left.join(", "));
    Ok(())
}

/// Whether we may install packages.
pub(crate) fn is_apt_ours() -> bool {
    is_root() && Path::new("/usr/bin/apt-get").exists()
}

/// Installs packages with apt.
pub(crate) fn apt_install(packages: &str) -> Result<()> {
    let quiet = [("DEBIAN_FRONTEND", "noninteractive")];
    shell::run(&format!("apt-get install -q -y --no-install-recommends {packages}"), &quiet)
}

/// Installs the packages of a pip list with hashes into a folder, for a task.
pub(crate) fn pip_install(task: &str, list: &str, folder: &Path) -> Result<()> {
    // The pip of any Python is sufficient; the first one in PATH may not be Debian's.
    let pip = Command::new("pip3").arg("--version").output();
    if !pip.is_ok_and(|output| output.status.success()) {
        ensure_programs(task, &[("pip3", "python3-pip")])?;
    }
    let flags = "--quiet --only-binary :all: --require-hashes --no-deps";
    let quiet = [("PIP_ROOT_USER_ACTION", "ignore")];
    shell::run(&format!("pip3 install {flags} --target {} -r {list}", folder.display()), &quiet)
}

/// A folder of target/tools, filled if it does not exist yet. It is renamed into place when it is complete.
pub(crate) fn unpacked(name: &str, fill: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let folder = root().join("target/tools").join(name);
    if !folder.exists() {
        let new = folder.with_added_extension("new");
        if new.exists() {
            fs::remove_dir_all(&new)?;
        }
        fs::create_dir_all(&new).with_context(|| format!("making {}", new.display()))?;
        fill(&new)?;
        fs::rename(&new, &folder)?;
    }
    Ok(folder)
}
