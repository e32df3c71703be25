//! What is left behind when a signal ends gh-net.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::program::{gh_net, ssh_arguments, write_program};
use crate::sidecar;
use crate::sshd::Sshd;

/// gh-net bridging `sshd`, with its private directories in `runtime`, once the remote sidecar has printed its message.
fn attached(sshd: &Sshd, runtime: &Path) -> Child {
    let mut child = gh_net()
        .args(ssh_arguments(sshd, &sshd.options()))
        .args(["-t", "debug"])
        .env("GH_NET_SIDECAR_DIR", sidecar::directory())
        .env("XDG_RUNTIME_DIR", runtime)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for(&mut child, "codespace: attached");
    child
}

/// Waits until the child prints `words` on its stderr.
pub(crate) fn wait_for(child: &mut Child, words: &str) {
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while log.read_line(&mut line).unwrap() > 0 {
        if line.contains(words) {
            // Reads the rest, so that gh-net does not block.
            std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
            return;
        }
        line.clear();
    }
    panic!("gh-net ended without printing {words:?}");
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
}

/// Number of private directories, and what else is left, except for the socket of a session that was killed.
fn leftovers(runtime: &Path) -> usize {
    let entries = std::fs::read_dir(runtime).unwrap();
    entries.filter(|entry| entry.as_ref().unwrap().file_name() != "gh-net").count()
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
fn a_signal_before_the_connection_ends_at_once() {
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
    // The server accepts and sends nothing: ssh waits for its banner.
    let (mut stream, _) = listener.accept().unwrap();
    signal(&child, Signal::SIGTERM);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(leftovers(runtime.path()), 0);
    // The end of the connection shows that ssh has ended as well.
    let mut rest = Vec::new();
    std::io::Read::read_to_end(&mut stream, &mut rest).unwrap();
}

#[test]
fn a_signal_while_ssh_tells_where_it_would_connect_to_ends_at_once() {
    let runtime = tempfile::tempdir().unwrap();
    let fifo = runtime.path().join("asked");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    write_program(
        &runtime.path().join("ssh"),
        &format!("#!/bin/sh\necho \"$1\" > '{}'\nexec sleep 60\n", fifo.display()),
    );
    // In this folder it can't be found, which it would say next.
    std::fs::create_dir(runtime.path().join("gh-net")).unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_gh-net"))
        .args(["--ssh", "host"])
        .env("PATH", format!("{}:/usr/bin:/bin", runtime.path().display()))
        .env("XDG_RUNTIME_DIR", runtime.path())
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    assert_eq!(std::fs::read_to_string(&fifo).unwrap(), "-G\n");
    signal(&child, Signal::SIGTERM);
    let ended = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(0), "{said}");
    assert!(!said.contains("won't find this session"), "{said}");
}

#[test]
fn a_signal_ends_the_watching_while_its_reader_stands_still() {
    let runtime = tempfile::tempdir().unwrap();
    let folder = runtime.path().join("gh-net");
    std::fs::DirBuilder::new().mode(0o700).create(&folder).unwrap();
    let session = std::os::unix::net::UnixListener::bind(folder.join("7-0.sock")).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_gh-net"))
        .args(["status", "--watch", "--json"])
        .env("XDG_RUNTIME_DIR", runtime.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut client, _) = session.accept().unwrap();
    // More than the pipe takes.
    let answer = serde_json::json!({ "pid": 7, "session": { "target": "x".repeat(1 << 20) } });
    writeln!(client, "{answer}").unwrap();
    let mut unread = 0;
    while unread < 4096 {
        unread = rustix::io::ioctl_fionread(child.stdout.as_ref().unwrap()).unwrap();
        assert!(child.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(5));
    }
    signal(&child, Signal::SIGINT);
    let deadline = Instant::now() + Duration::from_secs(30);
    let ended = loop {
        if let Some(ended) = child.try_wait().unwrap() {
            break ended;
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    assert_eq!(ended.code(), Some(0));
}
