use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};

use super::*;
use crate::names::resolv::file;

/// Some other user.
const USER: u32 = 54_321;

/// A directory with resolv.conf, a link to `target`.
fn linked(target: &str) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("resolv.conf");
    symlink(target, &path).unwrap();
    (directory, path)
}

/// Whether this test may give files away.
fn is_root() -> bool {
    geteuid().is_root() && {
        let (directory, path) = linked("file");
        fs::write(directory.path().join("file"), "").unwrap();
        chown(&path, Some(USER), None).is_ok()
    }
}

fn refusal(path: &Path) -> &'static str {
    match file::read(path) {
        Err(Error::Untrusted { why, .. }) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn links_are_followed_as_the_kernel_does() {
    let (directory, path) = linked("a/../b/./c");
    let inner = directory.path().join("b");
    fs::create_dir(directory.path().join("a")).unwrap();
    fs::create_dir(&inner).unwrap();
    symlink(directory.path().join("a/file"), inner.join("c")).unwrap();
    assert_eq!(file::read(&path).unwrap(), None);
    fs::write(&path, "text").unwrap();
    assert_eq!(fs::read(directory.path().join("a/file")).unwrap(), b"text");
    assert_eq!(file::read(&path).unwrap().unwrap(), b"text");
    assert_eq!(Place::find(&path).unwrap().path, fs::canonicalize(&path).unwrap());
    let (_directory, circle) = linked("resolv.conf");
    assert!(matches!(file::read(&circle), Err(Error::NotAFile { .. })));
}

#[test]
fn in_another_users_directory_only_its_own_plain_file_is_used() {
    if !is_root() {
        return;
    }
    let (directory, path) = linked("theirs/stub.conf");
    let (theirs, roots) = (directory.path().join("theirs"), directory.path().join("roots"));
    fs::write(&roots, "secret").unwrap();
    fs::create_dir(&theirs).unwrap();
    chown(&theirs, Some(USER), None).unwrap();
    let stub = theirs.join("stub.conf");
    assert_eq!(refusal(&path), "does not exist, in a directory that is not root's");
    fs::write(&stub, "text").unwrap();
    assert_eq!(refusal(&path), "belongs to another user than its directory");
    chown(&stub, Some(USER), None).unwrap();
    assert_eq!(file::read(&path).unwrap().unwrap(), b"text");
    fs::hard_link(&stub, theirs.join("second")).unwrap();
    assert_eq!(refusal(&path), "has a second name");
    fs::remove_file(&stub).unwrap();
    symlink(&roots, &stub).unwrap();
    assert_eq!(refusal(&path), "is a link that another user than root may have made");
}

#[test]
fn in_a_directory_that_everybody_may_write_only_roots_plain_file_is_used() {
    if !is_root() {
        return;
    }
    let (directory, path) = linked("shared/resolv.conf");
    let shared = directory.path().join("shared");
    fs::create_dir(&shared).unwrap();
    fs::set_permissions(&shared, Permissions::from_mode(0o1777)).unwrap();
    let file = shared.join("resolv.conf");
    fs::write(&file, "text").unwrap();
    assert_eq!(file::read(&path).unwrap().unwrap(), b"text");
    chown(&file, Some(USER), None).unwrap();
    assert_eq!(refusal(&path), "belongs to a user in a directory that everybody may write");
    fs::remove_file(&file).unwrap();
    symlink("/etc/hostname", &file).unwrap();
    assert_eq!(refusal(&path), "is a link that another user than root may have made");
}

#[test]
fn a_users_link_is_not_followed_even_in_roots_directory() {
    if !is_root() {
        return;
    }
    let (directory, path) = linked("file");
    fs::write(directory.path().join("file"), "text").unwrap();
    assert!(file::read(&path).is_ok());
    std::os::unix::fs::lchown(&path, Some(USER), None).unwrap();
    assert_eq!(refusal(&path), "is a link that another user than root may have made");
}
