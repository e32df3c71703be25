//! The sources of answers.

use std::fmt;
use std::net::IpAddr;

/// Where an answer came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The hosts file.
    Hosts,
    /// A nameserver of the laptop.
    Server(IpAddr),
    /// The name service switch.
    Nss,
    /// gh-net itself, which knows the laptop's own name and refuses what it does not support.
    Ourselves,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hosts => f.write_str("hosts file"),
            Self::Server(address) => address.fmt(f),
            Self::Nss => f.write_str("system resolver"),
            Self::Ourselves => f.write_str("gh-net"),
        }
    }
}
