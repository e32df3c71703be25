//! Whose packets a session takes, and whose questions it answers: the host's own, those of its containers, and those of the
//! networks that the laptop's user names. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use gh_net_common::frame::Sources;
use ipnet::IpNet;

use crate::hook::{Networks, Packets};

/// The packets that enter the tunnel besides the host's own.
pub(super) fn packets(from: &Sources, found: &Networks) -> BTreeSet<Packets> {
    let bridges = found.bridges.iter().filter(|_| from.containers).cloned().map(Packets::By);
    bridges.chain(networks(from).map(Packets::From)).collect()
}

/// The networks that the user names. Everything is none of them: the kernel reads a rule from 0.0.0.0/0 as one without
/// a source, and removes the wrong one for it.
fn networks(from: &Sources) -> impl Iterator<Item = IpNet> {
    from.networks.iter().map(IpNet::trunc).filter(|net| net.prefix_len() > 0)
}

/// The addresses whose questions are answered: the same as far as an address tells.
pub(super) fn clients(from: &Sources, found: &Networks) -> Vec<IpNet> {
    let own = found.addresses.iter().map(|(address, _)| IpNet::from(address.addr()));
    let is_bridge = |name: &String| from.containers && found.bridges.contains(name);
    let containers = found.addresses.iter().filter(|(_, name)| is_bridge(name)).map(|(net, _)| net.trunc());
    let loopback = [IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])].map(IpNet::from);
    loopback.into_iter().chain(own).chain(containers).chain(networks(from)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found() -> Networks {
        Networks {
            addresses: vec![
                ("172.16.5.4/24".parse().unwrap(), "eth0".to_owned()),
                ("172.17.0.1/16".parse().unwrap(), "docker0".to_owned()),
            ],
            bridges: BTreeSet::from(["docker0".to_owned()]),
            ..Networks::default()
        }
    }

    fn answers(from: &Sources, client: &str) -> bool {
        let client: IpAddr = client.parse().unwrap();
        clients(from, &found()).iter().any(|net| net.contains(&client))
    }

    #[test]
    fn everything_is_no_network_to_take_packets_from() {
        let everything = ["0.0.0.0/0", "::/0"].map(|net| net.parse().unwrap());
        let from = Sources { containers: false, networks: everything.to_vec() };
        assert_eq!(packets(&from, &found()), BTreeSet::new());
        assert!(!answers(&from, "172.16.5.7"));
    }

    #[test]
    fn containers_are_taken_unless_they_are_excluded_and_neighbours_only_if_they_are_named() {
        let none = Sources { containers: false, networks: vec![] };
        let auto = Sources { containers: true, networks: vec![] };
        let named = Sources { containers: false, networks: vec!["172.16.5.7/32".parse().unwrap()] };
        for (from, container, neighbour) in [(none, false, false), (auto, true, false), (named, false, true)]
        {
            assert!(answers(&from, "172.16.5.4") && answers(&from, "127.0.0.1"), "its own");
            assert_eq!(answers(&from, "172.17.0.2"), container, "{from:?}");
            assert_eq!(answers(&from, "172.16.5.7"), neighbour, "{from:?}");
            let packets = packets(&from, &found());
            assert_eq!(packets.contains(&Packets::By("docker0".to_owned())), container);
            assert_eq!(packets.len(), usize::from(container) + usize::from(neighbour));
        }
    }
}
