//! The fuzz targets, fed with their committed corpus: what fuzzing has found stays found, on any compiler.

use std::path::Path;

use gh_net_tests::fuzzing;

/// Runs a target on each file of its corpus.
fn replay(target: &str, run: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut files: Vec<_> = corpus.read_dir().unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", corpus.display());
    for file in files {
        println!("{}", file.display());
        run(&std::fs::read(&file).unwrap());
    }
}

#[test]
fn frames() {
    replay("frame", fuzzing::frame);
}
