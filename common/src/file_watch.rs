//! Watches one file by inotify(7), however other programs change it: written in place (in a container resolv.conf is a
//! bind mount, which nothing can replace), replaced by a rename, removed, or, where its path is a symbolic link, by a
//! link to another file.
//!
//! So the file itself is watched, and the directory of each link on the way to it or, if that does not exist, the nearest
//! one above it. The watches belong to what was there when they were made: after a change, [`FileWatch::new`] makes them
//! anew.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};

use crate::sys::ReadyFd;

/// Maximum number of symbolic links that are followed, as the kernel's.
const MAX_LINKS: usize = 40;

/// What happens to a file, or to the names in a directory.
const MASK: AddWatchFlags = AddWatchFlags::IN_MODIFY
    .union(AddWatchFlags::IN_CLOSE_WRITE)
    .union(AddWatchFlags::IN_CREATE)
    .union(AddWatchFlags::IN_DELETE)
    .union(AddWatchFlags::IN_MOVE)
    .union(AddWatchFlags::IN_DELETE_SELF)
    .union(AddWatchFlags::IN_MOVE_SELF);

/// See the [module](self).
#[derive(Debug)]
pub struct FileWatch {
    inotify: Inotify,
    /// Its descriptor, for polling.
    ready: ReadyFd,
    /// The directories, with the path that matters in each.
    paths: Vec<(WatchDescriptor, PathBuf)>,
    /// Whether a program is writing: it has not closed the file yet.
    is_written: bool,
}

impl FileWatch {
    /// Watches the file at `path` from now on. There need not be one.
    ///
    /// # Errors
    /// The kernel refused, for example because of its limits (`fs.inotify`).
    pub fn new(path: &Path) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let mut paths = Vec::new();
        for path in links(path) {
            // Where a directory is missing, the nearest one above it shows when it is made.
            for path in path.ancestors() {
                let Some(directory) = path.parent() else { break };
                match inotify.add_watch(directory, MASK | AddWatchFlags::IN_ONLYDIR) {
                    Ok(watch) => {
                        paths.push((watch, path.to_owned()));
                        break;
                    }
                    Err(nix::Error::ENOENT | nix::Error::ENOTDIR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        match inotify.add_watch(path, MASK) {
            Ok(_) | Err(nix::Error::ENOENT | nix::Error::ENOTDIR | nix::Error::ELOOP) => {}
            Err(error) => return Err(error.into()),
        }
        let ready = ReadyFd::new(inotify.as_fd().try_clone_to_owned()?)?;
        Ok(Self { inotify, ready, paths, is_written: false })
    }

    /// Waits until something happens to the file. Cancel safe.
    ///
    /// # Errors
    /// inotify failed.
    pub async fn event(&mut self) -> io::Result<()> {
        loop {
            let events = {
                let mut guard = self.ready.readable().await?;
                match self.inotify.read_events() {
                    Err(nix::Error::EAGAIN) => {
                        guard.clear_ready();
                        continue;
                    }
                    Err(nix::Error::EINTR) => continue,
                    events => events?,
                }
            };
            // All of them, because the last one says whether the file is being written.
            if events.iter().fold(false, |any, event| self.take(event) | any) {
                return Ok(());
            }
        }
    }

    /// Returns whether an event is about the file: in a directory only one path matters.
    fn take(&mut self, event: &InotifyEvent) -> bool {
        let created = event.mask.contains(AddWatchFlags::IN_CREATE);
        let mut is_begun = event.mask.contains(AddWatchFlags::IN_MODIFY);
        if let Some(name) = &event.name {
            let is_meant = |(watch, path): &&(WatchDescriptor, PathBuf)| {
                *watch == event.wd && path.file_name() == Some(name)
            };
            let Some((_, path)) = self.paths.iter().find(is_meant) else { return false };
            // A program that creates a file writes it next, and closes it then. A link is complete.
            is_begun |= created && !path.is_symlink() && !path.is_dir();
        }
        self.is_written = is_begun;
        true
    }

    /// Whether a program has begun to write and has not closed the file yet.
    pub fn is_written(&self) -> bool {
        self.is_written
    }
}

/// The path, and each path that a symbolic link leads to from there.
fn links(path: &Path) -> Vec<PathBuf> {
    let mut links = vec![path.to_owned()];
    while links.len() <= MAX_LINKS
        && let Some(last) = links.last()
        && let Ok(target) = fs::read_link(last)
    {
        let next = last.parent().unwrap_or(Path::new("/")).join(target);
        links.push(next);
    }
    links
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;
    use std::os::unix::fs::symlink;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    struct Fixture {
        directory: tempfile::TempDir,
        path: PathBuf,
    }

    impl Fixture {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("resolv.conf");
            Self { directory, path }
        }

        fn sibling(&self, name: &str) -> PathBuf {
            self.directory.path().join(name)
        }
    }

    async fn is_noticed(watch: &mut FileWatch) {
        timeout(Duration::from_secs(20), watch.event()).await.expect("an event").unwrap();
    }

    /// Fails if an event is there already.
    async fn is_quiet(watch: &mut FileWatch) {
        assert!(timeout(Duration::ZERO, watch.event()).await.is_err());
    }

    #[tokio::test]
    async fn a_file_that_is_written_in_place_or_replaced_or_removed_is_noticed() {
        let fixture = Fixture::new();
        let new = fixture.sibling("new");
        let mut watch = FileWatch::new(&fixture.path).unwrap();
        fs::write(&fixture.path, "created").unwrap();
        is_noticed(&mut watch).await;
        let changes: [(&str, &dyn Fn()); 3] = [
            ("written", &|| fs::write(&fixture.path, "written").unwrap()),
            ("replaced", &|| fs::rename(&new, &fixture.path).unwrap()),
            ("removed", &|| fs::remove_file(&fixture.path).unwrap()),
        ];
        fs::write(&new, "new").unwrap();
        for (_, change) in changes {
            let mut watch = FileWatch::new(&fixture.path).unwrap();
            is_quiet(&mut watch).await;
            change();
            is_noticed(&mut watch).await;
        }
    }

    #[tokio::test]
    async fn other_files_of_the_directory_and_readers_are_not_noticed() {
        let fixture = Fixture::new();
        fs::write(&fixture.path, "text").unwrap();
        let mut watch = FileWatch::new(&fixture.path).unwrap();
        fs::write(fixture.sibling("hosts"), "text").unwrap();
        fs::read(&fixture.path).unwrap();
        is_quiet(&mut watch).await;
    }

    #[tokio::test]
    async fn a_writer_is_known_until_it_closes_the_file() {
        let fixture = Fixture::new();
        let mut watch = FileWatch::new(&fixture.path).unwrap();
        let mut file = File::create(&fixture.path).unwrap();
        file.write_all(b"nameserver ").unwrap();
        is_noticed(&mut watch).await;
        assert!(watch.is_written());
        file.write_all(b"9.9.9.9\n").unwrap();
        is_noticed(&mut watch).await;
        assert!(watch.is_written());
        drop(file);
        is_noticed(&mut watch).await;
        assert!(!watch.is_written());
    }

    #[tokio::test]
    async fn links_and_what_they_lead_to_are_noticed() {
        let fixture = Fixture::new();
        fs::create_dir(fixture.sibling("run")).unwrap();
        let target = fixture.sibling("run/stub.conf");
        fs::write(&target, "text").unwrap();
        symlink("run/stub.conf", &fixture.path).unwrap();
        let mut watch = FileWatch::new(&fixture.path).unwrap();
        fs::write(&target, "in place").unwrap();
        is_noticed(&mut watch).await;
        let mut watch = FileWatch::new(&fixture.path).unwrap();
        fs::remove_file(&target).unwrap();
        is_noticed(&mut watch).await;
        let mut watch = FileWatch::new(&fixture.path).unwrap();
        fs::write(&target, "new").unwrap();
        is_noticed(&mut watch).await;
        let mut watch = FileWatch::new(&fixture.path).unwrap();
        fs::remove_file(&fixture.path).unwrap();
        is_noticed(&mut watch).await;
        // The directory of the target is removed and made again.
        symlink("run/stub.conf", &fixture.path).unwrap();
        let mut watch = FileWatch::new(&fixture.path).unwrap();
        fs::remove_dir_all(fixture.sibling("run")).unwrap();
        is_noticed(&mut watch).await;
        for made in ["run", "run/deeper"] {
            let mut watch = FileWatch::new(&fixture.path).unwrap();
            fs::create_dir(fixture.sibling(made)).unwrap();
            is_noticed(&mut watch).await;
            assert!(!watch.is_written());
            fs::remove_file(&fixture.path).unwrap();
            symlink("run/deeper/stub.conf", &fixture.path).unwrap();
        }
        let mut watch = FileWatch::new(&fixture.path).unwrap();
        fs::write(fixture.sibling("run/deeper/stub.conf"), "new").unwrap();
        is_noticed(&mut watch).await;
        // A link into nowhere, and one to itself.
        for target in ["/nonexistent/gh-net/resolv.conf", "resolv.conf"] {
            let _ = fs::remove_file(&fixture.path);
            symlink(target, &fixture.path).unwrap();
            let mut watch = FileWatch::new(&fixture.path).unwrap();
            fs::remove_file(&fixture.path).unwrap();
            is_noticed(&mut watch).await;
        }
    }
}
