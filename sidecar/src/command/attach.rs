//! `gh-net-sidecar attach`: what ssh starts. It gets the privilege, finds or starts the owner, passes it stdin and
//! stdout, waits until the link has ended, and exits with the code that says how.
//!
//! No signal is handled here: when `attach` dies, the owner sees its connection close, and the link ends.

use std::fs::File;
use std::io::{self, Write, stdin, stdout};
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::Context;
use bytes::BytesMut;
use gh_net_common::frame::{Frame, Goodbye, PREAMBLE, Reason};
use gh_net_common::hello;

use crate::cli::{Attach, Trace};
use crate::console::complain;
use crate::exit;
use crate::journal::Journal;
use crate::owner::handover::{Client, Reply, Request};
use crate::owner::link;
use crate::owner::state::{StateDir, wait_for_exit};
use crate::{log, privilege, program, undo};

/// Another `attach` may start an owner at the same time, or an owner may be ending. Each try waits for a process to start
/// or to end, so there is no pause between tries.
const TRIES: usize = 20;

/// The result of passing the link to an owner.
enum Outcome {
    /// The link has ended.
    Exit(u8, String),
    /// The owner did not take the link: try again.
    Again,
    /// The owner took the link and died.
    OwnerLost,
}

/// Serves one link. Returns the exit code.
pub(crate) fn run(options: &Attach) -> u8 {
    if !link::is_pipe(&stdin()) || !link::is_pipe(&stdout()) {
        complain(
            "attach speaks a binary protocol over stdin and stdout, which must be pipes or sockets, not a terminal, \
             a file or /dev/null. gh-net starts it by itself; with ssh leave out -t, with docker exec use -i \
             without -t",
        );
        return exit::USAGE;
    }
    let peer = options.ssh_peer.or_else(ssh_peer);
    if !privilege::is_enough() {
        let error = privilege::elevate(|seen| {
            let mut arguments = vec!["attach".into()];
            // The tightest sudoers entry allows `attach` without arguments, and passes the environment. Loopback is never
            // forwarded anyway.
            let unseen = |peer: &IpAddr| !peer.is_loopback() && seen != peer.to_string();
            if let Some(peer) = peer.filter(unseen) {
                arguments.extend(["--ssh-peer".into(), peer.to_string().into()]);
            }
            arguments.extend(options.trace.arguments());
            arguments
        });
        return refuse(Goodbye { reason: Reason::Privilege, text: error.to_string() });
    }
    // The owner checks this too, but has no way to report it.
    match log::check(&options.trace).and_then(|()| attach(peer, &options.trace)) {
        Ok((code, text)) => {
            if code != exit::DONE {
                complain(&text);
            }
            code
        }
        Err(error) => refuse(Goodbye { reason: Reason::Failed, text: format!("{error:#}") }),
    }
}

/// The ssh client's address, from sshd's environment variables: "client port server port".
pub(crate) fn ssh_peer() -> Option<IpAddr> {
    let variable = ["SSH_CONNECTION", "SSH_CLIENT"].iter().find_map(|name| std::env::var(name).ok())?;
    parse_peer(&variable)
}

fn parse_peer(variable: &str) -> Option<IpAddr> {
    // A link-local address has an interface: fe80::1%eth0.
    variable.split_whitespace().next()?.split('%').next()?.parse().ok()
}

/// Speaks enough of the protocol to tell the laptop why there is no session.
fn refuse(goodbye: Goodbye) -> u8 {
    let code = exit::code(goodbye.reason);
    complain(&goodbye.text);
    let mut bytes = BytesMut::from(&PREAMBLE[..]);
    Frame::Hello(hello::ours()).encode(&mut bytes);
    Frame::Goodbye(goodbye).encode(&mut bytes);
    if let Ok(fd) = stdout().as_fd().try_clone_to_owned() {
        // If this fails, stderr has the same message.
        let _ = File::from(fd).write_all(&bytes);
    }
    code
}

fn attach(peer: Option<IpAddr>, trace: &Trace) -> anyhow::Result<(u8, String)> {
    let state = StateDir::locate();
    for _ in 0..TRIES {
        let stream = match UnixStream::connect(state.socket()) {
            Ok(stream) => stream,
            Err(_) => start_owner(trace).context("starting the owner process")?,
        };
        match hand_over(stream, peer).context("handing the link to the owner")? {
            Outcome::Exit(code, text) => return Ok((code, text)),
            Outcome::Again => {}
            Outcome::OwnerLost => return Ok((exit::FAILED, recover(&state))),
        }
    }
    anyhow::bail!("the owner process does not start; see {}", state.path().display())
}

/// Starts a detached owner. Its stdin is the other end of the socket that is returned.
fn start_owner(trace: &Trace) -> io::Result<UnixStream> {
    let (ours, theirs) = UnixStream::pair()?;
    let (stdout, stderr) = nowhere()?;
    Command::new(program::running())
        .arg0("gh-net-sidecar")
        .arg("owner")
        .args(trace.arguments())
        .stdin(OwnedFd::from(theirs))
        .stdout(OwnedFd::from(stdout))
        .stderr(OwnedFd::from(stderr))
        .spawn()?;
    Ok(ours)
}

/// Two sockets whose other ends are closed. Unlike /dev/null they need no file.
fn nowhere() -> io::Result<(UnixStream, UnixStream)> {
    let (one, _) = UnixStream::pair()?;
    let two = one.try_clone()?;
    Ok((one, two))
}

fn hand_over(stream: UnixStream, peer: Option<IpAddr>) -> io::Result<Outcome> {
    let mut owner = Client::new(stream)?;
    let (stdin, stdout) = (stdin(), stdout());
    match owner.send(&Request::Attach { peer }, &[stdin.as_fd(), stdout.as_fd()]) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(Outcome::Again),
        sent => sent?,
    }
    let mut accepted = false;
    loop {
        match owner.reply()? {
            Some(Reply::Accepted) => accepted = true,
            Some(Reply::Exit { code, text }) => return Ok(Outcome::Exit(code, text)),
            None if accepted => return Ok(Outcome::OwnerLost),
            None | Some(Reply::Taken | Reply::Status(_) | Reply::Undone(_)) => return Ok(Outcome::Again),
        }
    }
}

/// The owner was killed: undoes its changes now instead of at the next start.
fn recover(state: &StateDir) -> String {
    let died = "the owner process was killed";
    if let Some(owner) = state.owner() {
        wait_for_exit(owner);
    }
    match state.try_lock() {
        Ok(Some(lock)) => match Journal::open(state.path()).map(|mut journal| undo::all(&mut journal)) {
            Ok(report) => {
                state.remove(lock, !report.is_clean());
                if report.is_clean() {
                    format!("{died}; everything was undone")
                } else {
                    format!("{died}; not undone: {}", report.failed.join("; "))
                }
            }
            Err(error) => format!("{died}, and its journal can't be read: {error}"),
        },
        Ok(None) => format!("{died}; another one has taken over"),
        Err(error) => format!("{died}; {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peer_is_taken_from_sshds_variables() {
        assert_eq!(parse_peer("10.0.0.5 51234 172.16.5.4 2222"), Some([10, 0, 0, 5].into()));
        assert_eq!(parse_peer("fe80::1%eth0 51234 fe80::2 22"), Some("fe80::1".parse().unwrap()));
        assert_eq!(parse_peer("UNKNOWN 65535 UNKNOWN 65535"), None);
        assert_eq!(parse_peer(""), None);
    }
}
