//! What the figures depend on: the machine, its kernel, and the versions of the programs.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};
use nix::sys::utsname::uname;

/// The machine and the programs that every comparison involves.
pub(super) fn describe() -> Result<String> {
    let info = fs::read_to_string("/proc/cpuinfo").context("reading /proc/cpuinfo")?;
    let kernel = uname()?;
    // ssh prints its version to stderr.
    let ssh = Command::new("ssh").arg("-V").output().context("starting ssh")?.stderr;
    let ssh = String::from_utf8_lossy(&ssh);
    Ok(format!(
        "{}, {} cores; Linux {}; {}; gh-net {}",
        cpu_model(&info),
        std::thread::available_parallelism()?,
        kernel.release().to_string_lossy(),
        ssh.split(',').next().unwrap_or_default().trim(),
        env!("CARGO_PKG_VERSION"),
    ))
}

/// The machine's load. On a machine that is busy with something else, the figures are worth little.
pub(super) fn load() -> Result<String> {
    let load = fs::read_to_string("/proc/loadavg").context("reading /proc/loadavg")?;
    Ok(format!("load average: {}", load.split(' ').take(3).collect::<Vec<_>>().join(" ")))
}

/// The CPU's model. Not every architecture names one.
fn cpu_model(info: &str) -> &str {
    let field = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    field.map_or(std::env::consts::ARCH, |(_, model)| model.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_is_named_if_the_kernel_names_it() {
        assert_eq!(cpu_model("processor\t: 0\nmodel name\t: AMD EPYC\nflags\t: a"), "AMD EPYC");
        assert_eq!(cpu_model("processor\t: 0\nBogoMIPS\t: 50"), std::env::consts::ARCH);
    }
}
