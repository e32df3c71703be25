//! The session's lines in the log, rendered from the status. Pure.

use std::time::Duration;

use ipnet::IpNet;

use super::{CodespaceChange, DnsMode, Link, Route, RouteChange, Status};
use crate::request::Reloaded;

/// Maximum number of networks listed in one line, and of lines for one change of the networks.
const LISTED: usize = 8;

/// Packets flow.
pub fn ready(status: &Status) -> String {
    let dns = match status.session.dns {
        DnsMode::Off => "names are resolved in the codespace only",
        DnsMode::Split => "names by split DNS",
        DnsMode::SplitStrict => "names by strictly split DNS",
        DnsMode::Local => "names by the laptop's resolver first",
    };
    let networks = networks(status.routes.iter().map(|route| route.prefix));
    format!("ready: {} reaches {networks}; {dns}", status.session.target)
}

/// The link has ended without a goodbye.
pub fn link_lost(link: &Link) -> String {
    match &link.end {
        Some(end) => format!("link lost ({end}); reconnecting"),
        None => "link lost; reconnecting".to_owned(),
    }
}

/// The link has become quiet, or has ceased to be.
pub fn quiet(quiet: bool) -> &'static str {
    if quiet {
        "link quiet: no connection moves any data, so nothing passes until one does, and the codespace may fall asleep"
    } else {
        "link active again"
    }
}

/// The outcome of a reconnection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reconnected {
    /// Whether the old session was resumed.
    pub resumed: bool,
    /// How many flows the old session had.
    pub flows: usize,
}

/// The session is open on another link, after this time without one.
pub fn reconnected(after: Duration, outcome: Reconnected) -> String {
    let seconds = after.as_secs();
    let connections = match outcome.flows {
        1 => "1 connection".to_owned(),
        flows => format!("{flows} connections"),
    };
    if outcome.resumed {
        format!("reconnected after {seconds} s; {connections} kept")
    } else {
        format!("reconnected after {seconds} s with a new session; {connections} reset")
    }
}

/// The configuration was read again.
pub fn reloaded(reloaded: &Reloaded) -> String {
    let Reloaded { added, removed, reordered, ended, others, .. } = reloaded;
    let count = |count: usize, what: &str| match count {
        1 => format!("1 {what}"),
        count => format!("{count} {what}s"),
    };
    let rules = match (added.len(), removed.len()) {
        (0, 0) if *reordered => "the rules are in another order".to_owned(),
        (0, 0) => "no rule has changed".to_owned(),
        (added, 0) => format!("{} added", count(added, "rule")),
        (0, removed) => format!("{} removed", count(removed, "rule")),
        (added, removed) => format!("{} added, {removed} removed", count(added, "rule")),
    };
    let ended = format!("{} ended", count(usize::try_from(*ended).unwrap_or(usize::MAX), "connection"));
    let others =
        if *others { "; other settings have changed as well, and apply from the next start" } else { "" };
    format!("configuration read again: {rules}; {ended}{others}")
}

/// One line for each change, and one for those beyond the bound.
pub fn route_changes(changes: &[RouteChange]) -> Vec<String> {
    let mut lines: Vec<String> = changes.iter().take(LISTED).map(route_change).collect();
    if changes.len() > LISTED {
        lines.push(format!("and {} more changes of networks", changes.len() - LISTED));
    }
    lines
}

fn route_change(change: &RouteChange) -> String {
    match change {
        RouteChange::Added(Route { prefix, reason }) => format!("+{prefix} ({reason})"),
        RouteChange::Removed(Route { prefix, reason }) => format!("-{prefix} (was: {reason})"),
    }
}

/// What changed of the codespace's own networks and resolvers; `None` if there is nothing to say.
pub fn codespace_change(change: &CodespaceChange) -> Option<String> {
    let CodespaceChange { added, removed, resolvers } = change;
    let added = added.iter().map(|network| format!("+{network}"));
    let removed = removed.iter().map(|network| format!("-{network}"));
    let networks: Vec<String> = added.chain(removed).collect();
    let mut parts = Vec::new();
    if !networks.is_empty() {
        parts.push(format!("its own networks {}", listed(networks)));
    }
    match resolvers.as_deref() {
        None => {}
        Some([]) => parts.push("it has no resolvers now".to_owned()),
        Some(resolvers) => {
            let resolvers = resolvers.iter().map(ToString::to_string).collect();
            parts.push(format!("its resolvers are now {}", listed(resolvers)));
        }
    }
    (!parts.is_empty()).then(|| format!("the codespace has changed: {}", parts.join("; ")))
}

fn listed(mut items: Vec<String>) -> String {
    if items.len() > LISTED {
        let more = items.len() - LISTED;
        items.truncate(LISTED);
        items.push(format!("and {more} more"));
    }
    items.join(", ")
}

fn networks(routes: impl ExactSizeIterator<Item = IpNet>) -> String {
    if routes.len() == 0 {
        return "no network of the laptop".to_owned();
    }
    listed(routes.map(|route| route.to_string()).collect())
}
