//! Which destinations are forwarded, and by which interface. Pure.

use std::net::SocketAddr;
use std::num::NonZeroU32;

use ipnet::IpNet;

/// The kernel's index of a network interface.
pub type InterfaceIndex = NonZeroU32;

/// The transport protocols that are forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP and ICMPv6 echo.
    Echo,
}

/// What is to become of a new flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Its sockets may be opened, bound to this interface if one is named.
    Forward {
        /// The interface the flow's sockets are bound to; `None` leaves it to the kernel.
        interface: Option<InterfaceIndex>,
    },
    /// It is refused.
    Refuse(Refusal),
}

/// Why a flow is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The laptop has no meaningful way there: ICMP network unreachable.
    NoRoute,
    /// It is forbidden (the laptop itself, loopback, metadata, …): ICMP administratively prohibited.
    Prohibited,
    /// Multicast, broadcast, link-local: dropped without an answer (RFC 1122 forbids one).
    Silent,
}

/// The rules in force. The engine holds one and is given another when the laptop's networks change.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    routes: Vec<IpNet>,
}

impl Policy {
    /// Decides about a new flow.
    pub fn verdict(&self, _protocol: Protocol, _destination: SocketAddr) -> Verdict {
        todo!()
    }

    /// The networks to forward, as the sidecar is told.
    pub fn routes(&self) -> &[IpNet] {
        &self.routes
    }
}
