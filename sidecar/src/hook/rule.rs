//! A routing rule that looks a table up. Pure.

use std::fmt;

/// See the [module](self).
#[derive(Debug, Clone, PartialEq, Eq)]
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
