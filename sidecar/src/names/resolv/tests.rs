use std::os::unix::fs::symlink;

use super::*;

const ORIGINAL: &[u8] = b"# caf\xe9\nnameserver 168.63.129.16\nsearch cloudapp.net\noptions edns0";

struct Fixture {
    _directory: tempfile::TempDir,
    path: PathBuf,
}

impl Fixture {
    fn new(original: Option<&[u8]>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("resolv.conf");
        if let Some(original) = original {
            fs::write(&path, original).unwrap();
        }
        Self { _directory: directory, path }
    }

    fn install(&self) -> Result<(Hook, Option<Vec<u8>>), Error> {
        let mut journalled = None;
        let before = fs::read(&self.path).ok();
        let record = |change| {
            assert_eq!(fs::read(&self.path).ok(), before, "the journal comes first");
            if let Change::ResolvConf { original, .. } = change {
                journalled = Some(original);
            }
            Ok(())
        };
        let hook = Hook::install_at(&self.path, record, &[ours()], &["corp.example".to_owned()])?;
        Ok((hook, journalled.unwrap()))
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.path).unwrap()).into_owned()
    }
}

fn ours() -> IpAddr {
    "10.97.0.1".parse().unwrap()
}

#[test]
fn installed_and_restored_byte_for_byte() {
    let fixture = Fixture::new(Some(ORIGINAL));
    let (_, original) = fixture.install().unwrap();
    assert!(fixture.text().contains("\nnameserver 10.97.0.1\nsearch cloudapp.net corp.example\n"));
    assert_eq!(nameservers_in(&fixture.path), ["168.63.129.16".parse::<IpAddr>().unwrap()]);
    for _ in 0..2 {
        restore(&fixture.path, &original).unwrap();
        assert_eq!(fs::read(&fixture.path).unwrap(), ORIGINAL);
    }
}

#[test]
fn updates_replace_the_search_list() {
    let fixture = Fixture::new(Some(ORIGINAL));
    let (hook, original) = fixture.install().unwrap();
    hook.update(&[ours()], &["lan".to_owned()]).unwrap();
    assert!(fixture.text().contains("\nsearch cloudapp.net lan\n"));
    hook.update(&[ours()], &[]).unwrap();
    assert!(fixture.text().contains("\nsearch cloudapp.net\n"));
    restore(&fixture.path, &original).unwrap();
    assert_eq!(fs::read(&fixture.path).unwrap(), ORIGINAL);
}

#[test]
fn a_file_that_did_not_exist_is_removed_again() {
    let fixture = Fixture::new(None);
    let (_, original) = fixture.install().unwrap();
    assert_eq!(original, None);
    assert!(nameservers_in(&fixture.path).is_empty());
    for _ in 0..2 {
        restore(&fixture.path, &original).unwrap();
        assert!(!fixture.path.exists());
    }
}

#[test]
fn what_another_program_wrote_is_kept() {
    let fixture = Fixture::new(Some(ORIGINAL));
    let (hook, original) = fixture.install().unwrap();
    fs::write(&fixture.path, "nameserver 9.9.9.9\n").unwrap();
    assert!(matches!(hook.update(&[ours()], &[]), Err(Error::Replaced { .. })));
    restore(&fixture.path, &original).unwrap();
    assert_eq!(fixture.text(), "nameserver 9.9.9.9\n");
}

#[test]
fn an_interrupted_restore_is_completed_by_the_next() {
    let fixture = Fixture::new(Some(ORIGINAL));
    let (_, original) = fixture.install().unwrap();
    let mut file = OpenOptions::new().write(true).open(&fixture.path).unwrap();
    file.write_all(ORIGINAL).unwrap();
    restore(&fixture.path, &original).unwrap();
    assert_eq!(fs::read(&fixture.path).unwrap(), ORIGINAL);
}

#[test]
fn a_left_over_file_of_ours_is_never_taken_for_the_original() {
    let fixture = Fixture::new(Some(b"nameserver 1.1.1.1\n"));
    fixture.install().unwrap();
    let (_, original) = fixture.install().unwrap();
    assert_eq!(original.as_deref(), Some(&b"nameserver 1.1.1.1\n"[..]));
}

#[test]
fn a_link_is_written_through() {
    let fixture = Fixture::new(None);
    let target = fixture.path.with_file_name("stub-resolv.conf");
    symlink("stub-resolv.conf", &fixture.path).unwrap();
    let (_, original) = fixture.install().unwrap();
    assert!(fs::read_to_string(&target).unwrap().contains("nameserver 10.97.0.1"));
    restore(&fixture.path, &original).unwrap();
    assert!(!target.exists());
    assert_eq!(fs::read_link(&fixture.path).unwrap(), Path::new("stub-resolv.conf"));
}

#[test]
fn unusable_files_are_named_and_not_journalled() {
    let fixture = Fixture::new(None);
    symlink("/nonexistent/gh-net/resolv.conf", &fixture.path).unwrap();
    let record = |_| panic!("nothing to journal");
    let error = Hook::install_at(&fixture.path, record, &[ours()], &[]).unwrap_err();
    assert!(matches!(error, Error::Dangling { .. }), "{error}");

    let directory = fixture.path.parent().unwrap();
    let error = Hook::install_at(directory, record, &[ours()], &[]).unwrap_err();
    assert!(error.to_string().contains("a directory"), "{error}");
}

#[test]
fn a_journal_that_fails_leaves_the_file_alone() {
    let fixture = Fixture::new(Some(ORIGINAL));
    let record = |_| Err(io::Error::other("disk full"));
    let error = Hook::install_at(&fixture.path, record, &[ours()], &[]).unwrap_err();
    assert!(matches!(error, Error::Journal { .. }));
    assert_eq!(fs::read(&fixture.path).unwrap(), ORIGINAL);
}
