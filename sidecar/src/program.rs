//! This program's own path.

use std::path::{Path, PathBuf};

/// What a person types to run this program: its absolute path, because gh-net copies it to a place outside PATH.
pub(crate) fn command() -> String {
    /// musl skips lines of resolv.conf of 256 bytes or more, including comments.
    const LONGEST: usize = 200;
    let path = std::env::current_exe().ok().and_then(|path| path.into_os_string().into_string().ok());
    let plain = |path: &String| path.len() <= LONGEST && path.chars().all(|c| c.is_ascii_graphic());
    path.filter(plain).unwrap_or_else(|| "gh-net-sidecar".to_owned())
}

/// The running program, even if its file was replaced since; without /proc, the file it was started from.
pub(crate) fn running() -> PathBuf {
    let running = Path::new("/proc/self/exe");
    if running.exists() {
        return running.to_owned();
    }
    std::env::args_os().next().map_or_else(|| PathBuf::from("gh-net-sidecar"), PathBuf::from)
}
