//! The laptop's networks as the session uses them: what is forwarded and why, the frames for the sidecar, and the
//! consequences of a change. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use gh_net_common::frame::{self, Dns, DnsMode, Frame, MAX_PREFIXES, Opened, Rebind, Routes};
use ipnet::IpNet;

use super::settings;
use crate::netwatch::{NextHop, RouteKind, Snapshot};
use crate::policy::{self, Choice, Codespace, Overlap, Policy, Report, Rules};
use crate::resolver::{Configuration, search};
use crate::status::{CodespaceChange, Level, Note, Route, RouteChange};

/// The state of the networks, and the policy that follows from it.
#[derive(Debug)]
pub(super) struct Networks {
    choice: Choice,
    mode: DnsMode,
    rebind: Rebind,
    snapshot: Snapshot,
    resolver: Configuration,
    codespace: Codespace,
    /// The codespace's own resolvers.
    resolvers: Vec<IpAddr>,
    policy: Policy,
    routes: Vec<Route>,
    notes: Vec<Note>,
    dns: Option<Dns>,
}

/// The consequences of a change.
#[derive(Debug)]
pub(super) struct Update {
    /// The policy for new flows, if it is another one.
    pub(super) policy: Option<Policy>,
    /// The frames for the sidecar.
    pub(super) frames: Vec<Frame>,
    /// The changes of forwarded networks.
    pub(super) changes: Vec<RouteChange>,
    /// Notes that did not hold before.
    pub(super) notes: Vec<Note>,
    /// Whether the laptop has a default route that it did not have before.
    pub(super) new_default_route: bool,
    /// Addresses that the laptop has gained.
    pub(super) gained: Vec<IpAddr>,
    /// Addresses that the laptop has lost.
    pub(super) lost: Vec<IpAddr>,
}

impl Networks {
    /// The networks of `snapshot`, and the configuration of the laptop's resolver.
    pub(super) fn new(choice: Choice, mode: DnsMode, snapshot: Snapshot, resolver: Configuration) -> Self {
        let mut networks = Self {
            choice,
            mode,
            rebind: Rebind::default(),
            snapshot,
            resolver,
            codespace: Codespace::default(),
            resolvers: Vec::new(),
            policy: Policy::default(),
            routes: Vec::new(),
            notes: Vec::new(),
            dns: None,
        };
        networks.decide();
        networks
    }

    /// With this setting of what becomes of public names that lead into the laptop's networks.
    pub(super) fn with_rebind(mut self, rebind: Rebind) -> Self {
        self.rebind = rebind;
        self.decide();
        self
    }

    /// Prefixes that the tunnel's own addresses must not overlap.
    pub(super) fn avoid(&self) -> Vec<IpNet> {
        let mut avoid = policy::tunnel_avoid(&self.choice, &self.snapshot, &self.codespace.networks);
        avoid.truncate(MAX_PREFIXES);
        avoid
    }

    /// The policy in force.
    pub(super) fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The forwarded networks.
    pub(super) fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// The user's rules in force, in order, as text.
    pub(super) fn rules(&self) -> Vec<String> {
        self.choice.rules.list().iter().map(ToString::to_string).collect()
    }

    /// The settings of DNS as the sidecar gets them; `None` if nobody is to be asked.
    pub(super) fn dns(&self) -> Option<&Dns> {
        self.dns.as_ref()
    }

    /// Whether the codespace may ask the laptop's resolver.
    pub(super) fn answers_dns(&self) -> bool {
        self.mode != DnsMode::Off
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
            gateways: opened.addresses.iter().map(|address| address.gateway).collect(),
        };
        self.resolvers = opened.resolvers.clone();
        self.change(|networks| networks.codespace = codespace)
    }

    /// The codespace's own networks or resolvers have changed while the session is open. Returns what the user is told:
    /// of the networks only those that overlap none of the laptop's, because a notice of the sidecar names the others,
    /// with their interface.
    pub(super) fn follow_codespace(&mut self, codespace: frame::Codespace) -> (Update, CodespaceChange) {
        let frame::Codespace { networks, resolvers } = codespace;
        let free = |network: &IpNet| !overlaps(self.policy.routes(), network);
        let added = missing(&networks, &self.codespace.networks, |network| *network);
        let removed = missing(&self.codespace.networks, &networks, |network| *network);
        let change = CodespaceChange {
            added: added.into_iter().filter(free).collect(),
            removed: removed.into_iter().filter(free).collect(),
            resolvers: (resolvers != self.resolvers).then(|| resolvers.clone()),
        };
        self.resolvers = resolvers;
        let mut update = self.change(|own| own.codespace.networks = networks);
        update.notes.retain(|note| note.code != Overlap::CODE);
        (update, change)
    }

    /// The user has changed the rules.
    pub(super) fn set_rules(&mut self, rules: Rules) -> Update {
        self.change(|networks| networks.choice.rules = rules)
    }

    /// The laptop's networks or its resolver's configuration may have changed. `None` if nothing did.
    ///
    /// The sidecar is sent the DNS settings even if they are the same: it uses answers again until it gets any.
    pub(super) fn update(&mut self, snapshot: Snapshot, resolver: Configuration) -> Option<Update> {
        let delta = self.snapshot.delta(&snapshot);
        if delta.is_empty() && resolver == self.resolver {
            return None;
        }
        let may_answer_otherwise = resolver != self.resolver || delta.moves_packets();
        tracing::debug!("the laptop's networks changed: {delta}");
        let new_default_route = !default_routes(&snapshot).is_subset(&default_routes(&self.snapshot));
        let (before, after) = (addresses(&self.snapshot), addresses(&snapshot));
        let mut update = self.change(|networks| {
            networks.snapshot = snapshot;
            networks.resolver = resolver;
        });
        let has_dns = update.frames.iter().any(|frame| matches!(frame, Frame::Dns(_)));
        if may_answer_otherwise && !has_dns {
            update.frames.extend(self.dns.clone().map(Frame::Dns));
        }
        let lost = before.difference(&after).copied().collect();
        let gained = after.difference(&before).copied().collect();
        Some(Update { new_default_route, lost, gained, ..update })
    }

    /// The laptop's networks are changing: additions are applied at once. Removals wait for [`Self::update`], because a
    /// missing network may be about to return, and removing it would reset its flows.
    pub(super) fn add(&mut self, snapshot: &Snapshot, resolver: Configuration) -> Option<Update> {
        self.update(self.snapshot.with_additions(snapshot), resolver)
    }

    /// The frames that set up a new link: all routes, and how names are resolved.
    pub(super) fn link_frames(&self) -> Vec<Frame> {
        let mut frames: Vec<Frame> = Routes::full(self.policy.routes()).collect();
        frames.extend(self.dns.clone().map(Frame::Dns));
        frames
    }

    fn change(&mut self, apply: impl FnOnce(&mut Self)) -> Update {
        let (routes, notes, dns) = (self.routes.clone(), self.notes.clone(), self.dns.clone());
        let before = self.policy.clone();
        apply(self);
        self.decide();
        let changes = changes(&routes, &self.routes);
        let mut frames = route_frames(before.routes(), self.policy.routes());
        if self.dns != dns {
            frames.extend(self.dns.clone().map(Frame::Dns));
        }
        let notes = self.notes.iter().filter(|note| !notes.contains(note)).cloned().collect();
        Update {
            policy: (self.policy != before).then(|| self.policy.clone()),
            frames,
            changes,
            notes,
            new_default_route: false,
            gained: Vec::new(),
            lost: Vec::new(),
        }
    }

    fn decide(&mut self) {
        self.policy = Policy::new(&self.choice, &self.snapshot, &self.codespace);
        let report = Report::new(&self.choice, &self.snapshot, &self.codespace);
        self.routes = routes(&report);
        self.notes = notes(&report);
        if self.mode != DnsMode::Off {
            self.notes.extend(search_note(&self.resolver.search));
        }
        let dns = || {
            settings::dns(
                self.mode,
                self.rebind,
                self.policy.routes(),
                &self.resolver.search,
                &self.choice.rules,
            )
        };
        self.dns = (self.mode != DnsMode::Off).then(dns);
    }
}

/// The frames that turn the old set of networks into the new one.
fn route_frames(before: &[IpNet], after: &[IpNet]) -> Vec<Frame> {
    let (add, remove) = (missing(after, before, |prefix| *prefix), missing(before, after, |prefix| *prefix));
    if add.is_empty() && remove.is_empty() {
        Vec::new()
    } else if add.len().max(remove.len()) > MAX_PREFIXES {
        Routes::full(after).collect()
    } else {
        vec![Frame::Routes(Routes::Change { add, remove })]
    }
}

/// The difference between two sets of routes by prefix; a new reason alone is no change.
fn changes(before: &[Route], after: &[Route]) -> Vec<RouteChange> {
    let added = missing(after, before, |route| route.prefix).into_iter().map(RouteChange::Added);
    let removed = missing(before, after, |route| route.prefix).into_iter().map(RouteChange::Removed);
    added.chain(removed).collect()
}

/// The entries of `these` whose prefix is not among those of `others`.
fn missing<T: Clone>(these: &[T], others: &[T], prefix: impl Fn(&T) -> IpNet) -> Vec<T> {
    let known: BTreeSet<IpNet> = others.iter().map(&prefix).collect();
    these.iter().filter(|entry| !known.contains(&prefix(entry))).cloned().collect()
}

/// Whether `network` shares addresses with one of `routes`, which are disjoint and in ascending order.
fn overlaps(routes: &[IpNet], network: &IpNet) -> bool {
    let network = network.trunc();
    let after = routes.partition_point(|route| route.network() <= network.network());
    let before = after.checked_sub(1).and_then(|before| routes.get(before));
    let near = before.into_iter().chain(routes.get(after));
    near.into_iter().any(|route| route.contains(&network) || network.contains(route))
}

/// The default routes by their next hops.
fn default_routes(snapshot: &Snapshot) -> BTreeSet<&[NextHop]> {
    let routes = snapshot.routes.iter();
    let defaults = routes.filter(|route| route.prefix.prefix_len() == 0 && route.kind == RouteKind::Unicast);
    defaults.map(|route| route.hops.as_slice()).collect()
}

fn addresses(snapshot: &Snapshot) -> BTreeSet<IpAddr> {
    snapshot.addresses.iter().map(|address| address.address.addr()).collect()
}

fn routes(report: &Report) -> Vec<Route> {
    let routes = report.routes.iter();
    routes.map(|route| Route { prefix: route.network, reason: route.reason.clone().into() }).collect()
}

fn note(code: &str, text: String) -> Note {
    Note { code: code.to_owned(), level: Level::Warning, sidecar: false, text }
}

/// Says which search domains are not believed.
fn search_note(search: &[String]) -> Option<Note> {
    let refused: Vec<&str> =
        search.iter().map(String::as_str).filter(|name| !search::is_plausible(name)).collect();
    let text = format!(
        "the search domain {} in this machine's resolv.conf is not used: it belongs to the public, and the network that \
         handed it out would be asked for all names in it",
        refused.join(", ")
    );
    (!refused.is_empty()).then(|| note("search-domain-refused", text))
}

fn notes(report: &Report) -> Vec<Note> {
    let overlaps = report.overlaps.iter().map(|overlap| note(Overlap::CODE, overlap.to_string()));
    overlaps.chain(report.hints.iter().map(|hint| note(hint.code(), hint.to_string()))).collect()
}

#[cfg(test)]
mod tests;
