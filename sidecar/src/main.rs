//! `gh-net-sidecar`. See the library.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    gh_net_sidecar::run()
}
