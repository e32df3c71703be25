//! Which destinations are forwarded, and by which interface. Pure.
//!
//! The user's [`Choice`] and a [`Snapshot`] of the laptop's networks become two things, independent of each other:
//! - a [`Policy`], which decides about each new flow and names the networks that the sidecar routes into the tunnel;
//! - a [`Report`], which tells the user why: each forwarded network with its reason, hints, and overlaps.
//!
//! [`tunnel_avoid`] says which networks the tunnel's own addresses must not be taken from.
//!
//! [`Snapshot`]: crate::netwatch::Snapshot

mod choice;
mod decision;
mod fib;
mod hints;
mod prefix_map;
mod refused;
mod report;

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

pub use self::choice::{Choice, ParseRouteError, RouteChoice};
pub use self::decision::{Policy, rule};
pub use self::hints::{Hint, Overlap};
pub use self::report::{ForwardedRoute, Reason, Report, tunnel_avoid};
pub use crate::engine::{InterfaceIndex, Protocol, Refusal, Verdict};

const ALL_V4: IpNet = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0));
const ALL_V6: IpNet = IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0));

const PRIVATE_V4: [Ipv4Net; 4] = [
    Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 8),
    Ipv4Net::new_assert(Ipv4Addr::new(172, 16, 0, 0), 12),
    Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 0, 0), 16),
    Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 10), // RFC 6598
];
const PRIVATE_V6: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7); // RFC 4193

/// The private ranges: they are not routed on the internet, so their use always means a private network.
pub fn private_ranges() -> impl Iterator<Item = IpNet> {
    PRIVATE_V4.into_iter().map(IpNet::from).chain([PRIVATE_V6.into()])
}

/// What the policy has to know of the codespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Codespace {
    /// The codespace's own networks.
    pub networks: Vec<IpNet>,
    /// The tunnel's networks, those of its own addresses.
    pub tunnel: Vec<IpNet>,
}

#[cfg(test)]
mod tests;
