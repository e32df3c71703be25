//! gh-net on a terminal: questions, answers and Ctrl-C.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::codespaces::fake_gh;
use crate::program::ssh_arguments;
use crate::sidecar;
use crate::sshd::{PASSPHRASE, Sshd};

/// A program on a terminal of its own, made by script(1).
struct Terminal {
    child: Child,
    keyboard: ChildStdin,
    screen: ChildStdout,
    shown: String,
}

impl Terminal {
    fn run(arguments: &[String], variables: &[(&str, &str)]) -> Self {
        let words = [env!("CARGO_BIN_EXE_gh-net").to_owned()].into_iter().chain(arguments.iter().cloned());
        let words: Vec<String> = words.collect();
        let line = shlex::try_join(words.iter().map(String::as_str)).unwrap();
        let mut child = Command::new("script")
            .args(["--quiet", "--return", "--flush", "--command", &format!("exec {line}"), "/dev/null"])
            .env_clear()
            .envs([
                ("PATH", "/usr/bin:/bin"),
                ("HOME", "/nonexistent"),
                ("SHELL", "/bin/sh"),
                ("TERM", "dumb"),
            ])
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("script is installed");
        let (keyboard, screen) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { child, keyboard, screen, shown: String::new() }
    }

    /// Waits until the screen shows `words`, after what was waited for before.
    fn wait_for(&mut self, words: &str) {
        loop {
            if let Some(at) = self.shown.find(words) {
                self.shown.drain(..at + words.len());
                return;
            }
            let mut bytes = [0; 4096];
            let count = self.screen.read(&mut bytes).unwrap();
            assert!(count > 0, "it ended without showing {words:?}: {}", self.shown);
            self.shown.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
    }

    fn type_in(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// The exit code.
    fn end(mut self) -> i32 {
        let mut rest = Vec::new();
        self.screen.read_to_end(&mut rest).unwrap();
        self.child.wait().unwrap().code().unwrap()
    }
}

const CTRL_C: &str = "\x03";

/// `--ssh` with a key that has a passphrase.
fn locked(sshd: &Sshd) -> Vec<String> {
    ssh_arguments(sshd, &sshd.options_with("locked", "known_hosts"))
}

#[test]
fn ssh_asks_on_the_terminal_and_ctrl_c_ends_the_session_before_the_connection() {
    let mut sshd = Sshd::start();
    // The ProxyCommand, which remains a child of the first ssh, must survive Ctrl-C as well.
    let proxy = format!("bash -c \"exec 3<>/dev/tcp/127.0.0.1/{}; cat <&3 & cat >&3\"", sshd.port());
    let mut arguments = locked(&sshd);
    arguments.extend(["--ssh-option".to_owned(), format!("ProxyCommand={proxy}")]);
    arguments.extend(["-t".to_owned(), "debug".to_owned()]);
    let sources = sidecar::directory().display().to_string();
    let mut terminal = Terminal::run(&arguments, &[("GH_NET_SIDECAR_DIR", &sources)]);
    terminal.wait_for("Enter passphrase for key");
    terminal.type_in("wrong\n");
    terminal.wait_for("Enter passphrase for key");
    terminal.type_in(&format!("{PASSPHRASE}\n"));
    terminal.wait_for("codespace: attached");
    terminal.type_in(CTRL_C);
    assert_eq!(terminal.end(), 0);
    sshd.wait_for("Received disconnect");
}

#[test]
fn ctrl_c_at_a_question_cancels() {
    let sshd = Sshd::start();
    let mut terminal = Terminal::run(&locked(&sshd), &[]);
    terminal.wait_for("Enter passphrase for key");
    terminal.type_in(CTRL_C);
    // readpassphrase(3) checks for signals only before and after read(2). A signal that comes in between is
    // noticed when the read returns.
    terminal.type_in("\n");
    terminal.wait_for("connecting was cancelled");
    assert_eq!(terminal.end(), 2);
}

#[test]
fn a_codespace_is_chosen_by_a_part_of_its_name() {
    let gh = fake_gh(
        r#"case "$*" in
        *list*) echo '[{"name":"big-fish"},{"name":"old-duck"}]' ;;
        *) echo "HTTP 404: Not Found" >&2; exit 1 ;;
        esac"#,
    );
    let path = gh.path().join("gh").display().to_string();
    let mut terminal = Terminal::run(&[], &[("GH_PATH", &path)]);
    terminal.wait_for("  1  big-fish");
    terminal.wait_for("  2  old-duck");
    terminal.wait_for("? ");
    terminal.type_in("duck\n");
    terminal.wait_for("there is no codespace old-duck");
    assert_eq!(terminal.end(), 3);
}
