//! DNS rebinding: the owner of a public name gives it an address in the laptop's networks, so that a program of the
//! codespace that trusts the name (a browser, a server that fetches what it is told to) connects there.
//!
//! A name is *public* if it is outside of the laptop's domains and the codespace's own resolvers know it. If the laptop wants
//! it, an answer to a public name is refused if any address in it is forwarded to the laptop. That is decided when the
//! answer is given, and not when it arrives, because the networks change.
//!
//! The laptop's resolver is trusted with the names that it is asked for, as it is by the laptop's own programs.

use std::collections::{BTreeSet, VecDeque};
use std::iter::successors;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use gh_net_common::frame::{Level, is_domain};
use gh_net_common::reserved;
use ipnet::IpNet;

use super::addresses::addresses;
use super::message::Query;
use crate::attempts::Attempts;
use crate::hook::plan::{Table, Target};
use crate::notify::Notifier;

/// How many refusals the user is told within this time. Any page of a stranger can cause one.
const MAX_TOLD: usize = 5;
const TOLD_WITHIN: Duration = Duration::from_secs(60);

/// Number of names that are not told again: programs ask for a name by several types, and ask again.
const REMEMBERED: usize = 16;

/// Which addresses lead to the laptop.
#[derive(Debug, Default)]
pub(crate) struct Forwarded {
    table: Table,
    /// The codespace's own networks, which win over the table.
    own: BTreeSet<IpNet>,
}

impl Forwarded {
    pub(crate) fn new(table: Table, own: impl IntoIterator<Item = IpNet>) -> Self {
        Self { table, own: own.into_iter().collect() }
    }

    /// The first of the addresses in `answer` that leads to the laptop.
    pub(super) fn first_in(&self, answer: &[u8]) -> Option<IpAddr> {
        addresses(answer).into_iter().find(|address| self.takes(*address))
    }

    /// Whether packets for an address go to the laptop, by itself or once a translator of the codespace has had them. For
    /// ::ffff:10.0.0.1 a socket sends to 10.0.0.1.
    fn takes(&self, address: IpAddr) -> bool {
        self.has(address.to_canonical()) || reserved::embedded_v4(address).any(|v4| self.has(v4.into()))
    }

    fn has(&self, address: IpAddr) -> bool {
        let networks = || successors(Some(IpNet::from(address)), IpNet::supernet);
        let target = networks().find_map(|network| self.table.get(&network));
        target == Some(&Target::Tunnel) && !networks().any(|network| self.own.contains(&network))
    }
}

/// Refuses answers, counts that, and tells the user.
#[derive(Debug)]
pub(super) struct Refusals {
    count: AtomicU64,
    told: Mutex<Told>,
    notifier: Notifier,
}

#[derive(Debug)]
struct Told {
    attempts: Attempts,
    names: VecDeque<Vec<u8>>,
}

impl Refusals {
    pub(super) fn new(notifier: Notifier) -> Self {
        let told = Told { attempts: Attempts::new(MAX_TOLD, TOLD_WITHIN), names: VecDeque::new() };
        Self { count: AtomicU64::new(0), told: Mutex::new(told), notifier }
    }

    /// How many answers were refused.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// The answer to `query` in place of one with `address`.
    pub(super) fn refuse(&self, query: &Query, address: IpAddr) -> Bytes {
        self.count.fetch_add(1, Ordering::Relaxed);
        if self.told.lock().unwrap_or_else(PoisonError::into_inner).admits(query.name(), Instant::now()) {
            self.notifier.notify(Level::Warning, "rebind-refused", text(&query.display(), address));
        }
        query.blocked(&format!("gh-net: {address} is in the laptop's networks"))
    }
}

impl Told {
    /// Whether the user is told of a refusal for this name.
    fn admits(&mut self, name: Vec<u8>, now: Instant) -> bool {
        if self.names.contains(&name) || !self.attempts.admits(now) {
            return false;
        }
        self.names.truncate(REMEMBERED - 1);
        self.names.push_front(name);
        true
    }
}

fn text(name: &str, address: IpAddr) -> String {
    let name = name.trim_end_matches('.');
    // Whoever chose the name must not choose what the user copies to a shell.
    let rule = match is_domain(name) {
        true => format!(
            " a rule with the name (--allow {name}, and --allow '*' if nothing else is to be denied),"
        ),
        false => String::new(),
    };
    format!(
        "the public name {name} is refused: it leads to {address}, in the networks of the laptop (DNS rebinding). If that is \
         meant, have the laptop resolve it:{rule} or a search domain; or let all such answers through with --rebind allow"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forwarded() -> Forwarded {
        let target = |(net, target): &(&str, Target)| (net.parse().unwrap(), *target);
        let table = [
            ("10.20.0.0/16", Target::Tunnel),
            ("10.20.0.53/32", Target::Direct),
            ("fd20:20::/48", Target::Tunnel),
        ];
        Forwarded::new(table.iter().map(target).collect(), ["10.20.9.0/24".parse().unwrap()])
    }

    fn takes(address: &str) -> bool {
        forwarded().takes(address.parse().unwrap())
    }

    #[test]
    fn what_is_forwarded_and_not_the_codespaces_own_leads_to_the_laptop() {
        assert!(takes("10.20.0.10") && takes("fd20:20::10"));
        assert!(!takes("203.0.113.1") && !takes("2001:db8::1"));
        assert!(!takes("10.20.0.53"), "the longest prefix decides");
        assert!(!takes("10.20.9.1"), "the codespace's own networks win");
        assert!(!Forwarded::default().takes("10.20.0.10".parse().unwrap()));
    }

    #[test]
    fn other_forms_of_an_address_lead_there_too() {
        for form in ["::ffff:10.20.0.10", "64:ff9b::10.20.0.10", "64:ff9b:1::10.20.0.10", "2002:a14:a::1"] {
            assert!(takes(form), "{form}");
        }
        assert!(!takes("64:ff9b::203.0.113.1") && !takes("::ffff:203.0.113.1"));
    }

    #[test]
    fn a_name_is_told_once_and_many_names_at_a_bounded_rate() {
        let mut told = Told { attempts: Attempts::new(MAX_TOLD, TOLD_WITHIN), names: VecDeque::new() };
        let now = Instant::now();
        assert!(told.admits(b"\x01a".to_vec(), now) && !told.admits(b"\x01a".to_vec(), now));
        let admitted = (0..100_u8).filter(|number| told.admits(vec![1, *number], now)).count();
        assert_eq!(admitted, MAX_TOLD - 1);
        assert!(told.admits(b"\x01b".to_vec(), now + TOLD_WITHIN));
        for round in 1..20 {
            told.admits(vec![2, round, round], now + TOLD_WITHIN * (1 + u32::from(round)));
        }
        assert_eq!(told.names.len(), REMEMBERED);
    }

    #[test]
    fn only_a_harmless_name_becomes_part_of_a_command() {
        let address = "10.20.0.10".parse().unwrap();
        assert!(text("db.example.com.", address).contains("--allow db.example.com,"));
        let hostile = text("a;reboot.example.com.", address);
        assert!(!hostile.contains("--allow a;") && hostile.contains("--rebind allow"), "{hostile}");
    }
}
