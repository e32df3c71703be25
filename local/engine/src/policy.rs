//! The interface to the policy: the verdict on a new flow, which is the engine's only callback.
//!
//! The types are the engine's own, so that it depends on no configuration and no operating system. The
//! engine's owner implements [`Policy`].

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;

/// The kernel's index of a network interface.
pub type InterfaceIndex = NonZeroU32;

/// Decides which flows are forwarded, and where to. Must be a pure function of the flow: the engine asks again for
/// each datagram, and for every existing flow after [`super::Engine::set_policy`].
pub trait Policy: fmt::Debug + Send {
    /// Decides about one flow.
    fn verdict(&self, flow: &NewFlow<'_>) -> Verdict;

    /// Whether a verdict may depend on this name.
    fn refers_to(&self, name: &str) -> bool;

    /// Whether a flow to this address may be forwarded.
    fn forwards(&self, address: IpAddr) -> bool;
}

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

/// The properties of a flow that the policy decides by.
#[derive(Debug, Clone, Copy)]
pub struct NewFlow<'a> {
    /// The transport protocol.
    pub protocol: Protocol,
    /// The program in the codespace. For echo the port is the identifier.
    pub client: SocketAddr,
    /// The destination that the program asked for. For echo the port is 0.
    pub destination: SocketAddr,
    /// The names that are known to resolve to the destination's address. Empty if none is known.
    pub names: &'a [String],
}

/// The rule that decided about a flow. The engine only passes it on; its owner gives it a meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleId(pub u32);

/// What happens to a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The flow's sockets may be opened.
    Forward {
        /// Where the sockets connect or send to. May differ from the destination that was asked for; the codespace
        /// sees the answers come from the one that it asked for.
        destination: SocketAddr,
        /// The interface that the sockets are bound to; `None` leaves the choice to the kernel.
        interface: Option<InterfaceIndex>,
        /// The rule that decided.
        rule: RuleId,
    },
    /// The flow leads to the laptop's own loopback, which no other verdict opens.
    Laptop {
        /// The port there.
        port: u16,
        /// The rule that decided.
        rule: RuleId,
    },
    /// The flow is refused.
    Refuse {
        /// The answer to the codespace.
        refusal: Refusal,
        /// The rule that decided.
        rule: RuleId,
    },
}

/// How a flow is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// No network of the laptop leads there: ICMP network unreachable.
    NoRoute,
    /// It is forbidden: ICMP administratively prohibited.
    Prohibited,
    /// Nothing listens there: a TCP reset, or ICMP port unreachable.
    Closed,
    /// It is dropped without an answer: multicast, broadcast, link-local (RFC 1122, 3.2.2 forbids one).
    Silent,
}

/// What a new policy means for a flow that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Judgement {
    /// It goes on.
    Keep,
    /// Its network has vanished, and may return.
    Hold,
    /// It ends.
    End,
}
