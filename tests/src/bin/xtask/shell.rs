//! Commands that are shown before they run.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

/// The workspace's directory.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace")
}

/// Runs a command in the workspace's directory, with its output where ours goes.
pub(crate) fn run<V: AsRef<OsStr>>(line: &str, environment: &[(&str, V)]) -> Result<()> {
    let shown: Vec<_> =
        environment.iter().map(|(name, value)| format!("{name}='{}' ", value.as_ref().display())).collect();
    println!("\n$ {}{line}", shown.concat());
    let started = Instant::now();
    let mut words = line.split_whitespace();
    let mut program = words.next().unwrap_or_default().to_owned();
    if program == "cargo" {
        program = std::env::var("CARGO").unwrap_or(program);
    }
    let mut command = Command::new(program);
    command.args(words).current_dir(root()).envs(environment.iter().map(|(name, value)| (name, value)));
    let status = command.status().with_context(|| format!("starting `{line}`"))?;
    println!("({:.0} s)", started.elapsed().as_secs_f64());
    ensure!(status.success(), "`{line}` failed");
    Ok(())
}

/// No environment of its own.
pub(crate) const PLAIN: &[(&str, &str)] = &[];
