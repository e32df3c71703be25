//! The session's lines in the log, rendered from the status. Pure.

use std::time::Duration;

use ipnet::IpNet;

use super::{DnsMode, Link, Route, RouteChange, RouteReason, Status};

/// Maximum number of networks listed in one line, and of lines for one change of the networks.
const LISTED: usize = 8;

/// Packets flow.
pub fn ready(status: &Status) -> String {
    let dns = match status.session.dns {
        DnsMode::Off => "names are resolved in the codespace only",
        DnsMode::Split => "names by split DNS",
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
        RouteChange::Added(Route { prefix, reason }) => format!("+{prefix} ({})", because(reason)),
        RouteChange::Removed(Route { prefix, reason }) => format!("-{prefix} (was: {})", because(reason)),
    }
}

fn because(reason: &RouteReason) -> String {
    match reason {
        RouteReason::Connected { interface } => format!("connected on {interface}"),
        RouteReason::Route { interface: Some(interface) } => format!("route on {interface}"),
        RouteReason::Route { interface: None } => "route on several interfaces".to_owned(),
        RouteReason::Option { value } => format!("--route {value}"),
    }
}

fn networks(routes: impl ExactSizeIterator<Item = IpNet>) -> String {
    let count = routes.len();
    if count == 0 {
        return "no network of the laptop".to_owned();
    }
    let mut text: Vec<String> = routes.take(LISTED).map(|route| route.to_string()).collect();
    if count > LISTED {
        text.push(format!("and {} more", count - LISTED));
    }
    text.join(", ")
}
