//! What the journal can list. Only data: [`undo`](crate::undo) knows how each change is reverted.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A change to the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Change {
    /// A routing rule is added.
    Rule(Rule),
    /// Routes are added to our own table.
    Table {
        /// The table's number.
        table: u32,
    },
    /// The node of the TUN device is created.
    DeviceNode {
        /// The node.
        path: PathBuf,
        /// Whether its directory is created too.
        directory: bool,
    },
    /// A resolver configuration is rewritten.
    ResolvConf {
        /// The path that programs read.
        path: PathBuf,
        /// The file that is written: the path may be a link, which may lead elsewhere later.
        #[serde(default)]
        target: Option<PathBuf>,
        /// Its earlier contents; `None` if it did not exist.
        original: Option<Vec<u8>>,
        /// Our nameservers in it.
        #[serde(default)]
        servers: Vec<IpAddr>,
    },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule(rule) => write!(f, "routing rule {rule}"),
            Self::Table { table } => write!(f, "routes in table {table}"),
            Self::DeviceNode { path, .. } => write!(f, "device node {}", path.display()),
            Self::ResolvConf { path, target, .. } => {
                write!(f, "{}", target.as_ref().unwrap_or(path).display())
            }
        }
    }
}

/// A routing rule of ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rule {
    /// IPv6, else IPv4.
    pub(crate) v6: bool,
    /// Its position among the rules.
    pub(crate) priority: u32,
    /// The table that is looked up.
    pub(crate) table: u32,
    /// Whether a default route that the lookup finds is ignored.
    pub(crate) but_default: bool,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = if self.v6 { "IPv6" } else { "IPv4" };
        write!(f, "{} (lookup {}, {family})", self.priority, self.table)
    }
}
