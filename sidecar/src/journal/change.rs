//! What the journal can list: which kinds of change of ours may be there, and nothing about where. Only data:
//! [`undo`](crate::undo) knows how each kind is recognized and reverted.

use std::fmt;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

/// A kind of change to the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", from = "Line")]
pub(crate) enum Change {
    /// Routing rules are added.
    Rules,
    /// Routes are added to our own table.
    Routes,
    /// The directory of the TUN device's node is created.
    NodeDirectory,
    /// The node of the TUN device is created.
    Node,
    /// resolv.conf is rewritten.
    Names,
}

/// A line of a journal. Those of version 0.1 said which rule, table, path and content; none of that is believed.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Rules,
    Routes,
    NodeDirectory,
    Node,
    Names,
    Rule(IgnoredAny),
    Table(IgnoredAny),
    DeviceNode(IgnoredAny),
    ResolvConf(IgnoredAny),
}

impl From<Line> for Change {
    fn from(line: Line) -> Self {
        match line {
            Line::Rules | Line::Rule(_) => Self::Rules,
            Line::Routes | Line::Table(_) => Self::Routes,
            Line::NodeDirectory => Self::NodeDirectory,
            Line::Node | Line::DeviceNode(_) => Self::Node,
            Line::Names | Line::ResolvConf(_) => Self::Names,
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rules => "routing rules",
            Self::Routes => "routes",
            Self::NodeDirectory => "directory of the device node",
            Self::Node => "device node",
            Self::Names => "resolv.conf",
        })
    }
}
