//! A directory that only root should be able to write, but that belongs to an ordinary user if the program has its
//! privilege from file capabilities. So nothing in it is trusted: files are opened without following links, checked by
//! their descriptor, and read up to a bound.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat, renameat};
use nix::sys::stat::{Mode, fstat};
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat};

/// Why a directory can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The system refused.
    #[error("{path}: {error}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
    /// Another user could put files into it.
    #[error("{0} belongs to another user or is writable by others; remove it")]
    Unsafe(PathBuf),
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Directory {
    fd: OwnedFd,
    path: PathBuf,
}

impl Directory {
    /// Opens the directory at `path`, which must be root's or this user's, and nobody else's to write.
    ///
    /// # Errors
    /// See [`Error`].
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let failed = |errno: Errno| Error::Io { path: path.to_owned(), error: errno.into() };
        let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = match open(path, flags, Mode::empty()) {
            Err(Errno::ELOOP | Errno::ENOTDIR) => return Err(Error::Unsafe(path.to_owned())),
            opened => opened.map_err(failed)?,
        };
        let found = fstat(&fd).map_err(failed)?;
        if !is_trusted(found.st_uid) || found.st_mode & 0o022 != 0 {
            return Err(Error::Unsafe(path.to_owned()));
        }
        Ok(Self { fd, path: path.to_owned() })
    }

    /// Opens a file of the directory with these flags. It is created, readable only by its owner, if they say so.
    ///
    /// # Errors
    /// The system's, or it is no regular file of root's or this user's, with this as its only name.
    pub(crate) fn file(&self, name: &str, flags: OFlag) -> io::Result<File> {
        // Opening a pipe would block until its other end is opened.
        let safe = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        let file = File::from(
            openat(&self.fd, name, flags | safe, mode)
                .map_err(|errno| if errno == Errno::ELOOP { self.foreign(name) } else { errno.into() })?,
        );
        let found = file.metadata()?;
        if !found.is_file() || !is_trusted(found.uid()) || found.nlink() != 1 {
            return Err(self.foreign(name));
        }
        Ok(file)
    }

    fn foreign(&self, name: &str) -> io::Error {
        let path = self.path.join(name);
        io::Error::other(format!("{} is not a file that gh-net-sidecar made; remove it", path.display()))
    }

    /// Removes a file. No error if there is none.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        match unlinkat(&self.fd, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Gives a file another name.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(renameat(&self.fd, from, &self.fd, to)?)
    }
}

/// All of a file up to `most` bytes.
///
/// # Errors
/// The system's, or the file is larger.
pub(crate) fn read(file: &File, most: usize) -> io::Result<Vec<u8>> {
    let mut contents = Vec::new();
    file.take(most as u64 + 1).read_to_end(&mut contents)?;
    if contents.len() > most {
        return Err(io::Error::other(format!("larger than {most} bytes; gh-net-sidecar did not write that")));
    }
    Ok(contents)
}

fn is_trusted(owner: u32) -> bool {
    owner == 0 || owner == geteuid().as_raw()
}
