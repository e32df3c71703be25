//! Writes programs that tests run.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// Writes a program, and creates its directories.
///
/// Another process writes the file. If we wrote it, children that other threads start meanwhile would inherit the open
/// descriptor, and a program that is open for writing can't be run (ETXTBSY).
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
