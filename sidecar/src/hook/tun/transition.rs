//! From one table of routes to another, step by step, without a wrong route in between. Pure.
//!
//! The kernel changes one route at a time. In between, each address must be looked up as in the old table or as in the
//! new one: what is forwarded in both must never take the default route, and what is kept out of the tunnel in both must
//! never enter it. Lookups take the longest matching prefix, so this order does it:
//!
//! 1. Set the new routes, longest prefix first. A route that is set is the longest match of the new table for every
//!    address it decides, because the longer ones are there already. A route of the other kind for the same prefix is
//!    replaced in one step.
//! 2. Remove the old routes, shortest prefix first. As long as an old route decides an address, no shorter old route
//!    can appear behind it when it goes: only the new table's match.

use ipnet::IpNet;

use crate::hook::plan::{Table, Target};

/// The steps from one table to another.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Transition {
    /// Routes to create or replace, in this order, before anything is removed.
    pub(crate) set: Vec<(IpNet, Target)>,
    /// Routes to remove, in this order.
    pub(crate) remove: Vec<(IpNet, Target)>,
}

impl Transition {
    /// The steps from `old` to `new`.
    pub(crate) fn between(old: &Table, new: &Table) -> Self {
        let changed = new.iter().filter(|(net, target)| old.get(net) != Some(target));
        let gone = old.iter().filter(|(net, _)| !new.contains_key(net));
        let mut set: Vec<_> = changed.map(|(net, target)| (*net, *target)).collect();
        let mut remove: Vec<_> = gone.map(|(net, target)| (*net, *target)).collect();
        set.sort_by_key(|(net, _)| std::cmp::Reverse(net.prefix_len()));
        remove.sort_by_key(|(net, _)| net.prefix_len());
        Self { set, remove }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn lookup(table: &Table, address: IpAddr) -> Option<Target> {
        let matches = table.iter().filter(|(net, _)| net.contains(&address));
        matches.max_by_key(|(net, _)| net.prefix_len()).map(|(_, target)| *target)
    }

    #[test]
    fn a_route_of_another_kind_is_replaced_and_not_removed() {
        let old = Table::from([(net("10.0.0.5/32"), Target::Tunnel)]);
        let new = Table::from([(net("10.0.0.5/32"), Target::Direct)]);
        let Transition { set, remove } = Transition::between(&old, &new);
        assert_eq!(set, [(net("10.0.0.5/32"), Target::Direct)]);
        assert_eq!(remove, []);
    }

    #[test]
    fn equal_tables_need_no_steps() {
        let table = Table::from([(net("10.0.0.0/8"), Target::Tunnel)]);
        assert_eq!(Transition::between(&table, &table.clone()), Transition::default());
    }

    /// Prefixes within 10.0.0.0/24 that nest in all ways.
    fn any_table() -> impl Strategy<Value = Table> {
        let target = prop_oneof![Just(Target::Tunnel), Just(Target::Direct)];
        let net = (any::<u8>(), 24_u8..=32)
            .prop_map(|(n, length)| IpNet::new(IpAddr::from([10, 0, 0, n]), length).unwrap().trunc());
        prop::collection::btree_map(net, target, 0..20)
    }

    proptest! {
        #[test]
        fn every_address_is_looked_up_as_before_or_as_after_at_every_step(old in any_table(), new in any_table()) {
            let addresses: Vec<_> = (0..=255).map(|n| IpAddr::from([10, 0, 0, n])).collect();
            let mut table = old.clone();
            let Transition { set, remove } = Transition::between(&old, &new);
            let steps = set.iter().map(|step| (true, step)).chain(remove.iter().map(|step| (false, step)));
            for (is_set, &(net, target)) in steps {
                if is_set {
                    table.insert(net, target);
                } else {
                    prop_assert_eq!(table.remove(&net), Some(target));
                }
                for &address in &addresses {
                    let (before, now, after) =
                        (lookup(&old, address), lookup(&table, address), lookup(&new, address));
                    prop_assert!(now == before || now == after, "{address}: {before:?}, {now:?}, {after:?}");
                }
            }
            prop_assert_eq!(table, new);
        }
    }
}
