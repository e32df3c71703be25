//! What the user chose to forward: the values of `--route` and `--exclude`, and the rules.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

use super::host_port::HostPort;
use super::ranges::private_ranges;
use super::rules::Rules;

/// Which networks the user wants forwarded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choice {
    /// What is forwarded, combined; an empty list means [`RouteChoice::Auto`].
    pub routes: Vec<RouteChoice>,
    /// Networks that are not forwarded, even if `routes` includes them.
    pub excludes: Vec<IpNet>,
    /// What may be reached of the networks that are forwarded.
    pub rules: Rules,
    /// Ports of the laptop itself that are open.
    pub host_ports: Vec<HostPort>,
}

impl Choice {
    /// Whether the laptop's own routes are forwarded.
    pub fn has_auto(&self) -> bool {
        self.routes.is_empty() || self.routes.contains(&RouteChoice::Auto)
    }

    /// The networks that are forwarded regardless of the laptop's routes, each with the value of `--route` that
    /// names it.
    pub fn named(&self) -> impl Iterator<Item = (IpNet, RouteChoice)> {
        self.routes.iter().flat_map(|route| {
            let networks = match route {
                RouteChoice::Auto => Vec::new(),
                RouteChoice::Private => private_ranges().collect(),
                RouteChoice::Network(network) => vec![network.trunc()],
            };
            networks.into_iter().map(|network| (network, *route))
        })
    }
}

/// One value of `--route`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteChoice {
    /// The networks that the laptop has routes to, its default routes aside.
    Auto,
    /// The private ranges: RFC 1918, RFC 6598 and IPv6's unique local addresses (RFC 4193).
    Private,
    /// This network.
    Network(IpNet),
}

/// An invalid value of `--route`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither auto, nor private, nor a network such as 10.0.0.0/8 or fd00::/8")]
pub struct ParseRouteError(String);

impl FromStr for RouteChoice {
    type Err = ParseRouteError;

    fn from_str(text: &str) -> Result<Self, ParseRouteError> {
        match text {
            "auto" => return Ok(Self::Auto),
            "private" => return Ok(Self::Private),
            _ => {}
        }
        // An address means the network of this address alone.
        let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        network.map(|network| Self::Network(network.trunc())).map_err(|_| ParseRouteError(text.to_owned()))
    }
}

impl fmt::Display for RouteChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Private => f.write_str("private"),
            Self::Network(network) => network.fmt(f),
        }
    }
}
