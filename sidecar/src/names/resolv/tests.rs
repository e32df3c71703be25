use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::pace::MAX_SET_AGAIN;
use super::*;

const ORIGINAL: &[u8] = b"# caf\xe9\nnameserver 168.63.129.16\nsearch cloudapp.net\noptions edns0";

struct Fixture {
    _directory: tempfile::TempDir,
    path: PathBuf,
}

/// The hook, and the original in its journal.
struct Hooked<'a> {
    fixture: &'a Fixture,
    hook: Hook,
    journalled: Option<Vec<u8>>,
    /// Every file that has to be restored, and its original.
    files: std::collections::BTreeMap<PathBuf, Option<Vec<u8>>>,
}

impl Hooked<'_> {
    /// Lets the hook look at the file, as the watch does, at this time.
    fn follow_at(&mut self, now: Instant) -> Result<Followed, Error> {
        let path = &self.fixture.path;
        let before = fs::read(path).ok();
        let (journalled, files) = (&mut self.journalled, &mut self.files);
        let step = |step| {
            assert_eq!(fs::read(path).ok(), before, "the journal comes first");
            match step {
                Step::Record(Change::ResolvConf { target: Some(target), original, .. }) => {
                    files.insert(target, original.clone());
                    *journalled = original;
                }
                Step::Forget(target) => drop(files.remove(&target)),
                Step::Record(other) => panic!("{other:?}"),
            }
            Ok(())
        };
        self.hook.follow_at(step, now)
    }

    fn follow(&mut self) -> Followed {
        self.follow_at(Instant::now()).unwrap()
    }

    /// What undoing the journal leaves.
    fn undone(&self) -> Option<Vec<u8>> {
        for _ in 0..2 {
            restore(&self.fixture.path, self.journalled.as_deref(), &[ours()]).unwrap();
        }
        fs::read(&self.fixture.path).ok()
    }

    fn is_hooked(&self) -> bool {
        self.fixture.text().contains("\nnameserver 10.97.0.1\n") && self.hook.is_set()
    }
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

    fn hooked(&self) -> Hooked<'_> {
        let (hook, journalled) = self.install().unwrap();
        let files = [(hook.target.clone(), journalled.clone())].into();
        Hooked { fixture: self, hook, journalled, files }
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
        restore(&fixture.path, original.as_deref(), &[ours()]).unwrap();
        assert_eq!(fs::read(&fixture.path).unwrap(), ORIGINAL);
    }
}

#[test]
fn updates_replace_the_search_list() {
    let fixture = Fixture::new(Some(ORIGINAL));
    let mut hooked = fixture.hooked();
    for (search, line) in [(&["lan"][..], "\nsearch cloudapp.net lan\n"), (&[], "\nsearch cloudapp.net\n")] {
        hooked.hook.search = search.iter().map(ToString::to_string).collect();
        assert_eq!(hooked.follow(), Followed::Unchanged);
        assert!(fixture.text().contains(line), "{}", fixture.text());
    }
    assert_eq!(hooked.undone().unwrap(), ORIGINAL);
}

#[test]
fn a_file_that_did_not_exist_is_removed_again() {
    let fixture = Fixture::new(None);
    let (_, original) = fixture.install().unwrap();
    assert_eq!(original, None);
    assert!(nameservers_in(&fixture.path).is_empty());
    for _ in 0..2 {
        restore(&fixture.path, original.as_deref(), &[ours()]).unwrap();
        assert!(!fixture.path.exists());
    }
}

#[test]
fn what_another_program_wrote_at_last_is_kept() {
    let fixture = Fixture::new(Some(ORIGINAL));
    let hooked = fixture.hooked();
    fs::write(&fixture.path, "nameserver 9.9.9.9\n").unwrap();
    assert_eq!(hooked.undone().unwrap(), b"nameserver 9.9.9.9\n");
}

#[test]
fn what_another_program_writes_becomes_the_original() {
    let theirs = b"# Generated by NetworkManager\nnameserver 9.9.9.9\nsearch theirs.example\n";
    for by_rename in [false, true] {
        let fixture = Fixture::new(Some(ORIGINAL));
        let mut hooked = fixture.hooked();
        assert_eq!(hooked.follow(), Followed::Unchanged, "our own text");
        if by_rename {
            let new = fixture.path.with_extension("new");
            fs::write(&new, theirs).unwrap();
            fs::rename(&new, &fixture.path).unwrap();
        } else {
            fs::write(&fixture.path, theirs).unwrap();
        }
        assert_eq!(hooked.follow(), Followed::SetAgain(Some("Generated by NetworkManager".to_owned())));
        assert!(hooked.is_hooked() && fixture.text().contains("\nsearch theirs.example corp.example\n"));
        assert_eq!(nameservers_in(&fixture.path), ["9.9.9.9".parse::<IpAddr>().unwrap()]);
        assert_eq!(hooked.follow(), Followed::Unchanged);
        assert_eq!(hooked.undone().unwrap(), theirs);
    }
}

#[test]
fn a_file_that_is_deleted_or_emptied_is_set_again_and_is_so_at_the_end() {
    let fixture = Fixture::new(Some(ORIGINAL));
    let mut hooked = fixture.hooked();
    fs::remove_file(&fixture.path).unwrap();
    assert_eq!(hooked.follow(), Followed::SetAgain(None));
    assert!(hooked.is_hooked());
    assert_eq!(fs::metadata(&fixture.path).unwrap().permissions().mode() & 0o777, 0o644);
    assert_eq!(hooked.undone(), None);

    let fixture = Fixture::new(Some(ORIGINAL));
    let mut hooked = fixture.hooked();
    fs::write(&fixture.path, "").unwrap();
    assert_eq!(hooked.follow(), Followed::SetAgain(None));
    assert!(hooked.is_hooked());
    assert_eq!(hooked.undone().unwrap(), b"");
}

#[test]
fn a_file_with_only_our_nameserver_is_no_original() {
    let fixture = Fixture::new(Some(ORIGINAL));
    let mut hooked = fixture.hooked();
    let derived = "# by resolvconf\nnameserver 10.97.0.1\nsearch corp.example\n";
    fs::write(&fixture.path, derived).unwrap();
    assert_eq!(hooked.follow(), Followed::SetAgain(Some("by resolvconf".to_owned())));
    assert_eq!(hooked.journalled.as_deref(), Some(ORIGINAL));
    // Also if it is written so late that nobody looks any more.
    fs::write(&fixture.path, derived).unwrap();
    assert_eq!(hooked.undone().unwrap(), ORIGINAL);
}

#[test]
fn lines_that_are_appended_belong_to_the_original() {
    let fixture = Fixture::new(Some(ORIGINAL));
    let mut hooked = fixture.hooked();
    let append = |text: &str| {
        OpenOptions::new().append(true).open(&fixture.path).unwrap().write_all(text.as_bytes()).unwrap();
    };
    append("nameserver 9.9.9.9\n");
    assert_eq!(hooked.follow(), Followed::SetAgain(None));
    assert!(hooked.is_hooked() && !fixture.text().contains("\nnameserver 9.9.9.9"));
    append("options rotate\n");
    let wanted = [ORIGINAL, b"\nnameserver 9.9.9.9\noptions rotate\n"].concat();
    assert_eq!(hooked.undone().unwrap(), wanted);
}

#[test]
fn a_program_that_insists_is_left_alone() {
    let fixture = Fixture::new(Some(ORIGINAL));
    let mut hooked = fixture.hooked();
    let start = Instant::now();
    for number in 0..=MAX_SET_AGAIN {
        fs::write(&fixture.path, format!("# guard\nnameserver 9.9.9.{number}\n")).unwrap();
        let followed = hooked.follow_at(start + Duration::from_secs(number as u64)).unwrap();
        let comment = Some("guard".to_owned());
        match number {
            MAX_SET_AGAIN => assert_eq!(followed, Followed::LeftAlone(comment)),
            _ => assert_eq!(followed, Followed::SetAgain(comment)),
        }
    }
    // As long as it writes, and whatever the laptop asks for.
    hooked.hook.search.clear();
    let mut now = start;
    for number in 0..3 {
        fs::write(&fixture.path, format!("nameserver 8.8.8.{number}\n")).unwrap();
        now += WINDOW - Duration::from_secs(1);
        assert_eq!(hooked.follow_at(now).unwrap(), Followed::Later(WINDOW));
        assert!(!hooked.is_hooked());
    }
    assert_eq!(hooked.undone().unwrap(), b"nameserver 8.8.8.2\n");
    assert_eq!(hooked.follow_at(now + WINDOW / 2).unwrap(), Followed::Later(WINDOW / 2));
    assert_eq!(hooked.follow_at(now + WINDOW).unwrap(), Followed::SetAgain(None), "it is quiet");
    assert!(hooked.is_hooked());
    assert_eq!(hooked.undone().unwrap(), b"nameserver 8.8.8.2\n");
}

#[test]
fn a_program_that_is_left_alone_is_not_with_the_next_link() {
    let fixture = Fixture::new(Some(ORIGINAL));
    let mut hooked = fixture.hooked();
    for number in 0..=MAX_SET_AGAIN {
        fs::write(&fixture.path, format!("nameserver 9.9.9.{number}\n")).unwrap();
        hooked.follow();
    }
    assert!(!hooked.is_hooked());
    hooked.hook.begin_anew();
    assert_eq!(hooked.follow(), Followed::SetAgain(None));
    assert!(hooked.is_hooked());
}

#[test]
fn the_same_text_again_and_again_is_waited_for() {
    let fixture = Fixture::new(Some(ORIGINAL));
    let mut hooked = fixture.hooked();
    let start = Instant::now();
    let followed = [0, 500, 1000, 1500, 3000, 6000].map(|milliseconds| {
        fs::write(&fixture.path, ORIGINAL).unwrap();
        hooked.follow_at(start + Duration::from_millis(milliseconds)).unwrap()
    });
    let again = || Followed::SetAgain(Some("caf\u{fffd}".to_owned()));
    let later = |milliseconds| Followed::Later(Duration::from_millis(milliseconds));
    assert_eq!(followed, [again(), later(500), again(), later(4500), later(3000), again()]);
    assert!(hooked.is_hooked());
    assert_eq!(hooked.undone().unwrap(), ORIGINAL);
}

#[test]
fn a_program_that_writes_now_and_then_is_followed_for_ever() {
    let fixture = Fixture::new(Some(ORIGINAL));
    let mut hooked = fixture.hooked();
    let start = Instant::now();
    for number in 0..20 {
        fs::write(&fixture.path, format!("nameserver 9.9.9.{number}\n")).unwrap();
        let now = start + number * WINDOW / 4;
        assert_eq!(hooked.follow_at(now).unwrap(), Followed::SetAgain(None), "{number}");
    }
    assert_eq!(hooked.undone().unwrap(), b"nameserver 9.9.9.19\n");
}

#[test]
fn a_journal_that_fails_leaves_the_other_programs_content() {
    let fixture = Fixture::new(Some(ORIGINAL));
    let mut hooked = fixture.hooked();
    fs::write(&fixture.path, "nameserver 9.9.9.9\n").unwrap();
    let full = |_| Err(io::Error::other("disk full"));
    // However often it is tried: that is no fight with another program.
    for _ in 0..10 {
        assert!(matches!(hooked.hook.follow_at(full, Instant::now()), Err(Error::Journal { .. })));
    }
    assert!(!hooked.hook.is_set());
    assert_eq!(fixture.text(), "nameserver 9.9.9.9\n");
    assert_eq!(hooked.follow(), Followed::SetAgain(None), "the next time");
    assert_eq!(hooked.undone().unwrap(), b"nameserver 9.9.9.9\n");
}

#[test]
fn when_a_link_leads_elsewhere_the_file_it_led_to_is_restored() {
    let fixture = Fixture::new(None);
    let (old, new) = (fixture.path.with_file_name("stub.conf"), fixture.path.with_file_name("new.conf"));
    fs::write(&old, ORIGINAL).unwrap();
    fs::write(&new, "nameserver 9.9.9.9\n").unwrap();
    symlink("stub.conf", &fixture.path).unwrap();
    let mut hooked = fixture.hooked();
    fs::remove_file(&fixture.path).unwrap();
    symlink("new.conf", &fixture.path).unwrap();
    assert_eq!(hooked.follow(), Followed::SetAgain(None));
    assert_eq!(fs::read(&old).unwrap(), ORIGINAL);
    assert!(hooked.is_hooked() && fs::read_to_string(&new).unwrap().contains("nameserver 10.97.0.1"));
    assert_eq!(hooked.undone().unwrap(), b"nameserver 9.9.9.9\n");
    assert_eq!(fs::read_link(&fixture.path).unwrap(), Path::new("new.conf"));
}

#[test]
fn files_are_in_the_journal_until_they_are_restored() {
    let fixture = Fixture::new(None);
    let (old, new) = (fixture.path.with_file_name("stub.conf"), fixture.path.with_file_name("new.conf"));
    fs::write(&old, ORIGINAL).unwrap();
    symlink("stub.conf", &fixture.path).unwrap();
    let mut hooked = fixture.hooked();
    assert_eq!(hooked.files, [(fs::canonicalize(&old).unwrap(), Some(ORIGINAL.to_vec()))].into());
    // Another program makes its file of ours.
    fs::copy(&old, &new).unwrap();
    fs::remove_file(&fixture.path).unwrap();
    symlink("new.conf", &fixture.path).unwrap();
    assert_eq!(hooked.follow(), Followed::SetAgain(None));
    assert_eq!(fs::read(&old).unwrap(), ORIGINAL);
    assert_eq!(hooked.files, [(fs::canonicalize(&new).unwrap(), Some(ORIGINAL.to_vec()))].into());
    assert_eq!(hooked.undone().unwrap(), ORIGINAL);
}

#[test]
fn a_text_of_ours_is_never_followed_by_a_part_of_an_earlier_one() {
    let fixture = Fixture::new(Some(ORIGINAL));
    let mut hooked = fixture.hooked();
    let long = fixture.text();
    hooked.hook.search.clear();
    assert_eq!(hooked.follow(), Followed::Unchanged);
    let short = fixture.text();
    assert_eq!(short.len(), long.len(), "in one piece, and not truncated");
    assert!(!short.contains("corp.example") && short.ends_with("\n\n\n# End of what gh-net wrote.\n"));
    assert_eq!(hooked.follow(), Followed::Unchanged, "as written");
    assert_eq!(hooked.undone().unwrap(), ORIGINAL);
    // What an earlier version left, killed before it truncated.
    fs::write(&fixture.path, format!("{}{}", short.replace("\n\n", ""), &long[long.len() - 60..])).unwrap();
    assert_eq!(hooked.undone().unwrap(), ORIGINAL);
}

#[test]
fn when_a_link_is_removed_the_file_it_led_to_is_restored() {
    let fixture = Fixture::new(None);
    let target = fixture.path.with_file_name("stub.conf");
    fs::write(&target, ORIGINAL).unwrap();
    symlink("stub.conf", &fixture.path).unwrap();
    let mut hooked = fixture.hooked();
    fs::remove_file(&fixture.path).unwrap();
    assert_eq!(hooked.follow(), Followed::SetAgain(None));
    assert_eq!(fs::read(&target).unwrap(), ORIGINAL);
    assert!(hooked.is_hooked());
    assert_eq!(hooked.undone(), None);
}

#[test]
fn an_original_of_the_largest_size_is_restored() {
    let original = b"\n".repeat(MAX_SIZE);
    let fixture = Fixture::new(Some(&original));
    let mut hooked = fixture.hooked();
    assert_eq!(hooked.follow(), Followed::Unchanged);
    assert_eq!(hooked.undone().unwrap(), original);
}

#[test]
fn an_interrupted_restore_is_completed_by_the_next() {
    let fixture = Fixture::new(Some(ORIGINAL));
    let (_, original) = fixture.install().unwrap();
    let mut file = OpenOptions::new().write(true).open(&fixture.path).unwrap();
    file.write_all(ORIGINAL).unwrap();
    restore(&fixture.path, original.as_deref(), &[ours()]).unwrap();
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
    restore(&fixture.path, original.as_deref(), &[ours()]).unwrap();
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
