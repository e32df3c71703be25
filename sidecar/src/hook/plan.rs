//! Which networks are forwarded: what the laptop announced, less what must never enter a tunnel. Pure.
//!
//! The result is a [`Table`] of prefixes, looked up by longest prefix. Addresses that carry the session itself (the ssh
//! peer, the codespace's default gateways, its own resolvers) and networks that are never forwarded (loopback,
//! link-local with the metadata services, multicast) are entries of their own, so they win over any network of the
//! laptop that contains them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use gh_net_common::frame::{self, Families, TunnelAddress};
use gh_net_common::reserved;
use ipnet::IpNet;

/// Maximum number of the laptop's networks.
pub(crate) const MAX_ROUTES: usize = 16_384;

/// What happens to packets for a prefix of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// They are forwarded.
    Tunnel,
    /// They are routed as they would be without a hook.
    Direct,
}

/// What happens to packets, by longest prefix. Packets that match no prefix are not forwarded.
pub(crate) type Table = BTreeMap<IpNet, Target>;

/// How many of the laptop's networks were refused, by reason.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refused {
    /// The tunnel does not have their address family.
    pub(crate) family: usize,
    /// Loopback, link-local, multicast, or in the tunnel's own prefix.
    pub(crate) never: usize,
    /// More than [`MAX_ROUTES`].
    pub(crate) surplus: usize,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Plan {
    families: Families,
    tunnel: Vec<TunnelAddress>,
    direct: BTreeSet<IpNet>,
    laptop: BTreeSet<IpNet>,
    /// The parts of a full set that is not complete yet.
    parts: Option<Parts>,
}

/// The parts of a full set so far.
#[derive(Debug, Default)]
struct Parts {
    nets: Vec<IpNet>,
    surplus: usize,
}

impl Plan {
    /// A plan for a tunnel with these addresses, without any network of the laptop.
    pub(crate) fn new(tunnel: Vec<TunnelAddress>) -> Self {
        let has = |v6: bool| tunnel.iter().any(|address| address.gateway.is_ipv6() == v6);
        let families = Families { v4: has(false), v6: has(true) };
        Self { families, tunnel, direct: BTreeSet::new(), laptop: BTreeSet::new(), parts: None }
    }

    /// The families the tunnel has.
    pub(crate) fn families(&self) -> Families {
        self.families
    }

    /// Replaces the addresses that carry the session.
    pub(crate) fn set_exceptions(&mut self, exceptions: impl IntoIterator<Item = IpAddr>) {
        self.direct = exceptions
            .into_iter()
            .map(|address| IpNet::from(address.to_canonical()))
            .filter(|net| !reserved::contains(net) && self.has_family(net))
            .collect();
    }

    /// Adds addresses that carry the session.
    pub(crate) fn add_exceptions(&mut self, exceptions: impl IntoIterator<Item = IpAddr>) {
        let known = self.direct.iter().map(IpNet::addr).collect::<Vec<_>>();
        self.set_exceptions(known.into_iter().chain(exceptions));
    }

    /// Applies the laptop's networks, or a change to them. The parts of a full set are collected until it is complete.
    pub(crate) fn update(&mut self, change: &frame::Routes) -> Refused {
        match change {
            frame::Routes::Change { add, remove } => {
                self.parts = None;
                for net in remove {
                    self.laptop.remove(&net.trunc());
                }
                self.add(add)
            }
            frame::Routes::Part(add) => {
                self.collect(add);
                Refused::default()
            }
            frame::Routes::Last(add) => {
                self.collect(add);
                self.laptop.clear();
                let Parts { nets, surplus } = self.parts.take().unwrap_or_default();
                let mut refused = self.add(&nets);
                refused.surplus += surplus;
                refused
            }
        }
    }

    /// Another link replaces the one that routes came from: the rest of an incomplete set will not arrive.
    pub(crate) fn discard_parts(&mut self) {
        self.parts = None;
    }

    /// Prefixes beyond [`MAX_ROUTES`] are only counted.
    fn collect(&mut self, part: &[IpNet]) {
        let parts = self.parts.get_or_insert_default();
        let taken = part.len().min(MAX_ROUTES - parts.nets.len());
        parts.nets.extend(&part[..taken]);
        parts.surplus += part.len() - taken;
    }

    fn add(&mut self, add: &[IpNet]) -> Refused {
        let mut refused = Refused::default();
        for net in add.iter().map(IpNet::trunc) {
            if !self.has_family(&net) {
                refused.family += 1;
            } else if reserved::contains(&net) || self.is_own(&net) {
                refused.never += 1;
            } else if self.laptop.len() >= MAX_ROUTES && !self.laptop.contains(&net) {
                refused.surplus += 1;
            } else {
                self.laptop.insert(net);
            }
        }
        refused
    }

    /// The laptop's networks that are forwarded.
    pub(crate) fn laptop(&self) -> &BTreeSet<IpNet> {
        &self.laptop
    }

    /// The resulting table.
    pub(crate) fn table(&self) -> Table {
        let mut table = Table::new();
        table.extend(self.laptop.iter().map(|net| (*net, Target::Tunnel)));
        table.extend(self.tunnel.iter().map(|address| (address.gateway.into(), Target::Tunnel)));
        table.extend(self.direct.iter().map(|net| (*net, Target::Direct)));
        table.extend(
            reserved::all()
                .map(|(net, _)| net)
                .filter(|net| self.has_family(net))
                .map(|net| (net, Target::Direct)),
        );
        table
    }

    fn has_family(&self, net: &IpNet) -> bool {
        match net {
            IpNet::V4(_) => self.families.v4,
            IpNet::V6(_) => self.families.v6,
        }
    }

    fn is_own(&self, net: &IpNet) -> bool {
        self.tunnel.iter().any(|address| address.sidecar.trunc().contains(net))
    }
}

/// Whether `net` contains one of `nets`, or is contained in one.
pub(crate) fn overlaps(nets: &BTreeSet<IpNet>, net: &IpNet) -> bool {
    // Prefixes are sorted by address, and those that begin within `net` overlap it.
    let first = IpNet::new_assert(net.network(), 0);
    let last = IpNet::new_assert(net.broadcast(), net.max_prefix_len());
    let mut wider = std::iter::successors(Some(*net), IpNet::supernet);
    nets.range(first..=last).next().is_some() || wider.any(|wider| nets.contains(&wider))
}

#[cfg(test)]
mod tests;
