//! From one table of routes to another. Pure.

use ipnet::IpNet;

use crate::hook::plan::{Table, Way};

/// How to get from one table to another.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Diff {
    /// Routes to take away, first.
    pub(crate) remove: Vec<(IpNet, Way)>,
    /// Routes to add.
    pub(crate) add: Vec<(IpNet, Way)>,
}

/// What changes `old` into `new`. What goes around the tunnel is added before what goes through it.
pub(crate) fn diff(old: &Table, new: &Table) -> Diff {
    let missing_in =
        |other: &Table, (net, way): (&IpNet, &Way)| (other.get(net) != Some(way)).then_some((*net, *way));
    let mut add: Vec<_> = new.iter().filter_map(|route| missing_in(old, route)).collect();
    add.sort_by_key(|(_, way)| *way == Way::Tunnel);
    Diff { remove: old.iter().filter_map(|route| missing_in(new, route)).collect(), add }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn a_route_that_changes_its_way_is_removed_and_added() {
        let old = Table::from([(net("10.0.0.5/32"), Way::Tunnel)]);
        let new = Table::from([(net("10.0.0.5/32"), Way::Around)]);
        let diff = diff(&old, &new);
        assert_eq!(diff.remove, [(net("10.0.0.5/32"), Way::Tunnel)]);
        assert_eq!(diff.add, [(net("10.0.0.5/32"), Way::Around)]);
    }

    fn any_table() -> impl Strategy<Value = Table> {
        let way = prop_oneof![Just(Way::Tunnel), Just(Way::Around)];
        prop::collection::btree_map(
            (0_u8..20).prop_map(|n| IpNet::from(IpAddr::from([10, 0, 0, n]))),
            way,
            0..15,
        )
    }

    proptest! {
        #[test]
        fn the_difference_leads_from_the_old_table_to_the_new(old in any_table(), new in any_table()) {
            let diff = diff(&old, &new);
            let mut table = old.clone();
            for (net, way) in &diff.remove {
                prop_assert_eq!(table.remove(net), Some(*way));
            }
            for (net, way) in &diff.add {
                prop_assert_eq!(table.insert(*net, *way), None);
            }
            prop_assert_eq!(table, new);
        }
    }
}
