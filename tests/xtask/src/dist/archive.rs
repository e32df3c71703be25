//! Reproducible archives, and checksums.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use crate::shell::{self, PLAIN, root};

/// The modification time of all files of an archive, in seconds since 1970: `SOURCE_DATE_EPOCH`, else the time of the last
/// commit.
pub(super) fn date() -> Result<u64> {
    if let Ok(date) = std::env::var("SOURCE_DATE_EPOCH") {
        return date.parse().with_context(|| format!("SOURCE_DATE_EPOCH={date}"));
    }
    let mut git = Command::new("git");
    let output =
        git.args(["log", "-1", "--format=%ct"]).current_dir(root()).output().context("starting git")?;
    let stdout = String::from_utf8_lossy(&output.stdout);
    stdout.trim().parse().with_context(|| {
        let errors = String::from_utf8_lossy(&output.stderr);
        format!(
            "without a commit, set SOURCE_DATE_EPOCH to the release's date; git printed: {stdout}{errors}"
        )
    })
}

/// Packs the folder `name` in `folder` into `name`.tar.gz in `target`.
pub(super) fn pack(folder: &Path, name: &str, target: &Path) -> Result<()> {
    let tar = target.join(format!("{name}.tar"));
    let date = date()?;
    let same = "--format=ustar --sort=name --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX";
    let (tar, folder) = (tar.display(), folder.display());
    shell::run(
        &format!("tar --create --file {tar} {same} --mtime=@{date} --directory {folder} {name}"),
        PLAIN,
    )?;
    shell::run(&format!("gzip --force --no-name --best {tar}"), PLAIN)
}

/// A line for `sha256sum --check` in the file's folder.
pub(super) fn checksum(file: &Path) -> Result<String> {
    let bytes = fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    let name = file.file_name().context("a file has a name")?.to_str().context("our names are ASCII")?;
    ensure!(!bytes.is_empty(), "{name} is empty");
    let mut line = String::new();
    for byte in Sha256::digest(&bytes) {
        write!(line, "{byte:02x}")?;
    }
    writeln!(line, "  {name}")?;
    Ok(line)
}
