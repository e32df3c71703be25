//! The fuzz targets, fed with their committed corpus: what fuzzing has found stays found, on any compiler.

use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

use gh_net_tests::fuzzing;

/// Runs a target on each file of its corpus.
fn replay(target: &str, run: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let files = fs::read_dir(&corpus).expect("a corpus").map(|entry| entry.expect("an entry").path());
    let mut files: Vec<_> = files.collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", corpus.display());
    let breaks = |file: &&Path| {
        let data = fs::read(file).expect("a file of the corpus");
        catch_unwind(|| run(&data)).is_err()
    };
    let broken: Vec<_> = files.iter().map(|file| file.as_path()).filter(breaks).collect();
    assert!(broken.is_empty(), "{target} panics on {broken:?}");
}

#[test]
fn frames() {
    replay("frame", fuzzing::frame);
}

#[test]
fn packets() {
    replay("packet", fuzzing::packet);
}

#[test]
fn engines() {
    replay("engine", fuzzing::engine);
}
