//! Drives the built `gh-net-sidecar` as a laptop would, each test in network and mount namespaces of its own, and checks
//! the result with an administrator's tools.

#![allow(
    clippy::print_stderr,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "tests fail on what they do not expect"
)]

mod codespace;
mod contender;
mod failures;
mod follow;
mod idle;
mod lanes;
mod laptop;
mod lifecycle;
mod replacement;
mod routing;
mod traffic;
mod trust;
