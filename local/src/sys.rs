//! The room for unsafe code of this crate: what has no safe interface elsewhere gets one here.

#![allow(unsafe_code, reason = "the compiler denies it everywhere else")]

pub(crate) mod c_library;
pub(crate) mod child;
