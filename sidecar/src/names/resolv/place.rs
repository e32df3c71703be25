//! Where resolv.conf is: the directory and the name of the file that its links lead to. No link is followed that a user
//! without privilege could have put there, so that nobody is given a file of root's by us.
//!
//! Three kinds of directory are met on the way:
//! - *Root's*: only root puts anything there. Links are followed, and whatever file is there is the one that root wants.
//! - *Shared*: everybody may add files, but not remove those of others, as in /tmp; WSL has its resolv.conf in one. Only
//!   what belongs to root counts.
//! - *Another user's*, such as systemd-resolved's /run/systemd/resolve. A file of that user's is used: writing it changes
//!   nothing that the user could not change as well.
//!
//! In the last two no link is followed, and a file with a second name is refused, because it may be root's file.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};
use nix::unistd::geteuid;

use super::error::Error;
use crate::privilege;

/// Maximum number of symbolic links that are followed, as the kernel's.
const MAX_LINKS: usize = 40;

/// Maximum number of components on the way. No real path is nearly as long.
const MAX_STEPS: usize = 256;

/// The sticky bit: others may not remove what is not theirs.
const STICKY: u32 = 0o1000;

/// Whose a directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Root,
    Shared,
    /// Also below such a directory.
    User(u32),
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Place {
    pub(super) directory: OwnedFd,
    pub(super) name: OsString,
    /// The same as a path without links. Only for messages and comparisons.
    pub(super) path: PathBuf,
    /// Where the search began.
    start: PathBuf,
    owner: Owner,
    trusted: Trusted,
}

/// The users who may do everything here anyway.
#[derive(Debug, Clone, Copy)]
struct Trusted {
    /// Who owns the root directory: in a user namespace that may be a number that stands for root.
    root: u32,
    /// This process, unless it has more privilege than who started it.
    own: Option<u32>,
}

impl Trusted {
    fn contains(self, user: u32) -> bool {
        user == 0 || user == self.root || Some(user) == self.own
    }
}

/// How far the search has come.
struct Search {
    start: PathBuf,
    directory: OwnedFd,
    path: PathBuf,
    owner: Owner,
    /// What is still to be looked up.
    rest: VecDeque<OsString>,
    trusted: Trusted,
}

impl Place {
    /// Follows `start`, an absolute path. There need not be a file.
    ///
    /// # Errors
    /// It leads into a directory that does not exist, or through one that is not root's.
    pub(super) fn find(start: &Path) -> Result<Self, Error> {
        let io = |errno: Errno| Error::io(start, errno);
        let directory = root().map_err(io)?;
        let own = (!privilege::is_secure_execution()).then(|| geteuid().as_raw());
        let trusted = Trusted { root: fstat(&directory).map_err(io)?.st_uid, own };
        let search = Search {
            start: start.to_owned(),
            directory,
            path: PathBuf::from("/"),
            owner: Owner::Root,
            rest: VecDeque::new(),
            trusted,
        };
        search.run()
    }

    /// Whether a file may be created here: only root puts anything into the directory.
    pub(super) fn is_roots(&self) -> bool {
        self.owner == Owner::Root
    }

    /// Checks, by its descriptor, that the file is one that may be used.
    ///
    /// # Errors
    /// It may not.
    pub(super) fn check(&self, found: &FileStat) -> Result<(), Error> {
        let is_root = self.trusted.contains(found.st_uid);
        let why = match self.owner {
            Owner::Root => return Ok(()),
            Owner::Shared if !is_root => "belongs to a user in a directory that everybody may write",
            Owner::User(user) if user != found.st_uid => "belongs to another user than its directory",
            Owner::Shared | Owner::User(_) if found.st_nlink != 1 => "has a second name",
            Owner::Shared | Owner::User(_) => return Ok(()),
        };
        Err(self.untrusted(why))
    }

    pub(super) fn untrusted(&self, why: &'static str) -> Error {
        Error::Untrusted { path: self.start.clone(), target: self.path.clone(), why }
    }
}

impl Search {
    fn run(mut self) -> Result<Place, Error> {
        self.rest = names(&self.start);
        let mut links = 0;
        for _ in 0..MAX_STEPS {
            let Some(name) = self.rest.pop_front() else { break };
            if name == ".." {
                self.enter(&name)?;
                continue;
            }
            let found = match fstatat(&self.directory, name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
                Err(Errno::ENOENT) if self.rest.is_empty() => return Ok(self.end(name)),
                Err(Errno::ENOENT) => return Err(self.dangling(&name)),
                found => found.map_err(|errno| Error::io(&self.start, errno))?,
            };
            match SFlag::from_bits_truncate(found.st_mode & SFlag::S_IFMT.bits()) {
                SFlag::S_IFLNK => {
                    links += 1;
                    if links > MAX_LINKS {
                        break;
                    }
                    self.follow_link(&name, &found)?;
                }
                SFlag::S_IFDIR if !self.rest.is_empty() => self.enter(&name)?,
                _ if self.rest.is_empty() => return Ok(self.end(name)),
                _ => return Err(Error::io(&self.start, Errno::ENOTDIR)),
            }
        }
        let what = if self.rest.is_empty() { "a directory" } else { "too many links" };
        Err(Error::NotAFile { path: self.start, what })
    }

    fn follow_link(&mut self, name: &OsStr, found: &FileStat) -> Result<(), Error> {
        if self.owner != Owner::Root || !self.trusted.contains(found.st_uid) {
            let target = self.path.join(name);
            let why = "is a link that another user than root may have made";
            return Err(Error::Untrusted { path: self.start.clone(), target, why });
        }
        let io = |errno: Errno| Error::io(&self.start, errno);
        let link = PathBuf::from(readlinkat(&self.directory, name).map_err(io)?);
        if link.is_absolute() {
            (self.directory, self.path) = (root().map_err(io)?, PathBuf::from("/"));
            self.owner = Owner::Root;
        }
        let mut rest = names(&link);
        rest.append(&mut self.rest);
        self.rest = rest;
        Ok(())
    }

    /// Goes into a directory, or out of one.
    fn enter(&mut self, name: &OsStr) -> Result<(), Error> {
        let io = |errno: Errno| Error::io(&self.start, errno);
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let directory = openat(&self.directory, name, flags, Mode::empty()).map_err(io)?;
        let found = fstat(&directory).map_err(io)?;
        self.owner = match self.owner {
            Owner::User(user) => Owner::User(user),
            Owner::Root | Owner::Shared if !self.trusted.contains(found.st_uid) => Owner::User(found.st_uid),
            Owner::Root | Owner::Shared => {
                let by_group = found.st_mode & 0o020 != 0 && found.st_gid != 0;
                match found.st_mode & 0o002 != 0 || by_group {
                    false => Owner::Root,
                    true if found.st_mode & STICKY != 0 => Owner::Shared,
                    true => Owner::User(found.st_uid),
                }
            }
        };
        if name == ".." {
            self.path.pop();
        } else {
            self.path.push(name);
        }
        self.directory = directory;
        Ok(())
    }

    fn end(self, name: OsString) -> Place {
        let Self { start, directory, path, owner, trusted, .. } = self;
        let path = path.join(&name);
        Place { directory, name, path, start, owner, trusted }
    }

    fn dangling(&self, name: &OsStr) -> Error {
        let target: PathBuf = [self.path.as_os_str(), name]
            .into_iter()
            .chain(self.rest.iter().map(OsString::as_os_str))
            .collect();
        if target == self.start {
            return Error::io(&self.start, Errno::ENOENT);
        }
        Error::Dangling { path: self.start.clone(), target }
    }
}

fn root() -> Result<OwnedFd, Errno> {
    open("/", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
}

/// The components of a path that name something.
fn names(path: &Path) -> VecDeque<OsString> {
    let name = |component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::Prefix(_) | Component::RootDir | Component::CurDir => None,
    };
    path.components().filter_map(name).collect()
}

#[cfg(test)]
mod tests;
