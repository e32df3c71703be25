//! Random numbers without a generator of our own.

use std::hash::{BuildHasher, RandomState};

/// A random number: the standard library seeds its hash tables from the kernel's generator.
pub(crate) fn random() -> u64 {
    RandomState::new().hash_one(())
}
