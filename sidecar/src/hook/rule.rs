//! A routing rule that looks a table up, and whose packets it is for. Pure.

use std::fmt;

use ipnet::IpNet;

/// See the [module](self).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    /// IPv6, else IPv4.
    pub(crate) v6: bool,
    /// Its position among the rules.
    pub(crate) priority: u32,
    /// Whose packets it is for.
    pub(crate) packets: Packets,
    /// The table that is looked up.
    pub(crate) table: u32,
    /// Whether a default route that the lookup finds is ignored.
    pub(crate) but_default: bool,
}

/// The packets that a rule is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Packets {
    /// Every packet.
    All,
    /// Those that arrive by this interface. [`OWN`] is the host itself.
    By(String),
    /// Those from addresses of this network.
    From(IpNet),
}

/// Linux takes its own packets as arrived by the loopback interface.
pub(crate) const OWN: &str = "lo";

impl Packets {
    /// Whether there may be such packets in this family.
    pub(crate) fn has_family(&self, v6: bool) -> bool {
        match self {
            Self::All | Self::By(_) => true,
            Self::From(net) => net.addr().is_ipv6() == v6,
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = if self.v6 { "IPv6" } else { "IPv4" };
        write!(f, "{} (", self.priority)?;
        match &self.packets {
            Packets::All => {}
            Packets::By(interface) => write!(f, "iif {interface} ")?,
            Packets::From(net) => write!(f, "from {net} ")?,
        }
        write!(f, "lookup {}, {family})", self.table)
    }
}
