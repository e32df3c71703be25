//! Codespaces, with a fake `gh`, and with the real one against a fake API.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::Command;

use tempfile::TempDir;

use crate::program::{failure, gh_net, write_program};
use crate::sshd::Sshd;

/// A directory with a `gh` in it that runs `script`.
pub(crate) fn fake_gh(script: &str) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gh");
    write_program(&path, &format!("#!/bin/sh\n{script}\n"));
    directory
}

fn with_gh(directory: &TempDir) -> Command {
    let mut command = gh_net();
    command.env("PATH", format!("{}:/usr/bin:/bin", directory.path().display()));
    command
}

/// The stderr and exit status of gh, and our exit code and remedy.
const CASES: [(&str, i32, i32, &str); 6] = [
    ("To get started with GitHub CLI, please run:  gh auth login", 4, 4, "gh auth login -h github.com"),
    (
        "error getting codespaces: HTTP 403: Must have admin rights to Repository.",
        1,
        4,
        "gh auth refresh -h github.com -s codespace",
    ),
    ("HTTP 403: Resource protected by organization SAML enforcement.", 1, 4, "single sign-on"),
    ("getting full codespace details: HTTP 404: Not Found", 1, 3, "gh codespace list"),
    (
        "error getting ssh server details: failed to start SSH server:",
        1,
        3,
        "ghcr.io/devcontainers/features/sshd:1",
    ),
    ("dial tcp: lookup api.github.com: no such host", 1, 1, "gh failed"),
];

#[test]
fn each_failure_of_gh_keeps_its_message_and_gets_its_own_remedy() {
    for (words, status, expected, remedy) in CASES {
        let gh = fake_gh(&format!("echo '{words}' >&2; exit {status}"));
        let (code, said) = failure(&mut with_gh(&gh), &["-c", "big-fish"]);
        assert_eq!(code, expected, "{said}");
        assert_eq!(said.matches(words).count(), 1, "{said}");
        assert!(said.contains(remedy), "{said}");
    }
}

#[test]
fn without_gh_the_error_tells_what_to_install() {
    let empty = tempfile::tempdir().unwrap();
    let (code, said) = failure(gh_net().env("PATH", empty.path()), &["big-fish"]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("https://cli.github.com"), "{said}");
}

#[test]
fn gh_path_takes_precedence_over_path() {
    let gh = fake_gh("echo 'the one of GH_PATH' >&2; exit 1");
    let (_, said) = failure(gh_net().env("GH_PATH", gh.path().join("gh")), &["big-fish"]);
    assert!(said.contains("the one of GH_PATH"), "{said}");
}

#[test]
fn a_configuration_without_a_host_is_an_error() {
    let gh = fake_gh("exit 0");
    let (code, said) = failure(&mut with_gh(&gh), &["big-fish"]);
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("printed no ssh configuration for codespace big-fish"), "{said}");
}

#[test]
fn without_a_terminal_the_codespaces_to_choose_from_are_listed() {
    let gh = fake_gh(r#"echo '[{"name":"big-fish","repository":"a/b"},{"name":"old-duck"}]'"#);
    let (code, said) = failure(&mut with_gh(&gh), &[""; 0]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("big-fish") && said.contains("old-duck"), "{said}");
    let (code, said) = failure(&mut with_gh(&fake_gh("echo '[]'")), &[""; 0]);
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("gh codespace create"), "{said}");
}

#[test]
fn messages_of_the_proxy_reach_the_user() {
    let proxy = r#"sh -c "echo gh: codespace is rebuilding >&2; exit 1""#;
    let entry = format!("Host cs.big-fish.main\n\tProxyCommand {proxy}\n\tLogLevel quiet\n");
    let gh = fake_gh(&format!("printf '{entry}'"));
    let (code, said) = failure(&mut with_gh(&gh), &["big-fish"]);
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("gh: codespace is rebuilding"), "{said}");
    assert!(said.contains("gh codespace ssh -c big-fish"), "{said}");
}

/// The only codespace is chosen, and its sidecar is reached with the ssh configuration that gh prints.
#[test]
fn the_only_codespace_is_bridged_with_its_ssh_configuration() {
    let sshd = Sshd::start();
    let entry = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(entry.path(), sshd.entry("cs.big-fish.feature-a")).unwrap();
    let gh = fake_gh(&format!(
        r#"case "$*" in
        "codespace list --json "*) echo '[{{"name":"big-fish"}}]' ;;
        "codespace ssh --config -c big-fish") cat {} ;;
        *) echo "unexpected: $*" >&2; exit 1 ;;
        esac"#,
        entry.path().display()
    ));
    // The sidecar is a program that ends at once; its exit status must reach the user.
    let program = sshd.home().join("sidecar");
    write_program(&program, "#!/bin/sh\necho attached >&2; exit 43\n");
    let (code, said) = failure(&mut with_gh(&gh), &["--sidecar", program.to_str().unwrap()]);
    assert_eq!(code, 5, "{said}");
    assert!(said.contains("your only codespace: big-fish"), "{said}");
    assert!(said.contains("exit status 43"), "{said}");
    assert!(!said.contains("Permanently added"), "{said}");
}

/// Answers one request for the list like api.github.com.
fn api(status: &'static str, body: &'static str) -> (String, std::thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = BufReader::new(stream.try_clone().unwrap());
        let mut first = String::new();
        request.read_line(&mut first).unwrap();
        let mut line = String::new();
        while request.read_line(&mut line).unwrap() > 2 {
            line.clear();
        }
        let length = body.len();
        let head = "Content-Type: application/json\r\nConnection: close";
        write!(stream, "HTTP/1.1 {status}\r\n{head}\r\nContent-Length: {length}\r\n\r\n{body}").unwrap();
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.read(&mut [0; 64]);
        first
    });
    (address, server)
}

/// `gh-net` with the real gh, logged in at `api`.
fn with_real_gh(api: &str, home: &TempDir) -> Command {
    let mut command = gh_net();
    command.env("GITHUB_API_URL", api).env("GH_TOKEN", "x").env("GH_CONFIG_DIR", home.path());
    command.env("HOME", home.path());
    command
}

#[test]
fn the_real_gh_lists_codespaces() {
    let home = tempfile::tempdir().unwrap();
    let body = r#"{"codespaces":[
        {"name":"big-fish","display_name":"big fish","state":"Available","last_used_at":"2024-05-01T10:00:00Z",
         "owner":{"login":"me"},"repository":{"full_name":"corp/web"},
         "git_status":{"ref":"main","has_uncommitted_changes":true},"machine":{"name":"basic"}},
        {"name":"old-duck","state":"Shutdown","owner":{"login":"me"},"repository":{"full_name":"corp/duck"},
         "git_status":{"ref":"dev"},"machine":{"name":"basic"}}],"total_count":2}"#;
    let (address, server) = api("200 OK", body);
    let (code, said) = failure(&mut with_real_gh(&address, &home), &[""; 0]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("big-fish  (big fish)  corp/web main*  Available, last used 2024-05-01"), "{said}");
    assert!(server.join().unwrap().starts_with("GET /user/codespaces"));
}

#[test]
fn the_real_gh_without_a_scope_or_a_login_is_recognised() {
    let home = tempfile::tempdir().unwrap();
    let (address, server) = api("403 Forbidden", r#"{"message":"Must have admin rights to Repository."}"#);
    let (code, said) = failure(&mut with_real_gh(&address, &home), &[""; 0]);
    server.join().unwrap();
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("HTTP 403: Must have admin rights"), "{said}");
    assert!(said.contains("gh auth refresh -h github.com -s codespace"), "{said}");

    let (code, said) = failure(with_real_gh("http://127.0.0.1:1", &home).env_remove("GH_TOKEN"), &[""; 0]);
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("gh is not logged in"), "{said}");
}

#[test]
fn a_name_that_looks_like_a_flag_never_reaches_gh() {
    let gh = fake_gh("echo reached >&2; exit 1");
    let (code, said) = failure(&mut with_gh(&gh), &["--codespace=--web"]);
    assert_eq!(code, 2, "{said}");
    assert!(!said.contains("reached"), "{said}");
}
