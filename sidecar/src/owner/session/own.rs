//! What the codespace has of its own, and what its user is told when that changes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use gh_net_common::frame::{Codespace, MAX_PREFIXES, TunnelAddress};
use gh_net_common::netlink::Route;
use gh_net_common::reserved;
use ipnet::IpNet;

use crate::attempts::Attempts;
use crate::hook::plan::overlaps;
use crate::hook::{Networks, interface_name};

/// Maximum number of networks in one notice.
const LISTED: usize = 8;

/// How many changes of the codespace's networks the user is told [within this time](TOLD_WITHIN). The laptop's report has
/// all of them.
const MAX_TOLD: usize = 20;
const TOLD_WITHIN: Duration = Duration::from_secs(5 * 60);

/// How many changes of the codespace's networks the user is told.
pub(super) fn told() -> Attempts {
    Attempts::new(MAX_TOLD, TOLD_WITHIN)
}

/// What the codespace has of its own, as far as it is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Own {
    /// The networks that it reaches by itself, and by which interfaces.
    pub(super) networks: BTreeMap<IpNet, String>,
    /// Its resolvers.
    pub(super) resolvers: Vec<IpAddr>,
}

impl Own {
    /// In the form for the laptop.
    pub(super) fn codespace(&self) -> Codespace {
        Codespace { networks: self.networks.keys().copied().collect(), resolvers: self.resolvers.clone() }
    }
}

/// The codespace's networks among those found, without those of our own `addresses`.
pub(super) fn networks(found: &Networks, addresses: &[TunnelAddress]) -> BTreeMap<IpNet, String> {
    let tunnel = |net: &IpNet| addresses.iter().any(|address| address.sidecar.trunc().contains(net));
    let networks = found.own().map(|route| (route.prefix, route));
    let networks: BTreeMap<IpNet, &Route> =
        networks.filter(|(net, _)| !reserved::contains(net) && !tunnel(net)).collect();
    networks.into_iter().take(MAX_PREFIXES).map(|(net, route)| (net, interfaces(route))).collect()
}

/// The names of the interfaces of a route.
fn interfaces(route: &Route) -> String {
    let names: BTreeSet<String> = route.hops.iter().map(|hop| interface_name(hop.interface)).collect();
    names.into_iter().collect::<Vec<_>>().join(", ")
}

/// The notices on networks of the codespace that came and went and overlap those of the laptop, with their codes.
pub(super) fn notices(
    before: &BTreeMap<IpNet, String>,
    after: &BTreeMap<IpNet, String>,
    laptop: &BTreeSet<IpNet>,
) -> Vec<(&'static str, String)> {
    let only_in = |these: &BTreeMap<IpNet, String>, others: &BTreeMap<IpNet, String>| {
        let gone = these.iter().filter(|(net, _)| !others.contains_key(net) && overlaps(laptop, net));
        let gone = gone.map(|(net, interfaces)| (*net, interfaces.clone())).collect::<Vec<_>>();
        (!gone.is_empty()).then(|| (by_itself(&gone), gone.len() == 1))
    };
    let mut notices = Vec::new();
    if let Some((new, is_one)) = only_in(after, before) {
        let win =
            if is_one { "it wins over the laptop's route" } else { "they win over the laptop's routes" };
        notices.push(("overlap", format!("the codespace now reaches {new}: {win}")));
    }
    if let Some((gone, _)) = only_in(before, after) {
        let text = format!("the codespace no longer reaches {gone}: the laptop's routes apply again");
        notices.push(("overlap-ended", text));
    }
    notices
}

fn by_itself(networks: &[(IpNet, String)]) -> String {
    if let [(net, interfaces)] = networks {
        return format!("{net} by itself ({interfaces})");
    }
    let mut text: Vec<String> =
        networks.iter().take(LISTED).map(|(net, interfaces)| format!("{net} ({interfaces})")).collect();
    if networks.len() > LISTED {
        text.push(format!("{} more", networks.len() - LISTED));
    }
    format!("{} by itself", text.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(texts: &[&str]) -> BTreeMap<IpNet, String> {
        texts.iter().map(|text| (text.parse().unwrap(), "docker1".to_owned())).collect()
    }

    fn told(before: &[&str], after: &[&str]) -> Vec<(&'static str, String)> {
        let laptop = ["10.20.0.0/16", "192.168.1.0/24"].map(|net| net.parse().unwrap());
        notices(&own(before), &own(after), &laptop.into())
    }

    #[test]
    fn a_network_that_overlaps_is_told_when_it_comes_and_when_it_goes() {
        let both = ["10.20.3.0/24", "172.17.0.0/16"];
        let text =
            "the codespace now reaches 10.20.3.0/24 by itself (docker1): it wins over the laptop's route";
        assert_eq!(told(&[], &both), [("overlap", text.to_owned())]);
        assert_eq!(told(&both, &both), []);
        let text = "the codespace no longer reaches 10.20.3.0/24 by itself (docker1): the laptop's routes apply again";
        assert_eq!(told(&both, &[]), [("overlap-ended", text.to_owned())]);
        // A wider one as well.
        assert_eq!(told(&["172.17.0.0/16"], &["10.0.0.0/8"])[0].0, "overlap");
    }

    #[test]
    fn many_at_once_are_one_notice() {
        let many: Vec<String> = (0..20).map(|number| format!("10.20.{number}.0/24")).collect();
        let notices = told(&[], &many.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(notices.len(), 1);
        assert!(
            notices[0].1.contains("10.20.7.0/24 (docker1), 12 more by itself: they win"),
            "{}",
            notices[0].1
        );
    }
}
