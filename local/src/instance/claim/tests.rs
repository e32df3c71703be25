use std::io::{BufRead, BufReader};
use std::process::Stdio;

use super::*;

fn claim(folder: &Path, name: &str) -> Result<Claim, ClaimError> {
    Claim::new_in(&[folder.to_owned()], &Endpoint::of("ssh", [name]), name)
}

#[test]
fn targets_are_claimed_side_by_side_and_leave_nothing() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("gh-net");
    let one = claim(&folder, "one").unwrap();
    let other = claim(&folder, "other").unwrap();
    drop(one);
    let one = claim(&folder, "one").unwrap();
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 2);
    drop((one, other));
    assert!(!folder.exists());
}

#[test]
fn what_a_killed_process_has_left_is_no_obstacle() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("gh-net");
    let path = claim(&folder, "one").unwrap().path.clone();
    prepare(&folder).unwrap();
    fs::write(&path, "4711\n").unwrap();
    let _claim = claim(&folder, "one").unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
}

#[test]
fn words_are_told_apart() {
    let name = |words: &[&str]| file_names(&Endpoint::of("exec", words));
    assert_ne!(name(&["a", "bc"]), name(&["ab", "c"]));
    assert_ne!(name(&["a"]), file_names(&Endpoint::of("ssh", ["a"])));
    assert_eq!(name(&["a", "bc"]), name(&["a", "bc"]));
}

#[test]
fn the_remedy_names_the_process_and_never_one_that_is_not_known() {
    let error = |pid, foreign| ClaimError::Running { holder: Holder { pid, foreign }, target: "x".into() };
    assert_eq!(error(Some(7), false).to_string(), "process 7 already has a session with x");
    assert_eq!(error(Some(7), false).remedy().unwrap(), "End it with `gh-net stop 7`.");
    let foreign = error(Some(7), true);
    assert!(foreign.to_string().starts_with("process 7 of another container"), "{foreign}");
    assert_eq!(foreign.remedy().unwrap(), "End it with `gh-net stop 7`.");
    assert!(error(None, true).to_string().starts_with("a process of another container"));
    assert_eq!(error(None, true).remedy(), None);
}

#[test]
fn the_holder_in_another_pid_namespace_is_read_from_the_file() {
    let file = |content: &str| {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content.as_bytes()).unwrap();
        io::Seek::rewind(&mut file).unwrap();
        file
    };
    assert_eq!(Holder::of(0, &file("12\n")), Holder { pid: Some(12), foreign: true });
    for nonsense in ["", "0\n", "-1\n", "self\n"] {
        assert_eq!(Holder::of(0, &file(nonsense)), Holder { pid: None, foreign: true });
    }
    assert_eq!(Holder::of(7, &file("12\n")), Holder { pid: Some(7), foreign: false });
}

#[test]
fn the_file_of_another_process_stays() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("gh-net");
    let claim = claim(&folder, "one").unwrap();
    let path = claim.path.clone();
    // Something cleans the folder, and another process claims the target.
    fs::remove_file(&path).unwrap();
    fs::write(&path, "another\n").unwrap();
    drop(claim);
    assert_eq!(fs::read_to_string(&path).unwrap(), "another\n");
}

const LOCKED: &str = "GH_NET_TEST_LOCKED";

#[test]
#[ignore = "it is the other process of other tests"]
fn other() {
    let Some(path) = std::env::var_os(LOCKED) else { return };
    let file = File::create(path).unwrap();
    assert!(lock(&file).unwrap().is_none());
    io::stdout().write_all(b"locked\n").unwrap();
    let _ = io::stdin().read(&mut [0]);
}

/// Another process that holds the lock of a claim.
struct Other(std::process::Child);

impl Other {
    fn claim(path: &Path) -> Self {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "--ignored", "--nocapture", "instance::claim::tests::other"]);
        command.env(LOCKED, path).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().ends_with("locked")));
        Self(child)
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).unwrap()
    }

    fn suspend(&self) {
        let pid = nix::unistd::Pid::from_raw(self.pid());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
        let status = nix::sys::wait::waitpid(pid, Some(nix::sys::wait::WaitPidFlag::WUNTRACED));
        assert!(matches!(status, Ok(nix::sys::wait::WaitStatus::Stopped(..))), "{status:?}");
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn refuses(claimed: Result<Claim, ClaimError>, by: &Other) {
    match claimed {
        Err(ClaimError::Running { holder, .. }) => {
            assert_eq!(holder, Holder { pid: Some(by.pid()), foreign: false });
        }
        Ok(_) | Err(ClaimError::Folder(_)) => panic!("{claimed:?}"),
    }
}

#[test]
fn who_took_a_suspended_session_over_keeps_it() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("gh-net");
    prepare(&folder).unwrap();
    let names = file_names(&Endpoint::of("ssh", ["one"]));
    let first = Other::claim(&folder.join(&names[0]));
    refuses(claim(&folder, "one"), &first);
    first.suspend();
    let second = claim(&folder, "one").unwrap();
    assert_eq!(second.suspended().map(|holder| holder.pid), Some(Some(first.pid())));
    assert_eq!(second.path, folder.join(&names[1]));
    drop(second);
    // A third one is refused, whether the first one is there or not, and leaves the second one's lock alone.
    let second = Other::claim(&folder.join(&names[1]));
    refuses(claim(&folder, "one"), &second);
    drop(first);
    refuses(claim(&folder, "one"), &second);
    refuses(claim(&folder, "one"), &second);
}

#[test]
fn a_claim_in_another_folder_counts() {
    let parent = tempfile::tempdir().unwrap();
    let [one, two] = ["one", "two"].map(|name| parent.path().join(name));
    prepare(&two).unwrap();
    let endpoint = Endpoint::of("ssh", ["x"]);
    let other = Other::claim(&two.join(&file_names(&endpoint)[0]));
    let folders = [one, two];
    refuses(Claim::new_in(&folders, &endpoint, "x"), &other);
    drop(other);
    let _claim = Claim::new_in(&folders, &endpoint, "x").unwrap();
}

#[test]
fn what_killed_processes_have_left_is_removed_and_claims_are_not() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("gh-net");
    prepare(&folder).unwrap();
    let [left, held, socket] = ["a.lock", "b.lock", "c.sock"].map(|name| folder.join(name));
    fs::write(&left, "7\n").unwrap();
    fs::write(&socket, "").unwrap();
    let other = Other::claim(&held);
    sweep(&folder);
    assert!(!left.exists() && held.exists() && socket.exists());
    drop(other);
    sweep(&folder);
    assert!(!held.exists());
}

#[test]
fn a_suspended_process_is_recognised() {
    let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    let pid = i32::try_from(child.id()).unwrap();
    assert!(!is_suspended(pid));
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGSTOP).unwrap();
    let status = nix::sys::wait::waitpid(
        nix::unistd::Pid::from_raw(pid),
        Some(nix::sys::wait::WaitPidFlag::WUNTRACED),
    );
    assert!(matches!(status, Ok(nix::sys::wait::WaitStatus::Stopped(..))), "{status:?}");
    assert!(is_suspended(pid));
    child.kill().unwrap();
    child.wait().unwrap();
}
