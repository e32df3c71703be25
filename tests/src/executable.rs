//! Programs that tests write and run.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// Writes a program, and the directories it is in.
///
/// Written by ourselves, it would be open for writing in every child that another thread starts meanwhile, and a
/// program that is open for writing can't be run (ETXTBSY). So another process writes it.
///
/// # Errors
/// It can't be written.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    const LINES: &str = r#"mkdir -p "${0%/*}" && cat > "$0" && chmod 755 "$0""#;
    let mut writer = Command::new("sh").args(["-c", LINES]).arg(path).stdin(Stdio::piped()).spawn()?;
    writer.stdin.take().context("it was piped")?.write_all(bytes)?;
    ensure!(writer.wait()?.success(), "{} can't be written", path.display());
    Ok(())
}
