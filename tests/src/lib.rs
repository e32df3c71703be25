//! What the tests, the demo and the benchmarks of gh-net are made of.

pub mod docs;
pub mod executable;
pub mod fuzzing;
pub mod lab;
pub mod release;
pub mod sim;

use std::path::Path;

/// The workspace's directory.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace")
}

/// Whether CI runs this: there what is missing is a failure, and not a skip.
pub fn in_ci() -> bool {
    std::env::var_os("CI").is_some_and(|ci| ci == "true")
}
