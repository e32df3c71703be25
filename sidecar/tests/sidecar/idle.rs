//! The sidecar as the first process of a container of its own.

use std::process::Stdio;

use gh_net_common::frame::{Frame, Goodbye, Reason};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};

use crate::codespace::{SIDECAR, in_codespace, owner, sh, snapshot};
use crate::laptop::{Laptop, routes};

/// A container: `idle` as process 1 of a PID namespace.
struct Container {
    unshare: Child,
    idle: Pid,
    said: BufReader<ChildStdout>,
    /// What it undid before it was ready.
    undone: String,
}

impl Container {
    async fn start() -> Self {
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--kill-child", "--mount-proc", SIDECAR, "idle"]);
        let mut unshare = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(unshare.stdout.take().unwrap());
        let mut undone = String::new();
        loop {
            let mut line = String::new();
            assert!(said.read_line(&mut line).await.unwrap() > 0, "it ended: {undone}");
            if line.starts_with("waiting for") {
                break;
            }
            undone.push_str(&line);
        }
        let children = format!("/proc/{0}/task/{0}/children", unshare.id().unwrap());
        let idle = Pid::from_raw(std::fs::read_to_string(children).unwrap().trim().parse().unwrap());
        Self { unshare, idle, said, undone }
    }

    /// As `docker exec` does.
    fn exec(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--pid", "--mount", "--target", &self.idle.to_string(), SIDECAR, "attach"]);
        command
    }

    async fn stop(mut self) -> (Option<i32>, String) {
        kill(self.idle, Signal::SIGTERM).unwrap();
        let mut said = String::new();
        self.said.read_to_string(&mut said).await.unwrap();
        (self.unshare.wait().await.unwrap().code(), said)
    }
}

#[test]
fn it_changes_nothing_and_ends_when_stopped() {
    in_codespace(|| async {
        let before = snapshot();
        let container = Container::start().await;
        assert_eq!(snapshot(), before);
        assert_eq!(container.stop().await, (Some(0), String::new()));
    });
}

#[test]
fn stopping_the_container_ends_the_session_and_the_laptop_is_told() {
    in_codespace(|| async {
        let before = snapshot();
        let container = Container::start().await;
        let mut laptop = Laptop::start(container.exec()).await;
        laptop.ask(crate::laptop::open(60)).await.unwrap();
        laptop.send(&[routes(&["10.20.0.0/16"])]).await;
        laptop.settle().await;
        let ((code, said), goodbye) = tokio::join!(container.stop(), laptop.goodbye());
        assert_eq!(goodbye.reason, Reason::Terminated);
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("undone: device ghnet0"), "{said}");
        assert_eq!(snapshot(), before);
    });
}

#[test]
fn an_owner_whose_attach_is_gone_is_reaped() {
    in_codespace(|| async {
        let container = Container::start().await;
        let mut laptop = Laptop::start(container.exec()).await;
        laptop.ask(crate::laptop::open(60)).await.unwrap();
        // The process id in the lock file belongs to idle's own namespace.
        assert!(owner() > 1);
        laptop.send(&[Frame::Goodbye(Goodbye { reason: Reason::Done, text: String::new() })]).await;
        laptop.goodbye().await;
        assert_eq!(laptop.exit_code().await, Some(0));
        let children = format!("/proc/{0}/task/{0}/children", container.idle);
        while !std::fs::read_to_string(&children).unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(container.stop().await.0, Some(0));
    });
}

#[test]
fn what_a_killed_container_left_is_undone_when_it_starts_again() {
    in_codespace(|| async {
        let before = snapshot();
        let mut container = Container::start().await;
        let mut laptop = Laptop::start(container.exec()).await;
        laptop.ask(crate::laptop::open(60)).await.unwrap();
        laptop.send(&[routes(&["10.20.0.0/16"])]).await;
        laptop.settle().await;
        kill(container.idle, Signal::SIGKILL).unwrap();
        container.unshare.wait().await.unwrap();
        laptop.exit_code().await;
        assert!(sh("ip rule").contains("lookup 26727"));
        let again = Container::start().await;
        assert!(again.undone.contains("undone: routing rule"), "{}", again.undone);
        assert_eq!(snapshot(), before);
        assert_eq!(again.stop().await.0, Some(0));
    });
}
