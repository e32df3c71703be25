//! The policy routes of the TUN hook: carries the [plan](crate::hook::plan) out in the kernel.
//!
//! Each family has these rules, after `local` and before `main`:
//!
//! ```text
//! 30000: from all lookup main suppress_prefixlength 0    every route of the codespace except its default wins
//! 30001: from all iif lo lookup 26727                    then ours, for the host's own packets
//! 30001: from all iif docker0 lookup 26727               and for those of its containers
//! 32766: from all lookup main                            then its default
//! ```
//!
//! So the packets of others that the codespace forwards, such as those of its LAN neighbours, are routed as if we were not
//! there.
//!
//! Another table of the codespace that one of its rules looks up after ours, for every packet, gets a rule beside the
//! first one, so that its routes win as those of `main` do.
//!
//! `main` is never edited. In our own table a forwarded network is a route to the TUN device. What must never enter the
//! tunnel is a `throw` route in the same table: the lookup continues with the next rule, as if our table did not exist.
#![expect(clippy::wildcard_enum_match_arm, reason = "the kernel adds messages")]

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use gh_net_common::frame::Families;
use gh_net_common::netlink::{Dump, MAIN_TABLE, MAX_ITEMS, Netlink, Route};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::rule::RuleMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::message::{self, TABLE, is_own, new_rule, only_key, own_route};
use super::table::{Held, Kernel, OwnTable, Step, is_gone};
use crate::hook::plan::{Plan, Table};
use crate::hook::rule::{OWN, Packets, Rule};
use crate::journal::{Change, Journal, Report};

/// The priority of the rules that let the codespace's own networks win; those that lead to our table have the next. The kernel's own rules are 0 (local), 32766
/// (main) and 32767 (default).
const PRIORITY: u32 = 30_000;
/// The kernel's table of this machine's own addresses (`RT_TABLE_LOCAL`).
const LOCAL_TABLE: u32 = 255;
/// Maximum number of other tables of the codespace that get a rule. More than a few belong to a router.
pub(crate) const MAX_TABLES: usize = 32;
/// How often the rules are looked at again because changes interrupted the look.
const LOOKS: usize = 16;

/// The rules of the hook: these `tables` of the codespace win, then ours is looked up, for the host's own packets and for
/// these `others`. `true` is IPv6.
fn rules(families: Families, tables: &BTreeSet<(bool, u32)>, others: &BTreeSet<Packets>) -> Vec<Rule> {
    let mut rules = Vec::new();
    for v6 in [false, true].into_iter().filter(|v6| if *v6 { families.v6 } else { families.v4 }) {
        let tables = tables.iter().filter(|(of_v6, _)| *of_v6 == v6).map(|(_, table)| *table);
        for table in [MAIN_TABLE].into_iter().chain(tables.take(MAX_TABLES)) {
            rules.push(Rule { v6, priority: PRIORITY, packets: Packets::All, table, but_default: true });
        }
        let others = others.iter().filter(|packets| packets.has_family(v6)).cloned();
        for packets in [Packets::By(OWN.to_owned())].into_iter().chain(others) {
            rules.push(Rule { v6, priority: PRIORITY + 1, packets, table: TABLE, but_default: false });
        }
    }
    rules
}

/// Makes `rules` those that are `wanted`, new ones first. One that is refused does not keep the others from it. Returns
/// them as text.
fn replace(
    rules: &mut Vec<Rule>,
    wanted: &[Rule],
    mut add: impl FnMut(&Rule) -> io::Result<()>,
    mut delete: impl FnMut(&Rule) -> io::Result<()>,
) -> Vec<String> {
    let mut refused = Vec::new();
    let missing: Vec<&Rule> = wanted.iter().filter(|rule| !rules.contains(rule)).collect();
    for rule in missing {
        match add(rule) {
            Ok(()) => rules.push(rule.clone()),
            Err(error) => refused.push(format!("{rule}: {error}")),
        }
    }
    rules.retain(|rule| {
        if wanted.contains(rule) {
            return true;
        }
        let deleted = delete(rule);
        if let Err(error) = &deleted {
            refused.push(format!("{rule}, which is to be removed: {error}"));
        }
        deleted.is_err()
    });
    refused
}

/// The hook's routes and rules in the kernel.
#[derive(Debug)]
pub(crate) struct Gateway {
    table: OwnTable<Routes>,
    families: Families,
    /// None if it is withdrawn.
    rules: Vec<Rule>,
}

impl Gateway {
    /// Fills our table, then adds the rules that lead to it for the host's own packets and for these `others`.
    ///
    /// # Errors
    /// The kernel refused a route or a rule, or communication failed. Changes already made are in the journal.
    pub(crate) fn install(
        plan: &Plan,
        device: u32,
        others: &BTreeSet<Packets>,
        journal: &mut Journal,
    ) -> io::Result<Self> {
        let mut routes = Routes { netlink: Netlink::open()?, device };
        journal.record(Change::Routes)?;
        // Only we use this table: routes in it were left by an owner whose journal was lost.
        routes.flush()?;
        let families = plan.families();
        let rules = rules(families, &BTreeSet::new(), others);
        let mut gateway = Self { table: OwnTable::new(routes), families, rules };
        if let Some(failure) = gateway.follow(plan)?.into_iter().next() {
            return Err(io::Error::other(failure));
        }
        journal.record(Change::Rules)?;
        gateway.rules.iter().try_for_each(add_rule)?;
        Ok(gateway)
    }

    /// The rules of the hook.
    pub(crate) fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Takes all rules and routes away, through the journal: half of them would lead packets for the codespace's own
    /// networks into the tunnel. What can't be undone stays in the journal.
    pub(crate) fn withdraw(&mut self, journal: &mut Journal) -> Report {
        self.rules.clear();
        self.table.forget();
        let is_ours = |change| matches!(change, Change::Rules | Change::Routes);
        journal.undo(is_ours, |change| match change {
            Change::Rules => delete_rules(),
            Change::Routes => flush_table(),
            Change::NodeDirectory | Change::Node | Change::Names => Ok(()),
        })
    }

    /// Whether [`Self::withdraw`] was called.
    pub(crate) fn is_withdrawn(&self) -> bool {
        self.rules.is_empty()
    }

    /// Lets `tables` of the codespace, by family, win over ours: all of their routes except a default route. Besides the
    /// host's own packets, those of `others` get to our table. Returns, as text, the rules that could not be added or
    /// removed; they are tried again the next time.
    pub(crate) fn arrange(
        &mut self,
        tables: &BTreeSet<(bool, u32)>,
        others: &BTreeSet<Packets>,
        journal: &mut Journal,
    ) -> Vec<String> {
        if self.is_withdrawn() {
            return Vec::new();
        }
        let wanted = rules(self.families, tables, others);
        let add = |rule: &Rule| journal.record(Change::Rules).and_then(|()| add_rule(rule));
        replace(&mut self.rules, &wanted, add, delete_rule)
    }

    /// The rules that are missing; `None` if changes interrupted the look.
    ///
    /// # Errors
    /// The kernel's answer.
    pub(crate) fn missing_rules(&self) -> io::Result<Option<Vec<Rule>>> {
        let (present, is_interrupted) = plain_rules()?;
        let missing: Vec<Rule> = self.rules.iter().filter(|rule| !present.contains(rule)).cloned().collect();
        Ok((missing.is_empty() || !is_interrupted).then_some(missing))
    }

    /// Adds rules of the hook again, in their order: without the first one, the second would take packets for the
    /// codespace's own networks, so it is left out then. Returns the kernel's answer for each.
    pub(crate) fn add_rules(&self, missing: &[Rule]) -> Vec<(Rule, io::Result<()>)> {
        let mut results: Vec<(Rule, io::Result<()>)> = Vec::new();
        for rule in missing {
            let is_open = |(first, result): &(Rule, io::Result<()>)| {
                result.is_err() && first.v6 == rule.v6 && first.table == MAIN_TABLE
            };
            if rule.table == TABLE && results.iter().any(is_open) {
                continue;
            }
            results.push((rule.clone(), add_rule(rule)));
        }
        results
    }

    /// Whether our table is as we left it; `None` if changes interrupted the look. If not, [`Self::follow`] mends it.
    ///
    /// # Errors
    /// The kernel's answer.
    pub(crate) fn has_its_routes(&mut self) -> io::Result<Option<bool>> {
        self.table.is_intact()
    }

    /// Makes our table what `plan` says. Returns, as text, the routes that the kernel refused; they are tried again the
    /// next time.
    ///
    /// # Errors
    /// Communication with the kernel failed.
    pub(crate) fn follow(&mut self, plan: &Plan) -> io::Result<Vec<String>> {
        if self.is_withdrawn() {
            return Ok(Vec::new());
        }
        self.table.follow(&plan.table())
    }

    /// The routes in our table.
    pub(crate) fn installed(&self) -> &Table {
        self.table.installed()
    }
}

/// Changes routes of our table.
#[derive(Debug)]
struct Routes {
    netlink: Netlink,
    device: u32,
}

impl Kernel for Routes {
    fn carry_out(&mut self, steps: Vec<Step>) -> io::Result<BTreeMap<usize, io::Error>> {
        let request = |step| match step {
            Step::Set(net, target) => (
                RouteNetlinkMessage::NewRoute(message::route(&net, target, self.device)),
                NLM_F_CREATE | NLM_F_REPLACE,
            ),
            Step::Remove(net, target) => {
                (RouteNetlinkMessage::DelRoute(message::route(&net, target, self.device)), 0)
            }
        };
        let requests = steps.into_iter().map(request).collect();
        Ok(self.netlink.batch(requests)?.into_iter().collect())
    }

    fn read(&mut self) -> io::Result<Held> {
        // Answers to requests that failed may still wait at the old socket.
        self.netlink = Netlink::open()?;
        let device = self.device;
        let request = RouteNetlinkMessage::GetRoute(RouteMessage::default());
        let routes = self.netlink.dump(request, |message| match message {
            RouteNetlinkMessage::NewRoute(route) if is_own(&route) => own_route(&route, device),
            _ => None,
        })?;
        // A dump is bounded. A route that it lacks, or that another program has altered, is set again.
        let table: Table =
            routes.items.into_iter().filter_map(|(net, target)| Some((net, target?))).collect();
        let is_truncated = table.len() >= MAX_ITEMS;
        Ok(Held { table, is_truncated, is_interrupted: routes.interrupted })
    }
}

impl Routes {
    fn flush(&mut self) -> io::Result<()> {
        let ours = |message| {
            let RouteNetlinkMessage::NewRoute(route) = message else { return None };
            let removal = || (RouteNetlinkMessage::DelRoute(only_key(route.clone())), 0);
            is_own(&route).then(removal)
        };
        loop {
            let request = RouteNetlinkMessage::GetRoute(RouteMessage::default());
            let Dump { items: removals, truncated, .. } = self.netlink.dump(request, ours)?;
            let count = removals.len();
            let failures = self.netlink.batch(removals)?;
            let progress = failures.len() < count;
            if let Some((_, error)) = failures.into_iter().find(|(_, error)| !is_gone(error)) {
                return Err(error);
            }
            // A dump is bounded, so a large table takes several.
            if !truncated || !progress {
                return Ok(());
            }
        }
    }
}

/// All rules that look a table up for packets that ours may be for, ours among them. A kernel without policy routing, or without a
/// family, has none. Also whether changes interrupted the look, so that rules may be missing.
///
/// # Errors
/// The kernel's answer.
fn plain_rules() -> io::Result<(Vec<Rule>, bool)> {
    let mut netlink = Netlink::open()?;
    let (mut rules, mut is_interrupted) = (Vec::new(), false);
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut request = RuleMessage::default();
        request.header.family = family;
        let dump = netlink.dump(RouteNetlinkMessage::GetRule(request), |message| match message {
            RouteNetlinkMessage::NewRule(rule) => message::rule(&rule),
            _ => None,
        });
        match dump {
            Ok(dump) => {
                is_interrupted |= dump.interrupted;
                rules.extend(dump.items);
            }
            Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EAFNOSUPPORT)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok((rules, is_interrupted))
}

/// The codespace's own rules that look up a table of its own for every packet: neither the kernel's `local` nor `main`.
/// Also whether changes interrupted the look, so that rules may be missing.
///
/// # Errors
/// The kernel's answer.
pub(crate) fn rules_of_codespace() -> io::Result<(Vec<Rule>, bool)> {
    let (mut rules, is_interrupted) = plain_rules()?;
    let is_kernels = |table| [LOCAL_TABLE, MAIN_TABLE].contains(&table);
    rules.retain(|rule| rule.packets == Packets::All && !is_kernels(rule.table) && !is_ours(rule));
    Ok((rules, is_interrupted))
}

/// Of the codespace's tables, by family, those that its `rules` look up after ours, if they have other `routes` than a
/// default route.
pub(crate) fn tables_after_ours(rules: &[Rule], routes: &[Route]) -> BTreeSet<(bool, u32)> {
    let has_routes = |rule: &&Rule| {
        let mut routes =
            routes.iter().filter(|route| route.table == rule.table && route.prefix.prefix_len() > 0);
        routes.any(|route| route.prefix.addr().is_ipv6() == rule.v6)
    };
    let after = rules.iter().filter(|rule| rule.priority > PRIORITY);
    after.filter(has_routes).map(|rule| (rule.v6, rule.table)).collect()
}

fn add_rule(rule: &Rule) -> io::Result<()> {
    match Netlink::open()?.request(new_rule(rule), NLM_F_CREATE | NLM_F_EXCL) {
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        result => result,
    }
}

/// Removes every route from our table.
///
/// # Errors
/// The kernel's answer.
pub(crate) fn flush_table() -> io::Result<()> {
    Routes { netlink: Netlink::open()?, device: 0 }.flush()
}

/// Whether a rule is one that we add: it looks up our table, or another one in place of ours but for its default route.
fn is_ours(rule: &Rule) -> bool {
    rule.table == TABLE || rule.priority == PRIORITY && rule.but_default && rule.packets == Packets::All
}

/// Removes every rule of ours.
///
/// # Errors
/// The kernel's answer, or the rules change all the time.
pub(crate) fn delete_rules() -> io::Result<()> {
    for _ in 0..LOOKS {
        let (rules, is_interrupted) = plain_rules()?;
        rules.iter().filter(|rule| is_ours(rule)).try_for_each(delete_rule)?;
        if !is_interrupted {
            return Ok(());
        }
    }
    Err(io::Error::other("the rules change all the time, so some of gh-net's may be left"))
}

/// Removes a rule. No error if it does not exist.
fn delete_rule(rule: &Rule) -> io::Result<()> {
    let RouteNetlinkMessage::NewRule(message) = new_rule(rule) else { return Ok(()) };
    match Netlink::open()?.request(RouteNetlinkMessage::DelRule(message), 0) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EAFNOSUPPORT)) => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use gh_net_common::netlink::RouteKind;

    use super::*;

    #[test]
    fn each_wanted_family_has_rules_for_the_hosts_own_packets_and_for_others_of_it() {
        let others = BTreeSet::from([
            Packets::By("docker0".to_owned()),
            Packets::From("10.9.0.0/16".parse().unwrap()),
            Packets::From("fd09::/32".parse().unwrap()),
        ]);
        let tables = BTreeSet::from([(false, 100), (true, 101)]);
        let both: Vec<String> =
            rules(Families { v4: true, v6: true }, &tables, &others).iter().map(Rule::to_string).collect();
        assert_eq!(
            both,
            [
                "30000 (lookup 254, IPv4)",
                "30000 (lookup 100, IPv4)",
                "30001 (iif lo lookup 26727, IPv4)",
                "30001 (iif docker0 lookup 26727, IPv4)",
                "30001 (from 10.9.0.0/16 lookup 26727, IPv4)",
                "30000 (lookup 254, IPv6)",
                "30000 (lookup 101, IPv6)",
                "30001 (iif lo lookup 26727, IPv6)",
                "30001 (iif docker0 lookup 26727, IPv6)",
                "30001 (from fd09::/32 lookup 26727, IPv6)",
            ]
        );
        let v4 = rules(Families { v4: true, v6: false }, &tables, &BTreeSet::new());
        assert!(v4.len() == 3 && v4.iter().all(|rule| !rule.v6));
    }

    #[test]
    fn a_rule_that_is_refused_keeps_no_other_from_being_set() {
        let rule = |name: &str| Rule {
            v6: false,
            priority: PRIORITY + 1,
            packets: Packets::By(name.to_owned()),
            table: TABLE,
            but_default: false,
        };
        let [lo, gone, stuck, refused, new] = ["lo", "gone", "stuck", "refused", "new"].map(rule);
        let mut rules = vec![lo.clone(), stuck.clone(), gone];
        let wanted = [lo.clone(), refused.clone(), new.clone()];
        let answer = |refused: &Rule, rule: &Rule| match rule == refused {
            true => Err(io::Error::other("no room")),
            false => Ok(()),
        };
        let told = replace(&mut rules, &wanted, |rule| answer(&refused, rule), |rule| answer(&stuck, rule));
        assert_eq!(
            told,
            [
                "30001 (iif refused lookup 26727, IPv4): no room",
                "30001 (iif stuck lookup 26727, IPv4), which is to be removed: no room"
            ]
        );
        assert_eq!(rules, [lo.clone(), stuck, new.clone()]);
        assert!(replace(&mut rules, &wanted, |_| Ok(()), |_| Ok(())).is_empty());
        assert_eq!(rules, [lo, new, refused]);
    }

    #[test]
    fn rules_of_others_are_not_ours() {
        let packets = Packets::All;
        let rule = |priority, table, but_default| Rule {
            v6: false,
            priority,
            packets: packets.clone(),
            table,
            but_default,
        };
        assert!(is_ours(&rule(PRIORITY, 100, true)) && is_ours(&rule(PRIORITY + 1, TABLE, false)));
        for other in [rule(32_766, MAIN_TABLE, false), rule(PRIORITY, 100, false), rule(32_764, 254, true)] {
            assert!(!is_ours(&other), "{other}");
        }
    }

    #[test]
    fn a_table_counts_if_it_is_looked_up_after_ours_and_has_routes_of_its_family() {
        let rule =
            |v6, priority, table| Rule { v6, priority, packets: Packets::All, table, but_default: false };
        let route = |prefix: &str, table| Route {
            table,
            prefix: prefix.parse().unwrap(),
            metric: 0,
            kind: RouteKind::Unicast,
            scope: 0,
            protocol: 0,
            hops: vec![],
        };
        let rules = [
            rule(false, 32_765, 100),
            rule(true, 32_765, 100),
            rule(false, 5270, 52),
            rule(false, 32_764, 51_820),
            rule(false, 32_767, 253),
        ];
        let routes = [
            route("10.9.0.0/16", 100),
            route("100.64.0.0/10", 52),
            route("0.0.0.0/0", 51_820),
            route("0.0.0.0/0", 253),
        ];
        assert_eq!(tables_after_ours(&rules, &routes), BTreeSet::from([(false, 100)]));
    }
}
