//! One rule, and which flows it matches.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use gh_net_common::reserved;
use ipnet::IpNet;

use crate::engine::{NewFlow, Protocol};

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What it does.
    pub action: Action,
    /// The flows that it is about.
    pub pattern: Pattern,
}

/// What a rule does with the flows that it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// They are forwarded.
    Allow,
    /// They are refused.
    Deny,
}

/// Which flows a rule matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    /// The protocol. Without one: all of them, or TCP and UDP if there are ports.
    pub protocol: Option<Protocol>,
    /// The destination.
    pub target: Target,
    /// The destination's ports; `None` means all. Never with [`Protocol::Echo`], which has none.
    pub ports: Option<RangeInclusive<u16>>,
}

/// The destinations of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// All.
    Any,
    /// The addresses of a network, which may be a single one.
    Network(IpNet),
    /// The host with this name, in lower case, without a trailing dot.
    Name(String),
    /// All hosts with names below this one, but not this one itself.
    Below(String),
}

impl Rule {
    /// Whether the rule is about this flow.
    ///
    /// A network that is denied is also denied to translators (NAT64, 6to4), which would send the flow there. What is
    /// allowed is the network itself.
    pub fn matches(&self, flow: &NewFlow<'_>) -> bool {
        let Pattern { target, ports, .. } = &self.pattern;
        let destination = flow.destination;
        let is_translated = || {
            let mut embedded = reserved::embedded_v4(destination.ip());
            self.action == Action::Deny && embedded.any(|v4| target.matches(v4.into(), &[]))
        };
        self.pattern.has_protocol(flow.protocol)
            && ports.as_ref().is_none_or(|ports| ports.contains(&destination.port()))
            && (target.matches(destination.ip(), flow.names) || is_translated())
    }
}

impl Pattern {
    fn has_protocol(&self, protocol: Protocol) -> bool {
        match self.protocol {
            Some(own) => own == protocol,
            None => self.ports.is_none() || protocol != Protocol::Echo,
        }
    }

    /// Whether this matches all that `other` matches, as far as the two tell. Two different names may have the same
    /// addresses, which they don't.
    pub fn covers(&self, other: &Self) -> bool {
        let all = [Protocol::Tcp, Protocol::Udp, Protocol::Echo];
        let ports = match (&self.ports, &other.ports) {
            (None, _) => true,
            (Some(own), Some(other)) => own.contains(other.start()) && own.contains(other.end()),
            (Some(_), None) => false,
        };
        ports
            && all.iter().all(|it| self.has_protocol(*it) || !other.has_protocol(*it))
            && self.target.covers(&other.target)
    }
}

impl Target {
    fn matches(&self, address: IpAddr, names: &[String]) -> bool {
        match self {
            Self::Any => true,
            Self::Network(network) => network.contains(&address),
            Self::Name(_) | Self::Below(_) => names.iter().any(|name| self.has_name(name)),
        }
    }

    /// Whether it is about hosts with this name.
    pub(super) fn has_name(&self, name: &str) -> bool {
        match self {
            Self::Any | Self::Network(_) => false,
            Self::Name(own) => absolute(name).eq_ignore_ascii_case(own),
            Self::Below(parent) => is_below(absolute(name), parent),
        }
    }

    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, _) => true,
            (Self::Network(own), Self::Network(other)) => own.contains(other),
            (Self::Name(own), Self::Name(other)) => own == other,
            (Self::Below(parent), Self::Name(other)) => is_below(other, parent),
            (Self::Below(parent), Self::Below(other)) => other == parent || is_below(other, parent),
            (Self::Network(_) | Self::Name(_) | Self::Below(_), _) => false,
        }
    }

    /// The name in it, without the star.
    pub(super) fn name(&self) -> Option<&str> {
        match self {
            Self::Name(name) | Self::Below(name) => Some(name),
            Self::Any | Self::Network(_) => None,
        }
    }
}

fn absolute(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

fn is_below(name: &str, parent: &str) -> bool {
    let (name, parent) = (name.as_bytes(), parent.as_bytes());
    let Some(start) = name.len().checked_sub(parent.len()).filter(|start| *start > 1) else { return false };
    name[start..].eq_ignore_ascii_case(parent) && name[start - 1] == b'.'
}
