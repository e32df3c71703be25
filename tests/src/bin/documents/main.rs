//! Writes what is generated from the programs' own types: `documents configuration` writes the reference of the
//! configuration, `documents manual FOLDER` the manual pages and completions below a folder.
//!
//! `cargo xtask` runs it. As a separate program, it lets xtask start without compiling gh-net.

#![allow(clippy::print_stdout, reason = "a command line tool")]

use std::path::Path;

use anyhow::{Context, Result, bail};
use gh_net_tests::{docs, root};

mod manual;

fn main() -> Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["configuration"] => {
            let path = root().join(docs::CONFIGURATION);
            std::fs::write(&path, docs::configuration())
                .with_context(|| format!("writing {}", path.display()))?;
            println!("✓ {}", docs::CONFIGURATION);
            Ok(())
        }
        ["manual", folder] => manual::write(Path::new(folder)),
        other => bail!("expected `configuration` or `manual FOLDER`: {other:?}"),
    }
}
