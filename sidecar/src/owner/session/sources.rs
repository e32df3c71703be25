//! Whose packets a session takes, and whose questions it answers: the host's own, those of its containers, and those of the
//! networks that the laptop's user names. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use gh_net_common::debounce::Changes;
use gh_net_common::frame::Sources;
use ipnet::IpNet;

use crate::hook::{Bridges, MAX_TABLES, Networks, OwnTable, Packets};

/// Maximum number of bridges of containers. Each takes a rule that every packet is compared with.
const MAX_BRIDGES: usize = 64;

/// What is known of the codespace, as far as it matters here.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// The bridges of its containers.
    bridges: BTreeSet<String>,
    /// Its addresses with the lengths of their prefixes, each with its interface's name.
    addresses: BTreeSet<(IpNet, String)>,
    /// The tables that need a rule of the hook to win.
    pub(super) tables: BTreeSet<OwnTable>,
}

impl Known {
    /// Takes over what a look has found. While the codespace is changing, what is missing may come back, so it counts on; but
    /// a bridge that leads to neighbours now is the containers' no more.
    pub(super) fn take(&mut self, found: &Networks, changes: Changes) {
        let Bridges { containers, others } = &found.bridges;
        match changes {
            Changes::Settled => *self = Self::default(),
            Changes::Ongoing => self.bridges.retain(|bridge| !others.contains(bridge)),
        }
        self.bridges.extend(containers.iter().cloned());
        self.addresses.extend(found.addresses.iter().cloned());
        self.tables.extend(found.tables());
    }

    fn bridges(&self, from: &Sources) -> impl Iterator<Item = &String> {
        self.bridges.iter().filter(|_| from.containers).take(MAX_BRIDGES)
    }

    /// The packets that enter the tunnel besides the host's own.
    pub(super) fn packets(&self, from: &Sources) -> BTreeSet<Packets> {
        self.bridges(from).cloned().map(Packets::By).chain(networks(from).map(Packets::From)).collect()
    }

    /// The addresses whose questions are answered: the same as far as an address tells.
    pub(super) fn clients(&self, from: &Sources) -> Vec<IpNet> {
        let bridges: BTreeSet<&String> = self.bridges(from).collect();
        let own = self.addresses.iter().map(|(address, _)| IpNet::from(address.addr()));
        let containers = self.addresses.iter().filter(|(_, name)| bridges.contains(name));
        let loopback =
            [IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])].map(IpNet::from);
        let containers = containers.map(|(net, _)| net.trunc());
        loopback.into_iter().chain(own).chain(containers).chain(networks(from)).collect()
    }

    /// What there is no room for, as text.
    pub(super) fn left_out(&self, from: &Sources) -> Vec<String> {
        let mut left_out = Vec::new();
        if from.containers && self.bridges.len() > MAX_BRIDGES {
            let bridges = self.bridges.iter().skip(MAX_BRIDGES).map(String::as_str).collect::<Vec<_>>();
            left_out.push(format!(
                "packets of containers behind {} do not enter the tunnel: there are more than {MAX_BRIDGES} bridges",
                bridges.join(", ")
            ));
        }
        let is_over = |v6| self.tables.iter().filter(|(of_v6, _)| *of_v6 == v6).count() > MAX_TABLES;
        if is_over(false) || is_over(true) {
            left_out.push(format!(
                "networks in some of the codespace's routing tables do not win over the laptop's: there are more than \
                 {MAX_TABLES} tables"
            ));
        }
        left_out
    }
}

/// The networks that the user names. Everything is none of them: the kernel reads a rule from 0.0.0.0/0 as one without
/// a source, and removes the wrong one for it.
fn networks(from: &Sources) -> impl Iterator<Item = IpNet> {
    from.networks.iter().map(IpNet::trunc).filter(|net| net.prefix_len() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AUTO: Sources = Sources { containers: true, networks: vec![] };
    const NONE: Sources = Sources { containers: false, networks: vec![] };

    fn bridges(containers: &[&str], others: &[&str]) -> Bridges {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        Bridges { containers: names(containers), others: names(others) }
    }

    fn found() -> Networks {
        Networks {
            addresses: vec![
                ("172.16.5.4/24".parse().unwrap(), "eth0".to_owned()),
                ("172.17.0.1/16".parse().unwrap(), "docker0".to_owned()),
            ],
            bridges: bridges(&["docker0"], &[]),
            ..Networks::default()
        }
    }

    fn known() -> Known {
        let mut known = Known::default();
        known.take(&found(), Changes::Settled);
        known
    }

    impl Known {
        fn answers(&self, from: &Sources, client: &str) -> bool {
            let client: IpAddr = client.parse().unwrap();
            self.clients(from).iter().any(|net| net.contains(&client))
        }

        fn takes_packets_by(&self, bridge: &str) -> bool {
            self.packets(&AUTO).contains(&Packets::By(bridge.to_owned()))
        }
    }

    #[test]
    fn everything_is_no_network_to_take_packets_from() {
        let everything = ["0.0.0.0/0", "::/0"].map(|net| net.parse().unwrap());
        let from = Sources { containers: false, networks: everything.to_vec() };
        assert_eq!(known().packets(&from), BTreeSet::new());
        assert!(!known().answers(&from, "172.16.5.7"));
    }

    #[test]
    fn containers_are_taken_unless_they_are_excluded_and_neighbours_only_if_they_are_named() {
        let known = known();
        let named = Sources { containers: false, networks: vec!["172.16.5.7/32".parse().unwrap()] };
        for (from, container, neighbour) in [(NONE, false, false), (AUTO, true, false), (named, false, true)]
        {
            assert!(known.answers(&from, "172.16.5.4") && known.answers(&from, "127.0.0.1"), "its own");
            assert_eq!(known.answers(&from, "172.17.0.2"), container, "{from:?}");
            assert_eq!(known.answers(&from, "172.16.5.7"), neighbour, "{from:?}");
            let packets = known.packets(&from);
            assert_eq!(packets.contains(&Packets::By("docker0".to_owned())), container);
            assert_eq!(packets.len(), usize::from(container) + usize::from(neighbour));
        }
    }

    #[test]
    fn a_look_that_changes_interrupted_takes_nobodys_place_away() {
        let mut known = known();
        known.take(&Networks { is_interrupted: true, ..Networks::default() }, Changes::Ongoing);
        assert!(known.answers(&AUTO, "172.16.5.4") && known.answers(&AUTO, "172.17.0.2"));
        assert!(known.takes_packets_by("docker0"));
        let late = Networks { bridges: bridges(&["br-late"], &[]), ..Networks::default() };
        known.take(&late, Changes::Ongoing);
        assert!(known.takes_packets_by("docker0") && known.takes_packets_by("br-late"));
        known.take(&late, Changes::Settled);
        assert!(!known.takes_packets_by("docker0") && known.takes_packets_by("br-late"));
    }

    #[test]
    fn a_bridge_that_gets_a_network_card_is_the_containers_no_more() {
        let mut known = known();
        let neighbours = Networks { bridges: bridges(&[], &["docker0"]), ..found() };
        known.take(&neighbours, Changes::Ongoing);
        assert!(!known.takes_packets_by("docker0") && !known.answers(&AUTO, "172.17.0.2"));
    }

    #[test]
    fn what_there_is_no_room_for_is_told() {
        assert!(known().left_out(&AUTO).is_empty());
        let names: Vec<String> = (100..=100 + MAX_BRIDGES).map(|number| format!("br-{number}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut known = Known::default();
        known.take(&Networks { bridges: bridges(&names, &[]), ..Networks::default() }, Changes::Settled);
        assert_eq!(known.packets(&AUTO).len(), MAX_BRIDGES);
        assert_eq!(
            known.left_out(&AUTO),
            ["packets of containers behind br-164 do not enter the tunnel: there are more than 64 bridges"]
        );
        assert!(known.left_out(&NONE).is_empty());
    }
}
