//! Runs the fuzz targets on their committed corpus, so that what fuzzing found stays fixed. Needs no nightly compiler.

use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use bytes::BytesMut;
use gh_net_common::frame::Frame;
use gh_net_tests::fuzzing;

/// Seeds of the target `frame` that are not a sequence of whole, valid frames.
const INVALID_FRAMES: [&str; 3] = ["evil-name", "oversized", "routes-part-removes"];

/// The files of a target's corpus.
fn corpus(target: &str) -> Vec<PathBuf> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let files = fs::read_dir(&corpus).expect("a corpus").map(|entry| entry.expect("an entry").path());
    let mut files: Vec<_> = files.collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", corpus.display());
    files
}

/// Runs a target on each file of its corpus.
fn replay(target: &str, run: fn(&[u8])) {
    let files = corpus(target);
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

/// A seed in an obsolete layout would only exercise the decoder's errors.
#[test]
fn seeds_of_frames_follow_the_present_layout() {
    for file in corpus("frame") {
        let is_valid = !INVALID_FRAMES.iter().any(|name| file.ends_with(name));
        // The first byte is the target's: the size of the pieces.
        let data = fs::read(&file).expect("a file of the corpus");
        let mut buffer = BytesMut::from(data.get(1..).unwrap_or_default());
        let decoded = loop {
            match Frame::decode(&mut buffer) {
                Ok(Some(_)) => {}
                Ok(None) => break buffer.is_empty(),
                Err(_) => break false,
            }
        };
        assert_eq!(decoded, is_valid, "{}", file.display());
    }
}

#[test]
fn packets() {
    replay("packet", fuzzing::packet);
}

#[test]
fn engines() {
    replay("engine", fuzzing::engine);
}

#[test]
fn policies() {
    replay("policy", fuzzing::policy);
}

#[test]
fn rules() {
    replay("rules", fuzzing::rules);
}

#[test]
fn messages_to_the_laptops_resolver() {
    replay("resolver", fuzzing::resolver);
}

#[test]
fn messages_to_the_sidecars_responder() {
    replay("responder", fuzzing::responder);
}

#[test]
fn texts_of_resolv_conf() {
    replay("resolv", fuzzing::resolv);
}

#[test]
fn journals() {
    replay("journal", fuzzing::journal);
}

#[test]
fn requests_to_the_owner() {
    replay("handover", fuzzing::handover);
}

#[test]
fn netlink_messages() {
    replay("netlink", fuzzing::netlink);
}
