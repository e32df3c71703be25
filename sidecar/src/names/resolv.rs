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

mod error;
mod file;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod pace;
mod place;
mod text;

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use crate::journal::{Change, Journal};
use crate::program;
pub(crate) use error::Error;
use file::{Opened, read, target_of};
pub(crate) use pace::WINDOW;
use pace::{Advice, Pace};

/// The file that the C libraries read.
pub(crate) const RESOLV_CONF: &str = "/etc/resolv.conf";

/// For how long an empty file is taken for one that another program has truncated and is about to write. Our text between
/// the two would be mixed with the other program's.
const EMPTY: Duration = Duration::from_secs(2);

/// Where links of resolv.conf usually lead. If the owner was killed and the link leads elsewhere since, what it wrote is
/// looked for here.
const USUAL_TARGETS: [&str; 7] = [
    "/run/systemd/resolve/stub-resolv.conf",
    "/run/systemd/resolve/resolv.conf",
    "/run/NetworkManager/resolv.conf",
    "/run/NetworkManager/no-stub-resolv.conf",
    "/run/resolvconf/resolv.conf",
    "/run/connman/resolv.conf",
    "/mnt/wsl/resolv.conf",
];

/// The codespace's own nameservers: those of resolv.conf or, while the hook is installed, of the original kept in it.
/// Empty if there is no such file.
pub(crate) fn nameservers() -> Vec<IpAddr> {
    nameservers_in(Path::new(RESOLV_CONF))
}

fn nameservers_in(path: &Path) -> Vec<IpAddr> {
    match read(path) {
        Ok(Some(text)) if text::is_ours(&text) => {
            text::original_in(&text).map(|original| text::nameservers(&original)).unwrap_or_default()
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
        Self::install_at(Path::new(RESOLV_CONF), || journal.record(Change::Names), servers, search)
    }

    fn install_at(
        path: &Path,
        record: impl FnOnce() -> io::Result<()>,
        servers: &[IpAddr],
        search: &[String],
    ) -> Result<Self, Error> {
        let original = match Opened::to_write(path)?.map(|opened| opened.contents) {
            // Left by a session whose journal is lost.
            Some(ours) if text::is_ours(&ours) => text::original_in(&ours),
            current => current,
        };
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
        record().map_err(|source| Error::Journal { path: path.to_owned(), source })?;
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
    pub(crate) fn update(&mut self, search: &[String]) -> Result<Followed, Error> {
        self.search = search.to_vec();
        self.follow()
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
    pub(crate) fn follow(&mut self) -> Result<Followed, Error> {
        self.follow_at(Instant::now())
    }

    fn follow_at(&mut self, now: Instant) -> Result<Followed, Error> {
        if self.state == State::LeftAlone {
            let left = WINDOW.saturating_sub(self.quiet_for(now));
            if !left.is_zero() {
                return Ok(Followed::Later(left));
            }
            self.begin_anew();
        }
        let followed = self.look(now);
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

    fn look(&mut self, now: Instant) -> Result<Followed, Error> {
        let current = read(&self.path);
        let leads_there = target_of(&self.path) == self.target;
        let is_as_written = matches!(&current, Ok(Some(current)) if *current == self.written);
        if is_as_written && leads_there {
            if self.render() != self.rendered {
                self.write()?;
            }
            return Ok(Followed::Unchanged);
        }
        if matches!(&current, Ok(Some(current)) if current.is_empty()) {
            let left = EMPTY.saturating_sub(self.quiet_for(now));
            if !left.is_zero() {
                return Ok(Followed::Later(left));
            }
        }
        let comment = current.as_ref().ok().and_then(|current| text::comment(current.as_deref()?));
        if !leads_there {
            self.restore_target();
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
        self.set_again(original).inspect_err(|_| self.pace.take_back(is_known))?;
        Ok(Followed::SetAgain(comment))
    }

    /// Takes over this original, and writes our text with it again.
    fn set_again(&mut self, original: Option<Vec<u8>>) -> Result<(), Error> {
        self.original = original;
        self.target = target_of(&self.path);
        self.write()
    }

    /// Restores the file that we wrote, because the path leads to another one now.
    fn restore_target(&self) {
        if let Err(error) = self.restore_at(&self.target) {
            tracing::warn!("{} could not be restored: {error}", self.target.display());
        }
    }

    /// Gives the codespace back what it had before, as far as only this hook knows it: what our text was made into by
    /// another program. The rest is found by our marks.
    ///
    /// # Errors
    /// A file can't be read or written.
    pub(crate) fn restore(&self) -> io::Result<()> {
        self.restore_at(&self.target).and(self.restore_at(&self.path))
    }

    fn restore_at(&self, path: &Path) -> io::Result<()> {
        restore(path, self.original.as_deref(), &self.servers)
    }

    fn render(&self) -> Vec<u8> {
        text::render(&program::command(), self.original.as_deref(), &self.servers, &self.search)
    }

    fn write(&mut self) -> Result<(), Error> {
        let rendered = self.render();
        let mut file = Opened::to_write_or_new(&self.path)?;
        let written = file.write(|length| text::padded(&rendered, length)).map_err(|source| {
            // For example, no space left: half of our text is worse than the original.
            if let Err(error) = self.restore_at(&self.path) {
                tracing::error!("{} could not be restored either: {error}", self.path.display());
            }
            Error::io(&self.path, source)
        })?;
        (self.rendered, self.written) = (rendered, written);
        Ok(())
    }
}

/// Restores every resolv.conf that has our marks, from what stands between them.
///
/// # Errors
/// One that has our marks can't be written, or whether one has them is not known. The others are restored.
pub(crate) fn restore_marked() -> io::Result<()> {
    let paths = USUAL_TARGETS.into_iter().chain([RESOLV_CONF]);
    let results: Vec<_> = paths.map(|path| restore_by_marks(Path::new(path))).collect();
    results.into_iter().collect()
}

fn restore_by_marks(path: &Path) -> io::Result<()> {
    match read_if_usable(path)? {
        Some(ours) if text::is_ours(&ours) => restore(path, text::original_in(&ours).as_deref(), &[]),
        Some(_) | None => Ok(()),
    }
}

/// The contents; `None` if there is no file that can be ours.
///
/// # Errors
/// It can't be read, for example with EMFILE or EIO, so it may be ours.
fn read_if_usable(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match read(path) {
        Err(error) if !error.is_of_unusable() => Err(io::Error::other(error)),
        contents => Ok(contents.ok().flatten()),
    }
}

/// Gives the codespace back the original, byte for byte, if the file still has our mark, or names only our `servers`.
/// Otherwise another program has written it since, and its version is kept. So this may be called any number of times.
fn restore(path: &Path, original: Option<&[u8]>, servers: &[IpAddr]) -> io::Result<()> {
    let is_ours = |current: &[u8]| text::is_ours(current) || text::names_only(current, servers);
    let mut file = match Opened::to_write(path) {
        Ok(Some(file)) if is_ours(&file.contents) => file,
        Ok(_) => return Ok(()),
        Err(error) => {
            // What is not ours need not be writable.
            return match read_if_usable(path)? {
                Some(current) if is_ours(&current) => Err(io::Error::other(error)),
                Some(_) | None => Ok(()),
            };
        }
    };
    match text::wished(Some(&file.contents), original, servers) {
        Some(wished) => {
            file.write(|length| text::padded_original(&wished, length))?;
            // The path may be a mount point, or the file read by somebody: truncated last, and never empty for long.
            file.cut(wished.len())
        }
        // Removes the file itself, if the path is a link to it.
        None => file.remove(),
    }
}

#[cfg(test)]
mod tests;
