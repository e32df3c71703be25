//! `gh-net-sidecar`: the codespace's end of gh-net.
//!
//! ssh starts [`attach`]. It hands its stdin and stdout to the [`owner`], a detached process that
//! keeps the [session](owner::session) across links: the [gateway hook](hook), the [resolver hook and the DNS
//! responder](names), and the [pump](owner::link::pump) between the hook's device and the [link](owner::link).
//!
//! A session follows what other programs [change](watch) under it.
//!
//! Every change to the machine is written to the [`journal`] before it is made, and [`undo`] reverts what the journal
//! lists.
//!
//! stdout carries frames. Only the commands that a person runs (`status`, `cleanup`, `idle`) print there.
//!
//! This is a library for its binary, for the manual, which is generated from the [`cli`], and for the fuzz targets.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use cli::{Action, Arguments};
use command::{attach, cleanup, idle};
use console::{complain, print};
use journal::Report;

mod attempts;
pub mod cli;
mod command;
mod confinement;
mod console;
pub mod exit;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod hook;
mod journal;
mod liveness;
mod log;
mod names;
mod notify;
mod own_sockets;
mod owner;
mod private;
mod privilege;
mod program;
mod status;
mod sys;
mod undo;
mod watch;

/// The program. Returns its exit code.
pub fn run() -> ExitCode {
    privilege::raise();
    let code = match Arguments::parse().action {
        Action::Attach(options) => attach::run(&options),
        Action::Status { json } => show_status(json).unwrap_or_else(failed),
        Action::Cleanup => clean_up().unwrap_or_else(failed),
        Action::Idle => idle::run(invite, tell).map_or_else(failed, |report| end(&report)),
        Action::Owner(trace) => {
            log::start(&trace).and_then(|()| owner::run()).map_or_else(failed, |()| exit::DONE)
        }
        Action::Probe => probe(),
    };
    ExitCode::from(code)
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
    if report == Report::default() {
        print("nothing to undo\n");
    }
    tell(&report);
    Ok(end(&report))
}

fn tell(report: &Report) {
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

fn end(report: &Report) -> u8 {
    if report.is_clean() { exit::DONE } else { exit::FAILED }
}

/// Run by sudo before `attach` itself is: tells whether root has enough privilege, and the ssh peer as root sees it.
fn probe() -> u8 {
    if !privilege::is_enough() {
        return exit::PRIVILEGE;
    }
    if let Some(peer) = attach::ssh_peer() {
        print(&format!("{peer}\n"));
    }
    exit::DONE
}

/// Continues as root if there is a state directory, which only root can read. Returns an exit code if that failed.
fn needs_privilege(arguments: &[&str]) -> Option<u8> {
    if privilege::is_enough() || !owner::state::StateDir::locate().exists() {
        return None;
    }
    let arguments = arguments.iter().map(OsString::from).collect();
    complain(&privilege::elevate(|_| arguments).to_string());
    Some(exit::PRIVILEGE)
}

fn failed(error: anyhow::Error) -> u8 {
    complain(&format!("{error:#}"));
    exit::FAILED
}
