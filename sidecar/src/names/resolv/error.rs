//! Why resolv.conf can't be used.

use std::io;
use std::path::{Path, PathBuf};

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
    /// A link, or a file behind one, that a user without privilege could have put there.
    #[error("{path} leads to {target}, which {why}; repair it, or start with --dns false")]
    Untrusted {
        /// Where it begins.
        path: PathBuf,
        /// Where it leads.
        target: PathBuf,
        /// What is wrong with that.
        why: &'static str,
    },
    /// A directory, a device, a pipe, or far too large.
    #[error("{path} is not a usable file ({what}); repair it, or start with --dns false")]
    NotAFile {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        what: &'static str,
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
    pub(super) fn io(path: &Path, source: impl Into<io::Error>) -> Self {
        let (path, source) = (path.to_owned(), source.into());
        if matches!(source.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) {
            Self::ReadOnly { path, source }
        } else {
            Self::Io { path, source }
        }
    }

    /// Whether what is there, if anything, can't be a file that we wrote: not there, or not one that we would use.
    pub(super) fn is_of_unusable(&self) -> bool {
        match self {
            Self::Dangling { .. } | Self::Untrusted { .. } | Self::NotAFile { .. } => true,
            Self::Io { source, .. } => {
                matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
            }
            Self::ReadOnly { .. } | Self::Journal { .. } => false,
        }
    }
}
