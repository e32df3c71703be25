//! The file that resolv.conf leads to: read, checked and written through one descriptor.

use std::fs::{File, Permissions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fstat, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::error::Error;
use super::place::Place;
use super::text;

/// No real resolv.conf is nearly as large.
pub(super) const MAX_SIZE: usize = 64 * 1024;
/// Ours contains the original, with three bytes more for each of its lines, and some of the lines twice.
const MAX_OURS: usize = 6 * MAX_SIZE;

/// An open file.
#[derive(Debug)]
pub(super) struct Opened {
    place: Place,
    file: File,
    /// What was in it when it was opened.
    pub(super) contents: Vec<u8>,
}

/// The file that `path` leads to, without links; `path` itself if that is not known.
pub(super) fn target_of(path: &Path) -> PathBuf {
    Place::find(path).map_or_else(|_| path.to_owned(), |place| place.path)
}

/// The contents; `None` if there is no file but one could be created.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    Ok(Opened::open(Place::find(path)?, OFlag::O_RDONLY)?.map(|opened| opened.contents))
}

impl Opened {
    /// Opens the file for writing; `None` if there is none but one could be created.
    pub(super) fn to_write(path: &Path) -> Result<Option<Self>, Error> {
        Self::open(Place::find(path)?, OFlag::O_RDWR)
    }

    fn open(place: Place, access: OFlag) -> Result<Option<Self>, Error> {
        let io = |errno: Errno| Error::io(&place.path, errno);
        match fstatat(&place.directory, place.name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Err(Errno::ENOENT) if place.is_roots() => return Ok(None),
            Err(Errno::ENOENT) => {
                return Err(place.untrusted("does not exist, in a directory that is not root's"));
            }
            // Before it is opened, because opening a device may do something.
            found => is_file(&place.path, found.map_err(io)?.st_mode)?,
        }
        let flags = access | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let file = openat(&place.directory, place.name.as_os_str(), flags, Mode::empty()).map_err(io)?;
        let found = fstat(&file).map_err(io)?;
        is_file(&place.path, found.st_mode)?;
        place.check(&found)?;
        let mut opened = Self { place, file: file.into(), contents: Vec::new() };
        opened.read()?;
        Ok(Some(opened))
    }

    fn read(&mut self) -> Result<(), Error> {
        let Self { place, file, contents } = self;
        (&*file)
            .take(MAX_OURS as u64 + 1)
            .read_to_end(contents)
            .map_err(|error| Error::io(&place.path, error))?;
        if contents.len() > MAX_OURS || contents.len() > MAX_SIZE && !text::is_ours(contents) {
            return Err(Error::NotAFile { path: place.path.clone(), what: "larger than 64 KiB" });
        }
        Ok(())
    }

    /// Creates an empty file.
    fn create(path: &Path) -> Result<Self, Error> {
        let place = Place::find(path)?;
        if !place.is_roots() {
            return Err(place.untrusted("does not exist, in a directory that is not root's"));
        }
        let io = |errno: Errno| Error::io(&place.path, errno);
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        let file = File::from(openat(&place.directory, place.name.as_os_str(), flags, mode).map_err(io)?);
        // Every program reads it, and our umask keeps others from reading what we create.
        file.set_permissions(Permissions::from_mode(0o644)).map_err(|error| Error::io(&place.path, error))?;
        Ok(Self { place, file, contents: Vec::new() })
    }

    /// Opens the file for writing, and creates it if there is none.
    pub(super) fn to_write_or_new(path: &Path) -> Result<Self, Error> {
        match Self::to_write(path)? {
            Some(opened) => Ok(opened),
            None => Self::create(path),
        }
    }

    /// Writes what `contents` says for a file of this length, in one piece: it must not be shorter, so that a kill leaves
    /// no half. Returns what is written.
    pub(super) fn write(&mut self, contents: impl FnOnce(usize) -> Vec<u8>) -> io::Result<Vec<u8>> {
        let length = usize::try_from(self.file.metadata()?.len()).unwrap_or(MAX_OURS).min(MAX_OURS);
        let contents = contents(length);
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(&contents)?;
        Ok(contents)
    }

    /// Cuts the file at this length.
    pub(super) fn cut(&self, length: usize) -> io::Result<()> {
        self.file.set_len(length as u64)
    }

    /// Removes the file, unless another one has taken its place.
    pub(super) fn remove(self) -> io::Result<()> {
        let Self { place, file, .. } = self;
        let (held, name) = (fstat(&file)?, place.name.as_os_str());
        match fstatat(&place.directory, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(there) if (there.st_dev, there.st_ino) == (held.st_dev, held.st_ino) => {
                Ok(unlinkat(&place.directory, name, UnlinkatFlags::NoRemoveDir)?)
            }
            Ok(_) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

fn is_file(path: &Path, mode: u32) -> Result<(), Error> {
    let what = match SFlag::from_bits_truncate(mode & SFlag::S_IFMT.bits()) {
        SFlag::S_IFREG => return Ok(()),
        SFlag::S_IFDIR => "a directory",
        _ => "a device, pipe or socket",
    };
    Err(Error::NotAFile { path: path.to_owned(), what })
}
