//! The resolver hook: while the session lasts, resolv.conf names our responder and no other server.
//!
//! In a container resolv.conf is a bind mount, and renaming a file over it fails with EBUSY. So the file is written in
//! place, in an order that can be restored after a kill at any moment: first the journal, then our text over the start
//! of the file, then the file is truncated to its length. A program that reads it in between sees our servers first.

mod text;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::journal::{Change, Journal};
use crate::program;

const RESOLV_CONF: &str = "/etc/resolv.conf";

/// No real resolv.conf is nearly as large.
const MAX_SIZE: u64 = 64 * 1024;

/// Why the resolver hook can't be installed or updated.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Forbidden by the mount, by permissions or by an attribute (`chattr +i`).
    #[error(
        "{path} can't be written ({source}), so the laptop's names can't be resolved here; \
         make it writable for root, or start with --dns false"
    )]
    ReadOnly {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A symbolic link into a directory that does not exist.
    #[error(
        "{path} is a link to {target}, whose directory does not exist; repair it, or start with --dns false"
    )]
    Dangling {
        /// The link.
        path: PathBuf,
        /// Where it points.
        target: PathBuf,
    },
    /// A directory, a device, a pipe, or far too large.
    #[error("{path} is not a usable file ({what}); repair it, or start with --dns false")]
    NotAFile {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        what: &'static str,
    },
    /// Another program wrote the file while the hook was installed. Its version is kept.
    #[error(
        "another program has rewritten {path}: names are no longer resolved through the tunnel; \
         start gh-net again to restore that"
    )]
    Replaced {
        /// The file.
        path: PathBuf,
    },
    /// The change could not be written to the journal, so it was not made.
    #[error("{path} is not changed, because the change could not be written to the journal: {source}")]
    Journal {
        /// The file.
        path: PathBuf,
        /// The journal's error.
        source: io::Error,
    },
    /// Anything else.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl Error {
    fn io(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        if matches!(source.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) {
            Self::ReadOnly { path, source }
        } else {
            Self::Io { path, source }
        }
    }
}

/// The codespace's own nameservers: those of resolv.conf or, while the hook is installed, of the original kept in it.
/// Empty if there is no such file.
pub(crate) fn nameservers() -> Vec<IpAddr> {
    nameservers_in(Path::new(RESOLV_CONF))
}

fn nameservers_in(path: &Path) -> Vec<IpAddr> {
    match read(path) {
        Ok(Some(text)) if text::is_ours(&text) => {
            text::kept_original(&text).map(|original| text::nameservers(&original)).unwrap_or_default()
        }
        Ok(Some(text)) => text::nameservers(&text),
        Ok(None) => Vec::new(),
        Err(error) => {
            tracing::warn!("the codespace's own nameservers are unknown: {error}");
            Vec::new()
        }
    }
}

/// The installed hook. Dropping it changes nothing: undoing the journal calls [`restore`].
#[derive(Debug)]
pub(crate) struct Hook {
    path: PathBuf,
    original: Option<Vec<u8>>,
}

impl Hook {
    /// Makes `servers` the only nameservers and appends `search` to the search list.
    pub(crate) fn install(
        journal: &mut Journal,
        servers: &[IpAddr],
        search: &[String],
    ) -> Result<Self, Error> {
        Self::install_at(Path::new(RESOLV_CONF), |change| journal.record(change), servers, search)
    }

    fn install_at(
        path: &Path,
        record: impl FnOnce(Change) -> io::Result<()>,
        servers: &[IpAddr],
        search: &[String],
    ) -> Result<Self, Error> {
        let original = match read(path)? {
            // Left by a session whose journal is lost.
            Some(ours) if text::is_ours(&ours) => text::kept_original(&ours),
            current => current,
        };
        if let Err(source) = OpenOptions::new().write(true).open(path)
            && source.kind() != io::ErrorKind::NotFound
        {
            return Err(Error::io(path, source));
        }
        record(Change::ResolvConf { path: path.to_owned(), original: original.clone() })
            .map_err(|source| Error::Journal { path: path.to_owned(), source })?;
        let hook = Self { path: path.to_owned(), original };
        hook.write(servers, search)?;
        Ok(hook)
    }

    /// Follows a change of the servers or of the laptop's search list.
    pub(crate) fn update(&self, servers: &[IpAddr], search: &[String]) -> Result<(), Error> {
        match read(&self.path)? {
            Some(current) if text::is_ours(&current) => self.write(servers, search),
            _ => Err(Error::Replaced { path: self.path.clone() }),
        }
    }

    fn write(&self, servers: &[IpAddr], search: &[String]) -> Result<(), Error> {
        let ours = text::render(&program::command(), self.original.as_deref(), servers, search);
        overwrite(&self.path, &ours).map_err(|source| {
            // For example, no space left: half of our text is worse than the original.
            if let Err(error) = restore(&self.path, &self.original) {
                tracing::error!("{} could not be restored either: {error}", self.path.display());
            }
            Error::io(&self.path, source)
        })
    }
}

/// Restores the original, byte for byte, if the file still has our mark. Without the mark another program has written
/// it since, and its version is kept. So this may be called any number of times.
pub(crate) fn restore(path: &Path, original: &Option<Vec<u8>>) -> io::Result<()> {
    let current = match read(path) {
        Ok(current) => current,
        Err(Error::Io { source, .. } | Error::ReadOnly { source, .. }) => return Err(source),
        Err(_) => None,
    };
    if !current.as_deref().is_some_and(text::is_ours) {
        if current != *original {
            tracing::warn!("{} was rewritten by another program and is not restored", path.display());
        }
        return Ok(());
    }
    match original {
        Some(original) => overwrite(path, original),
        // Removes the file itself, if the path is a link to it.
        None => fs::remove_file(fs::canonicalize(path)?),
    }
}

/// Writes first and truncates afterwards: the file is never empty and always has our mark at its start or end, so the
/// next [`restore`] repairs what a kill in between leaves.
fn overwrite(path: &Path, contents: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
    file.write_all(contents)?;
    let end = file.stream_position()?;
    file.set_len(end)
}

/// The file's contents; `None` if there is no file but one could be created.
fn read(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    let not_a_file = |what| Error::NotAFile { path: path.to_owned(), what };
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return missing(path),
        Err(error) => return Err(Error::io(path, error)),
    };
    if metadata.is_dir() {
        return Err(not_a_file("a directory"));
    }
    // Opening a pipe would block until its other end is opened.
    if !metadata.is_file() {
        return Err(not_a_file("a device, pipe or socket"));
    }
    let mut contents = Vec::new();
    let file = File::open(path).map_err(|source| Error::io(path, source))?;
    file.take(MAX_SIZE + 1).read_to_end(&mut contents).map_err(|source| Error::io(path, source))?;
    if contents.len() as u64 > MAX_SIZE {
        return Err(not_a_file("larger than 64 KiB"));
    }
    Ok(Some(contents))
}

/// Distinguishes a missing file from a dangling link, through which no file can be created.
fn missing(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    let Ok(link) = fs::read_link(path) else { return Ok(None) };
    let target = path.parent().unwrap_or(Path::new("/")).join(link);
    if target.parent().is_some_and(Path::is_dir) {
        return Ok(None);
    }
    Err(Error::Dangling { path: path.to_owned(), target })
}

#[cfg(test)]
mod tests;
