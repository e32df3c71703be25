//! Shared by the tests of several crates: [building](build) and [verifying](packet) packets, a [driver] and a [policy] for
//! the engine, and a [codespace's network](net) with smoltcp.
//!
//! It shares no code with what it checks: etherparse builds and parses packets and computes their checksums.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

pub mod build;
pub mod driver;
pub mod net;
pub mod packet;
pub mod policy;

use std::net::{IpAddr, SocketAddr};

/// An address of either family.
pub fn ip(address: &str) -> IpAddr {
    address.parse().unwrap()
}

/// An address of either family with a port.
pub fn socket(address: &str) -> SocketAddr {
    address.parse().unwrap()
}
