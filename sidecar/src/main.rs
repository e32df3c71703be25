//! `gh-net-sidecar`. See the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    gh_net_sidecar::run()
}
