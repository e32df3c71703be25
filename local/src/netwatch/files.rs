//! Noticing changes of files by inotify(7). It takes no privilege.
//!
//! A file is written in place, replaced by a rename, or is a symbolic link whose target is replaced. So its own inode is
//! watched, its directory, and that of its target; after each event again, because they may be others by then. An event
//! about another file of these directories does no harm.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;

/// Room for several events with names of the maximum length.
const BUFFER: usize = 4096;

/// Watches files.
#[derive(Debug)]
pub(super) struct Files {
    inotify: AsyncFd<OwnedFd>,
    paths: Vec<PathBuf>,
}

impl Files {
    /// Begins to watch, within a tokio runtime. Missing files are noticed when they appear.
    ///
    /// # Errors
    /// The kernel provides no inotify instance.
    pub(super) fn new(paths: Vec<PathBuf>) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        // SAFETY: an `OwnedFd` is the same open descriptor for as long as it lives.
        let inotify = unsafe { AsyncFd::register(inotify) }?;
        let files = Self { inotify, paths };
        files.watch();
        Ok(files)
    }

    fn watch(&self) {
        let written = WatchFlags::MODIFY | WatchFlags::CLOSE_WRITE | WatchFlags::ATTRIB;
        let replaced = WatchFlags::CLOSE_WRITE
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO;
        let add = |path: &std::path::Path, flags| {
            if let Err(error) = inotify::add_watch(self.inotify.get_ref(), path, flags) {
                tracing::debug!(%error, path = %path.display(), "can't watch a file");
            }
        };
        for path in &self.paths {
            add(path, written);
            let target = path.canonicalize().unwrap_or_default();
            path.parent().into_iter().chain(target.parent()).for_each(|folder| add(folder, replaced));
        }
    }

    /// Waits for an event. Cancel safe.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) async fn event(&self) -> io::Result<()> {
        loop {
            let mut guard = self.inotify.readable().await?;
            let mut seen = false;
            loop {
                match rustix::io::read(self.inotify.get_ref(), &mut [0; BUFFER]) {
                    Ok(_) => seen = true,
                    Err(Errno::AGAIN) => break,
                    Err(Errno::INTR) => {}
                    Err(errno) => return Err(errno.into()),
                }
            }
            guard.clear_ready();
            if seen {
                self.watch();
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    /// Whether there is an event soon after `change`.
    async fn noticed(files: &Files, change: impl FnOnce()) -> bool {
        // Events of the preparation.
        while timeout(Duration::from_millis(20), files.event()).await.is_ok() {}
        change();
        timeout(Duration::from_secs(10), files.event()).await.is_ok_and(|event| event.is_ok())
    }

    #[tokio::test]
    async fn each_way_to_change_a_file_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("etc")).unwrap();
        fs::create_dir(at("run")).unwrap();
        let (file, target) = (at("etc/resolv.conf"), at("run/resolv.conf"));
        let files = Files::new(vec![file.clone()]).unwrap();
        assert!(noticed(&files, || fs::write(&file, "created").unwrap()).await);
        assert!(noticed(&files, || fs::write(&file, "written in place").unwrap()).await);
        fs::write(at("etc/new"), "new").unwrap();
        assert!(noticed(&files, || fs::rename(at("etc/new"), &file).unwrap()).await);
        assert!(noticed(&files, || fs::write(&file, "the new one").unwrap()).await);
        fs::write(&target, "target").unwrap();
        symlink(&target, at("etc/link")).unwrap();
        assert!(noticed(&files, || fs::rename(at("etc/link"), &file).unwrap()).await);
        assert!(noticed(&files, || fs::write(&target, "written in place").unwrap()).await);
        fs::write(at("run/new"), "new").unwrap();
        assert!(noticed(&files, || fs::rename(at("run/new"), &target).unwrap()).await);
        assert!(noticed(&files, || fs::remove_file(&target).unwrap()).await);
    }
}
