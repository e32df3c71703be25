//! What the tests of several crates share: packets [built](build) and [verified](packet), a [driver] for the engine, a
//! [policy] for it, and a [codespace's network](net) made of smoltcp.
//!
//! Nothing in here shares code with what it checks: packets are built, parsed and summed by etherparse.

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

/// An address of either family with its port.
pub fn socket(address: &str) -> SocketAddr {
    address.parse().unwrap()
}
