//! One function for each fuzz target, which panics when an invariant is broken.
//!
//! `tests/fuzz` calls them with libFuzzer's inputs (it needs cargo-fuzz and a nightly compiler's flags);
//! `tests/tests/corpus.rs` calls them with the committed corpus, on any compiler, in every run of the tests.

mod engine;
mod frame;
mod laptop;
mod netlink;
mod packet;
mod policy;
mod rules;

pub use engine::engine;
pub use frame::frame;
pub use gh_net::resolver::fuzzing::message as resolver;
pub use gh_net_sidecar::fuzzing::{handover, resolv, responder};
pub use netlink::netlink;
pub use packet::packet;
pub use policy::policy;
pub use rules::rules;

/// The journal of a sidecar, and its lock file.
pub fn journal(data: &[u8]) {
    thread_local!(static DIRECTORY: tempfile::TempDir = tempfile::tempdir().expect("a directory"));
    DIRECTORY.with(|directory| gh_net_sidecar::fuzzing::journal(directory.path(), data));
}

/// The fuzzer's bytes, taken from the front as decisions. When they are used up it gives zeros.
#[derive(Debug)]
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn u8(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or(0)
    }

    fn u16(&mut self) -> u16 {
        u16::from_be_bytes([self.u8(), self.u8()])
    }

    /// At most so many bytes.
    fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }
}
