//! `gh-net-sidecar`: the codespace's end of gh-net.
//!
//! ssh starts [`attach`]; it hands its stdin and stdout to the [`owner`], a process of its own that has the
//! [`session`]: the [device](tun), the [gateway hook](routes), the [resolver hook](resolv) with its
//! [responder](dns), and the [`pump`] between device and [`link`]. Every change to the machine is in the
//! [journal](undo) before it is made.
//!
//! stdout carries frames. Only what is run by hand, `status` and `cleanup` and `idle`, prints on it.

use std::ffi::OsString;
use std::io::{Write, stderr, stdout};
use std::process::ExitCode;

use clap::Parser;
use gh_net_sidecar_cli::{Action, Arguments, Trace, exit};

mod address;
mod attach;
mod cleanup;
mod dns;
mod handover;
mod idle;
mod link;
mod netlink;
mod notify;
mod owner;
mod privilege;
mod pump;
mod resolv;
mod routes;
mod session;
mod state;
mod status;
mod tun;
mod undo;

fn main() -> ExitCode {
    privilege::raise();
    let code = match Arguments::parse().action {
        Action::Attach(options) => attach::run(&options),
        Action::Status { json } => show_status(json).unwrap_or_else(failed),
        Action::Cleanup => clean_up().unwrap_or_else(failed),
        Action::Idle => idle::run(invite, tell).map_or_else(failed, |report| end(&report)),
        Action::Owner(trace) => {
            start_log(&trace).and_then(|()| owner::run()).map_or_else(failed, |()| exit::DONE)
        }
        Action::Probe => probe(),
    };
    ExitCode::from(code)
}

/// Whether the caller may have us write a log. With CAP_DAC_OVERRIDE from our file's capabilities, it could
/// have us append to any file there is.
fn may_log(trace: &Trace) -> anyhow::Result<()> {
    anyhow::ensure!(
        trace.trace_dest.is_none() || !privilege::is_secure_execution(),
        "--trace-dest does not go with file capabilities; run it as root or by sudo, or leave it out"
    );
    Ok(())
}

fn start_log(trace: &Trace) -> anyhow::Result<()> {
    may_log(trace)?;
    if let Some(file) = &trace.trace_dest {
        gh_net_common::logging::init(None, Some((&trace.trace, file)))?;
    }
    Ok(())
}

fn show_status(json: bool) -> anyhow::Result<u8> {
    if let Some(code) = needs_privilege(if json { &["status", "--json"] } else { &["status"] }) {
        return Ok(code);
    }
    let status = cleanup::status()?;
    print(&if json { status::json(status.as_ref())? + "\n" } else { status::plain(status.as_ref()) });
    Ok(exit::DONE)
}

fn clean_up() -> anyhow::Result<u8> {
    if let Some(code) = needs_privilege(&["cleanup"]) {
        return Ok(code);
    }
    let report = cleanup::run()?;
    if report == undo::Report::default() {
        print("nothing to undo\n");
    }
    tell(&report);
    Ok(end(&report))
}

fn tell(report: &undo::Report) {
    for done in &report.undone {
        print(&format!("undone: {done}\n"));
    }
    for failure in &report.failed {
        complain(&format!("not undone: {failure}"));
    }
}

fn invite() {
    print("waiting for: gh-net --exec 'docker exec -i THIS_CONTAINER gh-net-sidecar attach'\n");
}

fn end(report: &undo::Report) -> u8 {
    if report.is_clean() { exit::DONE } else { exit::FAILED }
}

/// What a program that asks for more privilege wants to know of the one it would become.
fn probe() -> u8 {
    if !privilege::is_enough() {
        return exit::PRIVILEGE;
    }
    if let Some(peer) = attach::ssh_peer() {
        print(&format!("{peer}\n"));
    }
    exit::DONE
}

/// Goes on as root, where there is anything to be seen with root's eyes only.
fn needs_privilege(arguments: &[&str]) -> Option<u8> {
    if privilege::is_enough() || !state::StateDir::locate().exists() {
        return None;
    }
    let arguments = arguments.iter().map(OsString::from).collect();
    complain(&privilege::elevate(|_| arguments).to_string());
    Some(exit::PRIVILEGE)
}

/// What a person types to run us: the path of our program, for it is on nobody's PATH where gh-net has copied it.
fn our_name() -> String {
    /// musl skips lines of resolv.conf from 256 bytes on, comments or not.
    const LONGEST: usize = 200;
    let path = std::env::current_exe().ok().and_then(|path| path.into_os_string().into_string().ok());
    let plain = |path: &String| path.len() <= LONGEST && path.chars().all(|c| c.is_ascii_graphic());
    path.filter(plain).unwrap_or_else(|| "gh-net-sidecar".to_owned())
}

fn failed(error: anyhow::Error) -> u8 {
    complain(&format!("{error:#}"));
    exit::FAILED
}

/// To people. stdout and stderr may be closed; that is no reason to panic.
fn complain(text: &str) {
    let _ = writeln!(stderr(), "gh-net-sidecar: {text}");
}

fn print(text: &str) {
    let _ = stdout().write_all(text.as_bytes());
}
