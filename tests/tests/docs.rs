//! The documents say what the programs do.

use std::fs;
use std::path::Path;

use gh_net_tests::docs;

fn read(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace");
    fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn the_reference_of_the_configuration_is_that_of_the_types() {
    assert!(
        read(docs::CONFIGURATION) == docs::configuration(),
        "{} is not what `cargo xtask docs` writes: run it and commit",
        docs::CONFIGURATION
    );
}
