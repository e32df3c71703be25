//! The program `gh-net`, run as a user would run it, without a terminal.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use crate::killed::wait_for;
use crate::sshd::Sshd;

thread_local! {
    /// Each test has its own: two sessions with one target exclude each other.
    static RUNTIME: TempDir = tempfile::tempdir().unwrap();
}

/// `gh-net` with a clean environment and no terminal.
pub(crate) fn gh_net() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gh-net"));
    command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", "/nonexistent").stdin(Stdio::null());
    RUNTIME.with(|runtime| command.env("XDG_RUNTIME_DIR", runtime.path()));
    command
}

/// The exit code and stderr of a run that is expected to fail.
pub(crate) fn failure<S: AsRef<OsStr>>(command: &mut Command, arguments: &[S]) -> (i32, String) {
    let Output { status, stderr, .. } = command.args(arguments).output().unwrap();
    (status.code().unwrap(), String::from_utf8(stderr).unwrap())
}

/// Writes a program in another process. If this one wrote it, a child that another thread starts meanwhile would inherit
/// the open file, and the program could not be run (ETXTBSY).
pub(crate) fn write_program(path: &Path, text: &str) {
    let mut writer = Command::new("sh");
    writer.args(["-c", r#"cat > "$0" && chmod 755 "$0""#]).arg(path).stdin(Stdio::piped());
    let mut writer = writer.spawn().unwrap();
    writer.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(writer.wait().unwrap().success());
}

/// `--ssh` arguments with these ssh options.
pub(crate) fn ssh_arguments(sshd: &Sshd, options: &[String]) -> Vec<String> {
    let options = options.iter().flat_map(|option| ["--ssh-option".to_owned(), option.clone()]);
    ["--ssh".to_owned(), sshd.destination()].into_iter().chain(options).collect()
}

#[test]
fn a_refused_login_shows_the_message_of_ssh_once_and_a_remedy() {
    let sshd = Sshd::start();
    let arguments = ssh_arguments(&sshd, &sshd.options_with("stranger", "known_hosts"));
    let (code, said) = failure(&mut gh_net(), &arguments);
    assert_eq!(code, 4, "{said}");
    assert_eq!(said.matches("Permission denied (publickey)").count(), 1, "{said}");
    assert!(said.starts_with("gh-net: ssh was denied access by "), "{said}");
    assert!(said.contains("ssh-add"), "{said}");
}

#[test]
fn an_unknown_host_key_is_not_accepted() {
    let sshd = Sshd::start();
    let arguments = ssh_arguments(&sshd, &sshd.options_with("user", "no_known_hosts"));
    let (code, said) = failure(&mut gh_net(), &arguments);
    assert_eq!(code, 3, "{said}");
    assert_eq!(said.matches("Host key verification failed").count(), 1, "{said}");
}

#[test]
fn a_closed_port_an_unknown_host_and_a_bad_option_have_different_errors() {
    for (arguments, code, words) in [
        (["--ssh", "127.0.0.1", "--ssh-option", "Port=1"], 3, "Connection refused"),
        (["--ssh", "no-such-host.invalid", "--ssh-option", "Port=1"], 3, "Could not resolve hostname"),
        (["--ssh", "127.0.0.1", "--ssh-option", "NoSuchOption=1"], 2, "Bad configuration option"),
    ] {
        let (status, said) = failure(&mut gh_net(), &arguments);
        assert_eq!(status, code, "{said}");
        assert_eq!(said.to_lowercase().matches(&words.to_lowercase()).count(), 1, "{said}");
    }
}

#[test]
fn a_server_that_is_not_an_ssh_server_is_reported() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = format!("Port={}", listener.local_addr().unwrap().port());
    let server = std::thread::spawn(move || {
        use std::io::Write;
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n").unwrap();
    });
    let (code, said) = failure(&mut gh_net(), &["--ssh", "127.0.0.1", "--ssh-option", &port]);
    server.join().unwrap();
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("kex_exchange_identification"), "{said}");
}

#[test]
fn the_output_of_what_is_not_a_sidecar_is_shown() {
    for (command, words) in [
        (
            "sh -c 'echo Segmentation fault; echo core dumped >&2; exit 139'",
            vec!["Segmentation fault", "core dumped", "139"],
        ),
        ("true", vec!["received nothing", "exit status 0"]),
        ("cat /dev/zero", vec!["does not speak the gh-net protocol"]),
    ] {
        let (code, said) = failure(&mut gh_net(), &["--exec", command]);
        assert_eq!(code, 5, "{said}");
        for words in words {
            assert!(said.contains(words), "{command}: {said}");
        }
    }
}

#[test]
fn a_missing_command_is_a_usage_error() {
    let (code, said) = failure(&mut gh_net(), &["--exec", "no-such-program attach"]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("\"no-such-program\" was not found"), "{said}");
}

#[test]
fn a_bad_value_is_a_usage_error_that_names_its_origin() {
    let (code, said) = failure(gh_net().env("GH_NET_ROUTE", "everything"), &["--exec", "true"]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("GH_NET_ROUTE: \"everything\""), "{said}");
    let (code, said) = failure(&mut gh_net(), &["--no-such-flag"]);
    assert_eq!(code, 2, "{said}");
}

#[test]
fn the_log_goes_to_the_named_file() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let arguments =
        ["--exec", "sh -c 'echo noted >&2'", "-t", "debug", "--trace-dest", log.to_str().unwrap()];
    let (code, said) = failure(gh_net().env("GH_NET_NOTHING", "1"), &arguments);
    assert_eq!(code, 5);
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("codespace: noted") && log.contains("GH_NET_NOTHING"), "{log}");
    assert!(said.contains("GH_NET_NOTHING") && !said.contains("codespace:"), "{said}");
}

#[test]
fn a_session_with_the_same_command_is_refused_and_named() {
    let arguments = ["--exec", "sh -c 'echo here >&2; sleep 60'", "-t", "debug"];
    let mut first = gh_net().args(arguments).stderr(Stdio::piped()).spawn().unwrap();
    wait_for(&mut first, "codespace: here");
    let (code, said) = failure(gh_net().env("GH_NET_EXTENSION", "1"), &arguments);
    assert_eq!(code, 1, "{said}");
    let pid = first.id();
    assert!(said.contains(&format!("process {pid} already has a session with sh")), "{said}");
    // The program's name would not do: another command may have the same.
    assert!(said.contains(&format!("`gh net stop {pid}`")), "{said}");
    first.kill().unwrap();
    first.wait().unwrap();
}

#[test]
fn the_same_command_elsewhere_is_another_target() {
    // It stays only where no file says otherwise and no variable is set.
    let script = r#"[ -e elsewhere ] || [ -n "$DOCKER_HOST$DOCKER_CONTEXT$CONTAINER_HOST$KUBECONFIG" ] && exit 3
        echo here >&2; sleep 60"#;
    let command = format!("sh -c '{script}'");
    let arguments = ["--exec", &command, "-t", "debug"];
    let mut first = gh_net().args(arguments).stderr(Stdio::piped()).spawn().unwrap();
    wait_for(&mut first, "codespace: here");
    let elsewhere = tempfile::tempdir().unwrap();
    std::fs::write(elsewhere.path().join("elsewhere"), "").unwrap();
    let (code, said) = failure(gh_net().current_dir(elsewhere.path()), &arguments);
    assert_eq!(code, 5, "{said}");
    for name in ["DOCKER_HOST", "DOCKER_CONTEXT", "CONTAINER_HOST", "KUBECONFIG"] {
        let (code, said) = failure(gh_net().env(name, "elsewhere"), &arguments);
        assert_eq!(code, 5, "{name}: {said}");
    }
    assert_eq!(failure(&mut gh_net(), &arguments).0, 1);
    first.kill().unwrap();
    first.wait().unwrap();
}

#[test]
fn a_session_of_another_container_can_be_ended_as_the_refusal_says() {
    let runtime = tempfile::tempdir().unwrap();
    let arguments = ["--exec", "sh -c 'echo here >&2; sleep 60'", "-t", "debug"];
    let mut first = Command::new("unshare");
    first.args([
        "--user",
        "--map-root-user",
        "--pid",
        "--fork",
        "--kill-child",
        env!("CARGO_BIN_EXE_gh-net"),
    ]);
    first.args(arguments).env("XDG_RUNTIME_DIR", runtime.path()).stdin(Stdio::null()).stderr(Stdio::piped());
    let mut first = first.spawn().unwrap();
    let mut lines = BufReader::new(first.stderr.take().unwrap()).lines();
    if !lines.any(|line| line.unwrap().contains("codespace: here")) {
        first.wait().unwrap();
        eprintln!("skipped: this system has no namespaces for this user");
        return;
    }
    let (code, said) = failure(gh_net().env("XDG_RUNTIME_DIR", runtime.path()), &arguments);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("`gh-net stop 1`") || said.contains("`gh net stop 1`"), "{said}");
    let stopped = gh_net().env("XDG_RUNTIME_DIR", runtime.path()).args(["stop", "1"]).status().unwrap();
    assert!(stopped.success());
    first.wait().unwrap();
}

#[test]
fn without_a_folder_of_its_own_a_session_begins_nevertheless() {
    let runtime = tempfile::tempdir().unwrap();
    // One that is open to others: the umask leaves it so.
    std::fs::create_dir(runtime.path().join("gh-net")).unwrap();
    let (code, said) = failure(gh_net().env("XDG_RUNTIME_DIR", runtime.path()), &["--exec", "true"]);
    assert_eq!(code, 5, "{said}");
    assert!(said.contains("gh-net status, gh-net stop and a second start won't find this session"), "{said}");
}
