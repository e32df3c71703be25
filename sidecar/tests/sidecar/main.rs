//! Drives the built `gh-net-sidecar` as a laptop would, in a network and mount namespace of each test's own,
//! and looks at what it does there with the tools an administrator has.

#![allow(
    clippy::print_stderr,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "tests: what is not expected fails them"
)]

mod codespace;
mod failures;
mod idle;
mod laptop;
mod lifecycle;
mod replacement;
mod routing;
mod traffic;
