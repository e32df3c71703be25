//! The sidecar's command line.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::exit;

/// The codespace's end of gh-net
#[derive(Debug, Parser)]
#[command(name = "gh-net-sidecar", version, after_help = exit::HELP)]
pub struct Arguments {
    /// The command.
    #[command(subcommand)]
    pub action: Action,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Serve a session over stdin and stdout; gh-net starts this over ssh
    Attach(Attach),
    /// Show the session
    Status {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// End the session, if there is one, and undo everything it changed
    Cleanup,
    /// Do nothing until SIGTERM, then end the session: for a container of the sidecar's own
    Idle,
    /// Own the session; `attach` starts this
    #[command(hide = true)]
    Owner(Trace),
    /// Exit with 0 if there is enough privilege, and print the client's end of the ssh connection, if it is known
    #[command(hide = true)]
    Probe,
}

/// How to attach.
#[derive(Debug, Args)]
pub struct Attach {
    /// The client's end of the ssh connection; by default taken from sshd's environment variables
    #[arg(long, value_name = "ADDRESS", hide = true)]
    pub ssh_peer: Option<IpAddr>,
    /// The log.
    #[command(flatten)]
    pub trace: Trace,
}

/// The log. `attach` passes it on to the owner, which has no stderr.
#[derive(Debug, Args)]
pub struct Trace {
    /// What to log, for example debug
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub trace: String,
    /// The file to log into; without one, nothing is logged
    #[arg(long, value_name = "FILE")]
    pub trace_dest: Option<PathBuf>,
}

impl Trace {
    /// The same as arguments, independent of the working directory.
    pub fn arguments(&self) -> Vec<OsString> {
        let Some(file) = &self.trace_dest else { return Vec::new() };
        let file = std::path::absolute(file).unwrap_or_else(|_| file.clone());
        vec!["--trace".into(), self.trace.clone().into(), "--trace-dest".into(), file.into()]
    }
}
