//! The laptop's networks as the session uses them: what is forwarded and why, what the sidecar is told, and what
//! follows from a change. Pure.

use gh_net_common::frame::{Dns, DnsMode, Frame, MAX_PREFIXES, Opened, Routes};
use ipnet::IpNet;

use super::settings;
use crate::netwatch::{LOCAL_TABLE, RouteKind, Snapshot};
use crate::policy::{Choice, Codespace, Hint, Policy, RouteChoice};
use crate::status::{Level, Note, Route, RouteChange, RouteReason};

/// The state of the networks, and the policy that follows from it.
#[derive(Debug)]
pub(super) struct Networks {
    choice: Choice,
    mode: DnsMode,
    snapshot: Snapshot,
    search: Vec<String>,
    codespace: Codespace,
    policy: Policy,
    routes: Vec<Route>,
    notes: Vec<Note>,
    dns: Option<Dns>,
}

/// The consequences of a change.
#[derive(Debug)]
pub(super) struct Update {
    /// The policy for new flows.
    pub(super) policy: Policy,
    /// What the sidecar is to be told.
    pub(super) frames: Vec<Frame>,
    /// The changes of forwarded networks.
    pub(super) changes: Vec<RouteChange>,
    /// Notes that did not hold before.
    pub(super) notes: Vec<Note>,
}

impl Networks {
    /// The networks of `snapshot`; `search` are the laptop's search domains.
    pub(super) fn new(choice: Choice, mode: DnsMode, snapshot: Snapshot, search: Vec<String>) -> Self {
        let mut networks = Self {
            choice,
            mode,
            snapshot,
            search,
            codespace: Codespace::default(),
            policy: Policy::default(),
            routes: Vec::new(),
            notes: Vec::new(),
            dns: None,
        };
        networks.decide();
        networks
    }

    /// Prefixes that the tunnel's own addresses must not overlap.
    pub(super) fn avoid(&self) -> Vec<IpNet> {
        self.policy.tunnel_avoid().iter().take(MAX_PREFIXES).copied().collect()
    }

    /// The policy in force.
    pub(super) fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The forwarded networks.
    pub(super) fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// What the user should know about the policy.
    pub(super) fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// The codespace's own networks and the tunnel's are known, or have changed.
    pub(super) fn set_codespace(&mut self, opened: &Opened) -> Update {
        let codespace = Codespace {
            networks: opened.networks.clone(),
            tunnel: opened.addresses.iter().map(|address| address.sidecar.trunc()).collect(),
        };
        self.change(|networks| networks.codespace = codespace)
    }

    /// The laptop's networks or search domains may have changed. `None` if nothing did.
    pub(super) fn update(&mut self, snapshot: Snapshot, search: Vec<String>) -> Option<Update> {
        let delta = self.snapshot.delta(&snapshot);
        if delta.is_empty() && search == self.search {
            return None;
        }
        tracing::debug!("the laptop's networks changed: {delta}");
        Some(self.change(|networks| {
            networks.snapshot = snapshot;
            networks.search = search;
        }))
    }

    /// The frames that set up a new link: all routes, and how names are resolved.
    pub(super) fn link_frames(&self) -> Vec<Frame> {
        let mut frames: Vec<Frame> = Routes::full(self.policy.routes()).collect();
        frames.extend(self.dns.clone().map(Frame::Dns));
        frames
    }

    fn change(&mut self, apply: impl FnOnce(&mut Self)) -> Update {
        let (routes, notes, dns) = (self.routes.clone(), self.notes.clone(), self.dns.clone());
        apply(self);
        self.decide();
        let changes = changes(&routes, &self.routes);
        let mut frames = route_frames(&changes, self.policy.routes());
        if self.dns != dns {
            frames.extend(self.dns.clone().map(Frame::Dns));
        }
        let notes = self.notes.iter().filter(|note| !notes.contains(note)).cloned().collect();
        Update { policy: self.policy.clone(), frames, changes, notes }
    }

    fn decide(&mut self) {
        self.policy = Policy::new(&self.choice, &self.snapshot, &self.codespace);
        let routes = self.policy.routes().iter();
        self.routes = routes
            .map(|&prefix| Route { prefix, reason: reason(&self.choice, &self.snapshot, prefix) })
            .collect();
        self.notes = notes(&self.policy);
        self.dns =
            (self.mode != DnsMode::Off).then(|| settings::dns(self.mode, self.policy.routes(), &self.search));
    }
}

/// The frames that turn the old set of routes into the new one.
fn route_frames(changes: &[RouteChange], routes: &[IpNet]) -> Vec<Frame> {
    let (mut add, mut remove) = (Vec::new(), Vec::new());
    for change in changes {
        match change {
            RouteChange::Added(route) => add.push(route.prefix),
            RouteChange::Removed(route) => remove.push(route.prefix),
        }
    }
    if add.len().max(remove.len()) > MAX_PREFIXES {
        return Routes::full(routes).collect();
    }
    let change = Frame::Routes(Routes::Change { add, remove });
    if changes.is_empty() { Vec::new() } else { vec![change] }
}

/// The difference between two sets of routes by prefix; the reason alone is no change.
fn changes(before: &[Route], after: &[Route]) -> Vec<RouteChange> {
    let missing = |in_: &[Route], from: &[Route]| -> Vec<Route> {
        let known: std::collections::BTreeSet<IpNet> = from.iter().map(|route| route.prefix).collect();
        in_.iter().filter(|route| !known.contains(&route.prefix)).cloned().collect()
    };
    let added = missing(after, before).into_iter().map(RouteChange::Added);
    let removed = missing(before, after).into_iter().map(RouteChange::Removed);
    added.chain(removed).collect()
}

/// Why `prefix` is forwarded. The policy joins and splits prefixes, so the reason is what overlaps it: the laptop's
/// routes within it, a network that the user named, or else the most specific route around it.
fn reason(choice: &Choice, snapshot: &Snapshot, prefix: IpNet) -> RouteReason {
    let routes = snapshot.routes.iter().filter(|route| {
        let forwards = route.kind == RouteKind::Unicast && route.table != LOCAL_TABLE;
        choice.has_auto() && forwards && route.prefix.prefix_len() > 0
    });
    let interfaces = |routes: Vec<&crate::netwatch::Route>| {
        let hops = routes.into_iter().flat_map(|route| &route.hops);
        let mut interfaces: Vec<String> = hops.map(|hop| snapshot.link_name(hop.link)).collect();
        interfaces.sort();
        interfaces.dedup();
        RouteReason::Route { interfaces }
    };
    let within: Vec<_> = routes.clone().filter(|route| prefix.contains(&route.prefix)).collect();
    if !within.is_empty() {
        return interfaces(within);
    }
    let nested = |network: &IpNet| network.contains(&prefix) || prefix.contains(network);
    let named = choice.routes.iter().find(|route| match route {
        RouteChoice::Auto => false,
        RouteChoice::Private => crate::policy::private_ranges().any(|network| nested(&network)),
        RouteChoice::Network(network) => nested(network),
    });
    if let Some(named) = named {
        return RouteReason::Option { value: named.to_string() };
    }
    let around = routes.filter(|route| route.prefix.contains(&prefix));
    interfaces(around.max_by_key(|route| route.prefix.prefix_len()).into_iter().collect())
}

fn notes(policy: &Policy) -> Vec<Note> {
    let note = |code: &str, text: String| Note {
        code: code.to_owned(),
        level: Level::Warning,
        sidecar: false,
        text,
    };
    let overlaps = policy.overlaps().iter().map(|overlap| note("overlap", overlap.to_string()));
    let hints = policy.hints().iter().map(|hint| {
        let code = match hint {
            Hint::FullTunnel { .. } => "full-tunnel",
            Hint::Nothing => "no-networks",
            Hint::TooManyRoutes => "too-many-routes",
        };
        note(code, hint.to_string())
    });
    overlaps.chain(hints).collect()
}

#[cfg(test)]
mod tests;
