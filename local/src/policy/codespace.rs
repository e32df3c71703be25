//! The codespace's networks.

use std::net::IpAddr;

use ipnet::IpNet;

/// The codespace's networks, as far as they matter to the policy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Codespace {
    /// The codespace's own networks.
    pub networks: Vec<IpNet>,
    /// The tunnel's networks, those of its own addresses.
    pub tunnel: Vec<IpNet>,
    /// The laptop's own addresses in the tunnel.
    pub gateways: Vec<IpAddr>,
}
