//! Which laptop has a session, for messages.

use std::fmt;
use std::net::IpAddr;

use gh_net_common::frame::Open;
use gh_net_common::hello::printable;

/// Maximum number of characters shown of a name that the laptop gives itself.
const MAX_NAME: usize = 64;

/// The laptop at the other end of a session, as it calls itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Holder {
    user: String,
    host: String,
    peer: Option<IpAddr>,
}

impl Holder {
    /// The laptop that sent `open` from `peer`.
    pub(crate) fn new(open: &Open, peer: Option<IpAddr>) -> Self {
        Self { user: shown(&open.user), host: shown(&open.host), peer }
    }
}

/// The name as it may appear in a message of ours: one line, not too long.
fn shown(name: &str) -> String {
    printable(name).chars().filter(|c| !c.is_whitespace()).take(MAX_NAME).collect()
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.user.as_str(), self.host.as_str()) {
            ("", "") => f.write_str("a laptop")?,
            (user, "") => f.write_str(user)?,
            ("", host) => f.write_str(host)?,
            (user, host) => write!(f, "{user}@{host}")?,
        }
        match self.peer {
            Some(peer) => write!(f, " (from {peer})"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use gh_net_common::frame::Families;

    use super::*;

    fn holder(user: &str, host: &str, peer: Option<IpAddr>) -> String {
        let open = Open {
            resume: None,
            link: 0,
            lane: 0,
            mtu: 1500,
            families: Families { v4: true, v6: true },
            grace: 0,
            from: gh_net_common::frame::Sources { containers: true, networks: Vec::new() },
            user: user.to_owned(),
            host: host.to_owned(),
            preferred: Vec::new(),
            avoid: Vec::new(),
        };
        Holder::new(&open, peer).to_string()
    }

    #[test]
    fn a_laptop_is_named_as_far_as_it_is_known() {
        let peer = Some([192, 168, 1, 20].into());
        assert_eq!(holder("alice", "thinkpad", peer), "alice@thinkpad (from 192.168.1.20)");
        assert_eq!(holder("alice", "", None), "alice");
        assert_eq!(holder("", "", None), "a laptop");
    }

    #[test]
    fn a_name_can_neither_drive_a_terminal_nor_reorder_or_fill_it() {
        let text = holder("a\x1b[2J\n\u{202e}b", &"x".repeat(8000), None);
        assert!(text.starts_with("a\u{fffd}[2J\u{fffd}b@x") && text.len() < 200, "{text}");
    }
}
