//! What is left when gh-net is ended, by whatever signal.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::program::{gh_net, ssh_arguments};
use crate::sidecar;
use crate::sshd::Sshd;

/// gh-net bridging `sshd`, its private directories in `runtime`, once the sidecar over there has spoken.
fn attached(sshd: &Sshd, runtime: &Path) -> Child {
    let mut child = gh_net()
        .args(ssh_arguments(sshd, &sshd.options()))
        .args(["-t", "debug"])
        .env("GH_NET_SIDECAR_DIR", sidecar::directory())
        .env("XDG_RUNTIME_DIR", runtime)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for(&mut child, "over there: attached");
    child
}

fn wait_for(child: &mut Child, words: &str) {
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while log.read_line(&mut line).unwrap() > 0 {
        if line.contains(words) {
            // The rest is of no interest, but must not make gh-net wait.
            std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
            return;
        }
        line.clear();
    }
    panic!("gh-net ended without saying {words:?}");
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
}

fn leftovers(runtime: &Path) -> usize {
    std::fs::read_dir(runtime).unwrap().count()
}

#[test]
fn a_killed_gh_net_leaves_no_ssh_behind() {
    let mut sshd = Sshd::start();
    let runtime = tempfile::tempdir().unwrap();
    let mut child = attached(&sshd, runtime.path());
    assert_eq!(leftovers(runtime.path()), 1);
    signal(&child, Signal::SIGKILL);
    child.wait().unwrap();
    sshd.wait_for("Received disconnect");
}

#[test]
fn the_first_signal_ends_cleanly_with_exit_code_0() {
    for number in [Signal::SIGINT, Signal::SIGTERM] {
        let sshd = Sshd::start();
        let runtime = tempfile::tempdir().unwrap();
        let mut child = attached(&sshd, runtime.path());
        signal(&child, number);
        assert_eq!(child.wait().unwrap().code(), Some(0), "{number}");
        assert_eq!(leftovers(runtime.path()), 0);
    }
}

#[test]
fn an_end_before_anything_is_connected_is_quick_too() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = format!("Port={}", listener.local_addr().unwrap().port());
    let runtime = tempfile::tempdir().unwrap();
    let mut child: Child = Command::new(env!("CARGO_BIN_EXE_gh-net"))
        .args(["--ssh", "127.0.0.1", "--ssh-option", &port])
        .env("XDG_RUNTIME_DIR", runtime.path())
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // A server that accepts and says nothing: ssh waits for its banner.
    let (mut stream, _) = listener.accept().unwrap();
    signal(&child, Signal::SIGTERM);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(leftovers(runtime.path()), 0);
    // ssh is gone, too: it is the one that holds the connection.
    let mut rest = Vec::new();
    std::io::Read::read_to_end(&mut stream, &mut rest).unwrap();
}
