//! The resolver hook: while the session lasts, resolv.conf names our responder and no other server.
//!
//! In a container resolv.conf is a bind mount, and renaming a file over it fails with EBUSY. So the file is written in
//! place, in an order that can be restored after a kill at any moment: first the journal, then our text in one piece,
//! padded with blank lines if the file was longer. Restoring writes the original, padded as well, and then truncates.
//!
//! Another program may write the file meanwhile (a DHCP client, a VPN, NetworkManager). What it wrote becomes the
//! original, in the journal first, and the hook is set again: [`Hook::follow`]. A program that insists is left alone
//! until it has been quiet for some time, or until the next link.
//! Content that is not ours is never overwritten at the end.

mod file;
mod pace;
mod text;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use crate::journal::{Change, Journal};
use crate::program;
use file::{target_of, write_over};
pub(crate) use pace::WINDOW;
use pace::{Advice, Pace};

/// The file that the C libraries read.
pub(crate) const RESOLV_CONF: &str = "/etc/resolv.conf";

/// No real resolv.conf is nearly as large.
const MAX_SIZE: usize = 64 * 1024;
/// Ours contains the original, with three bytes more for each of its lines, and some of the lines twice.
const MAX_OURS: usize = 6 * MAX_SIZE;

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

/// What [`Hook::follow`] found and did.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Followed {
    /// The file is as we want it.
    Unchanged,
    /// Another program has rewritten it, and it is not set again yet: look again after this time.
    Later(Duration),
    /// Another program had rewritten it. Its content is the original now, and the hook is set again. If the content
    /// begins with a comment, this is the comment.
    SetAgain(Option<String>),
    /// Another program goes on rewriting it, and is left alone until it stops.
    LeftAlone(Option<String>),
}

/// The installed hook. Dropping it changes nothing: undoing the journal calls [`restore`].
#[derive(Debug)]
pub(crate) struct Hook {
    path: PathBuf,
    /// The file that we wrote: `path` may be a link to it.
    target: PathBuf,
    original: Option<Vec<u8>>,
    servers: Vec<IpAddr>,
    search: Vec<String>,
    /// Our text, and as we wrote it last: not shorter than what was there before.
    rendered: Vec<u8>,
    written: Vec<u8>,
    pace: Pace,
    state: State,
    /// What is in the place of our text.
    foreign: Option<Foreign>,
}

/// A file that another program has written, and since when it is as it is.
#[derive(Debug)]
struct Foreign {
    text: Option<Vec<u8>>,
    modified: Option<SystemTime>,
    since: Instant,
}

/// Whether the file is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Set,
    /// It could not be written or read the last time.
    Failed,
    /// Another program has written it, and it is waited for.
    Waiting,
    LeftAlone,
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
        let mut hook = Self {
            path: path.to_owned(),
            target: target_of(path),
            original,
            servers: servers.to_vec(),
            search: search.to_vec(),
            rendered: Vec::new(),
            written: Vec::new(),
            pace: Pace::new(),
            state: State::Set,
            foreign: None,
        };
        hook.record(record)?;
        hook.write()?;
        Ok(hook)
    }

    /// Whether names are resolved by our servers.
    pub(crate) fn is_set(&self) -> bool {
        self.state == State::Set
    }

    /// Whether the file could not be written or read the last time.
    pub(crate) fn has_failed(&self) -> bool {
        self.state == State::Failed
    }

    /// Follows a change of the laptop's search list, and what [`Self::follow`] follows.
    pub(crate) fn update(&mut self, journal: &mut Journal, search: &[String]) -> Result<Followed, Error> {
        self.search = search.to_vec();
        self.follow(journal)
    }

    /// There is a new link: a program that was left alone may have ended meanwhile.
    pub(crate) fn begin_anew(&mut self) {
        self.pace = Pace::new();
        if self.state == State::LeftAlone {
            self.state = State::Waiting;
        }
    }

    /// Looks at the file. If another program has rewritten it, that content becomes the original, and our text is
    /// written again.
    pub(crate) fn follow(&mut self, journal: &mut Journal) -> Result<Followed, Error> {
        let step = |step| match step {
            Step::Record(change) => journal.replace(|other| is_same_file(other, &change), change.clone()),
            Step::Forget(target) => {
                journal.forget_all(|change| is_of(change, &target));
                Ok(())
            }
        };
        self.follow_at(step, Instant::now())
    }

    fn follow_at(
        &mut self,
        journal: impl FnMut(Step) -> io::Result<()>,
        now: Instant,
    ) -> Result<Followed, Error> {
        if self.state == State::LeftAlone {
            let left = WINDOW.saturating_sub(self.quiet_for(now));
            if !left.is_zero() {
                return Ok(Followed::Later(left));
            }
            self.begin_anew();
        }
        let followed = self.look(journal, now);
        self.state = match &followed {
            Ok(Followed::Unchanged | Followed::SetAgain(_)) => State::Set,
            Ok(Followed::Later(_)) => State::Waiting,
            Ok(Followed::LeftAlone(_)) => State::LeftAlone,
            Err(_) => State::Failed,
        };
        followed
    }

    /// For how long no other program has written the file.
    fn quiet_for(&mut self, now: Instant) -> Duration {
        let text = read(&self.path).ok().flatten();
        let modified = fs::metadata(&self.path).and_then(|metadata| metadata.modified()).ok();
        match &self.foreign {
            Some(known) if known.text == text && known.modified == modified => {
                now.saturating_duration_since(known.since)
            }
            Some(_) | None => {
                self.foreign = Some(Foreign { text, modified, since: now });
                Duration::ZERO
            }
        }
    }

    fn look(
        &mut self,
        mut journal: impl FnMut(Step) -> io::Result<()>,
        now: Instant,
    ) -> Result<Followed, Error> {
        let current = read(&self.path);
        let leads_there = target_of(&self.path) == self.target;
        let is_as_written = matches!(&current, Ok(Some(current)) if *current == self.written);
        if is_as_written && leads_there {
            if self.render() != self.rendered {
                self.write()?;
            }
            return Ok(Followed::Unchanged);
        }
        let comment = current.as_ref().ok().and_then(|current| text::comment(current.as_deref()?));
        if !leads_there {
            self.leave_old_target(&mut journal);
        }
        let original = text::wished(current?.as_deref(), self.original.as_deref(), &self.servers);
        let is_known = original == self.original;
        match self.pace.advice(is_known, now) {
            Advice::SetAgain => {}
            Advice::Wait(time) => return Ok(Followed::Later(time)),
            Advice::LeaveAlone => {
                self.quiet_for(now);
                return Ok(Followed::LeftAlone(comment));
            }
        }
        self.set_again(original, journal).inspect_err(|_| self.pace.take_back(is_known))?;
        Ok(Followed::SetAgain(comment))
    }

    /// Takes over this original, in the journal first, and writes our text again.
    fn set_again(
        &mut self,
        original: Option<Vec<u8>>,
        mut journal: impl FnMut(Step) -> io::Result<()>,
    ) -> Result<(), Error> {
        let before = std::mem::replace(&mut self.original, original);
        let target = std::mem::replace(&mut self.target, target_of(&self.path));
        if self.original != before || self.target != target {
            let record = |change| journal(Step::Record(change));
            self.record(record).inspect_err(|_| (self.original, self.target) = (before, target))?;
        }
        self.write()
    }

    /// Restores the file that we wrote, because the path leads to another one now. If that fails, the journal keeps it.
    fn leave_old_target(&self, journal: &mut impl FnMut(Step) -> io::Result<()>) {
        let restored = match self.target.is_file() {
            true => restore(&self.target, self.original.as_deref(), &self.servers),
            false => Ok(()),
        };
        match restored.and_then(|()| journal(Step::Forget(self.target.clone()))) {
            Ok(()) => {}
            Err(error) => tracing::warn!("{} could not be restored: {error}", self.target.display()),
        }
    }

    fn record(&self, record: impl FnOnce(Change) -> io::Result<()>) -> Result<(), Error> {
        let Self { path, target, original, servers, .. } = self;
        let change = Change::ResolvConf {
            path: path.clone(),
            target: Some(target.clone()),
            original: original.clone(),
            servers: servers.clone(),
        };
        record(change).map_err(|source| Error::Journal { path: path.clone(), source })
    }

    fn render(&self) -> Vec<u8> {
        text::render(&program::command(), self.original.as_deref(), &self.servers, &self.search)
    }

    fn write(&mut self) -> Result<(), Error> {
        let rendered = self.render();
        let written =
            write_over(&self.path, MAX_OURS, |length| text::padded(&rendered, length)).map_err(|source| {
                // For example, no space left: half of our text is worse than the original.
                if let Err(error) = restore(&self.path, self.original.as_deref(), &self.servers) {
                    tracing::error!("{} could not be restored either: {error}", self.path.display());
                }
                Error::io(&self.path, source)
            })?;
        (self.rendered, self.written) = (rendered, written);
        Ok(())
    }
}

/// A step of the journal.
enum Step {
    /// Writes down a change, in place of an earlier one of the same file.
    Record(Change),
    /// This file is restored.
    Forget(PathBuf),
}

fn is_of(change: &Change, file: &Path) -> bool {
    matches!(change, Change::ResolvConf { target: Some(target), .. } if target == file)
}

fn is_same_file(one: &Change, other: &Change) -> bool {
    matches!(other, Change::ResolvConf { target: Some(target), .. } if is_of(one, target))
}

/// Gives the codespace back the original, byte for byte, if the file still has our mark, or names only our `servers`.
/// Otherwise another program has written it since, and its version is kept. So this may be called any number of times.
pub(crate) fn restore(path: &Path, original: Option<&[u8]>, servers: &[IpAddr]) -> io::Result<()> {
    let current = match read(path) {
        Ok(current) => current,
        Err(Error::Io { source, .. } | Error::ReadOnly { source, .. }) => return Err(source),
        Err(_) => None,
    };
    let is_ours = |current: &[u8]| text::is_ours(current) || text::names_only(current, servers);
    if !current.as_deref().is_some_and(is_ours) {
        if current.as_deref() != original {
            tracing::warn!("{} was rewritten by another program and is not restored", path.display());
        }
        return Ok(());
    }
    match text::wished(current.as_deref(), original, servers) {
        Some(wished) => {
            write_over(path, MAX_OURS, |length| text::padded_original(&wished, length))?;
            // The path may be a mount point, or the file read by somebody: truncated last, and never empty for long.
            OpenOptions::new().write(true).open(path)?.set_len(wished.len() as u64)
        }
        // Removes the file itself, if the path is a link to it.
        None => fs::remove_file(fs::canonicalize(path)?),
    }
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
    file.take(MAX_OURS as u64 + 1).read_to_end(&mut contents).map_err(|source| Error::io(path, source))?;
    if contents.len() > MAX_OURS || contents.len() > MAX_SIZE && !text::is_ours(&contents) {
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
