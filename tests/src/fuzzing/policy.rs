//! Arbitrary packets for an engine whose policy has rules, some of them by names, which come and go.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use gh_net::policy::{Choice, Origin, Rules, Written};
use gh_net_testkit::build::repair;

use super::Input;
use super::laptop::Laptop;

/// The lists of rules between which the user changes.
const LISTS: [&[&str]; 3] = [
    &["deny 10.20.66.0/24", "allow *.corp.example:443", "allow udp:10.20.0.0/16", "allow icmp:fd00:20::/32"],
    &["deny tcp:db.corp.example", "deny 10.66.0.0/16", "deny *:53"],
    &["allow tcp:db.corp.example", "allow *.lan", "deny *"],
];
/// The names that addresses are looked up by.
const NAMES: [&str; 4] = ["db.corp.example", "www.corp.example", "printer.lan", "github.com"];

/// The bytes are a list of events: packets as for `packet`, names for addresses, other rules, time.
pub fn policy(data: &[u8]) {
    let mut input = Input(data);
    let mut laptop = Laptop::with(choice(0));
    let mut learnt = HashMap::<IpAddr, Vec<String>>::new();
    while !input.is_empty() {
        match input.u8() % 8 {
            0 => {
                let name = NAMES[usize::from(input.u8()) % NAMES.len()].to_owned();
                let address = address(&mut input);
                let ttl = Duration::from_secs(input.u16().into());
                laptop.engine.handle_names(std::slice::from_ref(&name), &[(address, ttl)], laptop.now);
                learnt.entry(address).or_default().push(name);
            }
            1 => laptop.choose(choice(input.u8())),
            2 => laptop.pass(Duration::from_secs(input.u8().into())),
            flags => {
                let length = input.u16().into();
                let mut packet = input.bytes(length).to_vec();
                if flags & 1 != 0 {
                    repair(&mut packet);
                }
                laptop.names = learnt.clone();
                laptop.packet(packet);
            }
        }
        laptop.commands();
        while laptop.transmit().is_some() {}
    }
    laptop.end();
}

fn choice(list: u8) -> Choice {
    let rule = |rule: &&str| Written { rule: rule.parse().expect("a rule"), origin: Origin::Flag };
    let list = LISTS[usize::from(list) % LISTS.len()].iter().map(rule).collect();
    Choice { rules: Rules::new(list), ..Laptop::choice() }
}

fn address(input: &mut Input) -> IpAddr {
    match input.u8() & 1 {
        0 => [10, 20, input.u8(), input.u8()].into(),
        _ => [0xfd00, 0x20, 0, 0, 0, 0, 0, input.u16()].into(),
    }
}
