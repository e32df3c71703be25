//! Runs the program that writes generated documents. It depends on gh-net, so it is compiled only when needed.

use std::path::Path;
use std::process::Command;

use anyhow::Result;
use gh_net_lab::DEVELOPMENT;

use crate::shell::{self, PLAIN, root};

/// Writes the generated documents of the repository.
pub(crate) fn write() -> Result<()> {
    documents(&["configuration".as_ref()])
}

/// Writes the manual pages and the completions below a folder.
pub(crate) fn manual(share: &Path) -> Result<()> {
    documents(&["manual".as_ref(), share])
}

fn documents(arguments: &[&Path]) -> Result<()> {
    shell::run(&format!("cargo build --quiet {DEVELOPMENT} --bin documents"), PLAIN)?;
    shell::run_command(Command::new(root().join("target/debug/documents")).args(arguments))
}
