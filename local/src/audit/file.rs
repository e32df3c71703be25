//! The file of an audit: opened with care, rotated by size.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::writer::Sink;

/// The size at which a file is set aside, in bytes: some 100,000 lines.
pub const MAX_SIZE: u64 = 32 * 1024 * 1024;
/// How many files are kept beside the current one: FILE.1 is the latest.
pub const KEPT: u32 = 4;
/// For the user alone: the lines tell what the user does.
const MODE: u32 = 0o600;

/// Why nothing can be recorded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file can't be opened.
    #[error("the audit file {} can't be written: {source}", path.display())]
    Open {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Something else is in its place.
    #[error("{} can't be the audit file: it is {what}", path.display())]
    Unsuitable {
        /// Which file.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// There is no thread for it.
    #[error("the audit can't be started: {0}")]
    Thread(#[source] io::Error),
}

/// See the [module's documentation](self).
#[derive(Debug)]
pub(super) struct AuditFile {
    path: PathBuf,
    file: File,
    /// Its length up to the end of the last whole line.
    length: u64,
    max_size: u64,
}

impl AuditFile {
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let (file, length) = open(path)?;
        Ok(Self { path: path.to_owned(), file, length, max_size: MAX_SIZE })
    }

    #[cfg(test)]
    pub(super) fn with_max_size(self, max_size: u64) -> Self {
        Self { max_size, ..self }
    }

    fn numbered(&self, number: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        name.into()
    }

    /// Sets the file aside and begins another one.
    fn rotate(&mut self) -> io::Result<()> {
        for number in (1..KEPT).rev() {
            match fs::rename(self.numbered(number), self.numbered(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        match fs::rename(&self.path, self.numbered(1)) {
            // Somebody has removed it meanwhile.
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        (self.file, self.length) = open(&self.path).map_err(io::Error::other)?;
        Ok(())
    }
}

impl Sink for AuditFile {
    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.length > 0 && self.length + lines.len() as u64 > self.max_size {
            self.rotate()?;
        }
        match self.file.write_all(lines) {
            Ok(()) => {
                self.length += lines.len() as u64;
                Ok(())
            }
            Err(error) => {
                // No half a line stays. If this fails as well, the next line follows a broken one.
                let _ = self.file.set_len(self.length);
                Err(error)
            }
        }
    }
}

/// Opens the file to append to it. No link is followed: whoever may write to the directory could lead us elsewhere.
fn open(path: &Path) -> Result<(File, u64), Error> {
    let failed = |source: io::Error| match source.raw_os_error() {
        Some(libc::ELOOP) => Error::Unsuitable { path: path.to_owned(), what: "a symbolic link" },
        _ => Error::Open { path: path.to_owned(), source },
    };
    // O_NONBLOCK: opening a pipe that nobody reads must not wait.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(MODE).custom_flags(flags);
    let file = options.open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    let unsuitable = |what| Error::Unsuitable { path: path.to_owned(), what };
    if !metadata.is_file() {
        return Err(unsuitable("not a regular file"));
    }
    if metadata.uid() != nix::unistd::geteuid().as_raw() {
        return Err(unsuitable("another user's file"));
    }
    if metadata.nlink() > 1 {
        return Err(unsuitable("a file with several names"));
    }
    file.set_permissions(fs::Permissions::from_mode(MODE)).map_err(failed)?;
    Ok((file, metadata.len()))
}
