//! The file that resolv.conf leads to, and how it is written.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Maximum number of symbolic links that are followed, as the kernel's.
const MAX_LINKS: usize = 40;

/// The file that the path leads to, also if it does not exist yet.
pub(super) fn target_of(path: &Path) -> PathBuf {
    let mut target = path.to_owned();
    for _ in 0..MAX_LINKS {
        if let Ok(found) = fs::canonicalize(&target) {
            return found;
        }
        let Ok(link) = fs::read_link(&target) else { break };
        target = target.parent().unwrap_or(Path::new("/")).join(link);
    }
    match (target.parent().map(fs::canonicalize), target.file_name()) {
        (Some(Ok(directory)), Some(name)) => directory.join(name),
        _ => target,
    }
}

/// Writes what `contents` says for a file of this length, in one piece: it must not be shorter, so that a kill leaves no
/// half. A file longer than `most` is none that we write. Returns what is written.
pub(super) fn write_over(
    path: &Path,
    most: usize,
    contents: impl FnOnce(usize) -> Vec<u8>,
) -> io::Result<Vec<u8>> {
    let mut file = match OpenOptions::new().write(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
            // Every program reads it, and our umask keeps others from reading what we create.
            file.set_permissions(fs::Permissions::from_mode(0o644))?;
            file
        }
        file => file?,
    };
    let length = usize::try_from(file.metadata()?.len()).unwrap_or(most).min(most);
    let contents = contents(length);
    file.write_all(&contents)?;
    Ok(contents)
}
