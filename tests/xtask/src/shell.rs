//! Runs commands, each shown first.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

pub(crate) use gh_net_lab::root;

/// Runs a command in the workspace's directory. It inherits stdout and stderr.
pub(crate) fn run<V: AsRef<OsStr>>(line: &str, environment: &[(&str, V)]) -> Result<()> {
    run_in(root(), line, environment)
}

/// Runs a command in a directory. It inherits stdout and stderr.
pub(crate) fn run_in<V: AsRef<OsStr>>(directory: &Path, line: &str, environment: &[(&str, V)]) -> Result<()> {
    let mut words = line.split_whitespace();
    let mut command = match words.next().unwrap_or_default() {
        "cargo" => cargo(),
        program => Command::new(program),
    };
    command.args(words).current_dir(directory).envs(environment.iter().map(|(name, value)| (name, value)));
    run_command(&mut command)
}

/// The cargo that started us, in the workspace's directory.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Runs a prepared command. It inherits stdout and stderr.
pub(crate) fn run_command(command: &mut Command) -> Result<()> {
    let line = announce(command);
    let started = Instant::now();
    let status = command.status().with_context(|| format!("starting `{line}`"))?;
    println!("({:.0} s)", started.elapsed().as_secs_f64());
    ensure!(status.success(), "`{line}` failed");
    Ok(())
}

/// Prints a command that is about to run, with the variables set for it; returns the command line.
pub(crate) fn announce(command: &Command) -> String {
    let name = |word: &OsStr| word.display().to_string();
    let words: Vec<_> = std::iter::once(command.get_program()).chain(command.get_args()).map(name).collect();
    let line = words.join(" ");
    let set = command.get_envs().filter_map(|(name, value)| Some((name, value?)));
    let shown: Vec<_> =
        set.map(|(name, value)| format!("{}='{}' ", name.display(), value.display())).collect();
    println!("\n$ {}{line}", shown.concat());
    line
}

/// No additional environment variables.
pub(crate) const PLAIN: &[(&str, &str)] = &[];
