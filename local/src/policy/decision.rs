//! The policy in force: the verdict on each new flow, and the networks that are forwarded.

use std::net::IpAddr;

use gh_net_common::reserved;
use ipnet::IpNet;

use super::choice::{Choice, RouteChoice};
use super::codespace::Codespace;
use super::fib::{Fib, Lookup};
use super::host;
use super::host_port::{HOST_NAME, HostPort};
use super::prefix_map::PrefixMap;
use super::refused;
use super::rules::{Action, Decision, Rules};
use crate::engine::{self, InterfaceIndex, NewFlow, Protocol, Refusal, RuleId, Verdict};
use crate::netwatch::Snapshot;

/// The rules that a verdict names.
pub mod rule {
    pub use super::super::rules::FIRST_USER;
    use crate::engine::RuleId;

    /// The destination is in a network that is forwarded, and no rule of the user matches.
    pub const FORWARDED: RuleId = RuleId(0);
    /// The destination is in no network that is forwarded.
    pub const NO_ROUTE: RuleId = RuleId(1);
    /// The destination is never forwarded: an address of the laptop itself, or a reserved one.
    pub const RESERVED: RuleId = RuleId(2);
    /// The user's rules allow something, but not this.
    pub const NOT_ALLOWED: RuleId = RuleId(3);
    /// A translator would send it to a network that the user excludes.
    pub const EXCLUDED: RuleId = RuleId(4);
    /// The destination is the host of the virtual machine that the laptop is.
    pub const HOST: RuleId = RuleId(5);
    /// The destination is a port of the laptop that the user opened.
    pub const HOST_PORT: RuleId = RuleId(6);
    /// The destination is the laptop's own end of the tunnel, and no open port there.
    pub const HOST_PORT_CLOSED: RuleId = RuleId(7);
}

/// The policy in force. The engine holds one and is given another one when the laptop's networks change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    forwarded: PrefixMap<Option<InterfaceIndex>>,
    refused: PrefixMap<Refusal>,
    /// The addresses of the host, if the laptop is a virtual machine.
    host: PrefixMap<()>,
    /// What the user excludes. It is not in `forwarded`, but translators may have a way there.
    excluded: PrefixMap<()>,
    routes: Vec<IpNet>,
    rules: Rules,
    gateways: Vec<IpAddr>,
    host_ports: Vec<HostPort>,
    host_names: Vec<String>,
}

impl Policy {
    /// The policy that carries out the user's choice on these networks.
    pub fn new(choice: &Choice, snapshot: &Snapshot, codespace: &Codespace) -> Self {
        let forwarded = forwarded(choice, &Fib::of(snapshot), |interface| interface, |_| None);
        Self {
            refused: refused::refused(snapshot, &codespace.tunnel),
            host: PrefixMap::from_prefixes(host::addresses(snapshot).into_iter().map(IpNet::from)),
            excluded: excluded(choice),
            routes: forwarded.covered().prefixes(),
            forwarded,
            rules: choice.rules.clone(),
            gateways: codespace.gateways.clone(),
            host_ports: choice.host_ports.clone(),
            host_names: vec![HOST_NAME.to_owned()],
        }
    }

    /// The networks to forward, in the form for the sidecar: the fewest prefixes, IPv4 first, in ascending order.
    /// They include single addresses that are refused, so that these are refused here and not routed elsewhere.
    pub fn routes(&self) -> &[IpNet] {
        &self.routes
    }

    /// A rule for people: a rule of the user as it is written, with where it was written; a built-in one in words.
    pub fn rule_text(&self, rule: RuleId) -> String {
        match (rule, self.rules.get(rule)) {
            (_, Some(written)) => written.to_string(),
            (rule::FORWARDED, None) => "no rule denies it".to_owned(),
            (rule::NO_ROUTE, None) => "no route".to_owned(),
            (rule::RESERVED, None) => "an address of this computer, or a reserved one".to_owned(),
            (rule::NOT_ALLOWED, None) => "no rule allows it".to_owned(),
            (rule::HOST, None) => "the host of this virtual machine".to_owned(),
            (rule::HOST_PORT, None) => "--host-port".to_owned(),
            (rule::HOST_PORT_CLOSED, None) => "a port of this computer that is not open".to_owned(),
            (rule::EXCLUDED, None) => "a network that is excluded".to_owned(),
            // It decided about a flow before the rules changed.
            (RuleId(_), None) => "a rule that has changed since".to_owned(),
        }
    }

    /// The option that would admit a flow that was refused; `None` if none would, or if a rule of the user denies it.
    pub fn remedy(&self, denied: &engine::Denied) -> Option<String> {
        let engine::Denied { protocol, destination, name, rule, .. } = denied;
        let target = match (protocol, name) {
            (Protocol::Tcp | Protocol::Udp, Some(name)) => format!("{name}:{}", destination.port()),
            (Protocol::Tcp | Protocol::Udp, None) => destination.to_string(),
            (Protocol::Echo, Some(name)) => name.to_string(),
            (Protocol::Echo, None) => destination.ip().to_string(),
        };
        match *rule {
            rule::NO_ROUTE => Some(format!("--route {}", destination.ip())),
            rule::HOST_PORT_CLOSED if *protocol != Protocol::Echo => {
                Some(format!("--host-port {}", destination.port()))
            }
            rule::NOT_ALLOWED => Some(match protocol {
                Protocol::Tcp => format!("--allow tcp:{target}"),
                Protocol::Udp => format!("--allow udp:{target}"),
                Protocol::Echo => format!("--allow icmp:{target}"),
            }),
            RuleId(_) => None,
        }
    }
}

impl Policy {
    /// The verdict on a flow to the laptop itself. A rule of the user that denies it counts, the end of the list does not:
    /// `--host-port` allows by itself.
    fn laptop(&self, flow: &NewFlow<'_>) -> Verdict {
        let opened = self.host_ports.iter().find(|opened| opened.port == flow.destination.port());
        let Some(opened) = opened.filter(|_| flow.protocol != Protocol::Echo) else {
            return Verdict::Refuse { refusal: Refusal::Closed, rule: rule::HOST_PORT_CLOSED };
        };
        let port = opened.local;
        match self.rules.decide(&NewFlow { names: &self.host_names, ..*flow }) {
            Decision::Rule(Action::Deny, rule) => Verdict::Refuse { refusal: Refusal::Prohibited, rule },
            Decision::Rule(Action::Allow, rule) => Verdict::Laptop { port, rule },
            Decision::Unmatched(_) => Verdict::Laptop { port, rule: rule::HOST_PORT },
        }
    }
}

impl engine::Policy for Policy {
    fn verdict(&self, flow: &NewFlow<'_>) -> Verdict {
        let destination = flow.destination.ip();
        let refuse = |refusal, rule| Verdict::Refuse { refusal, rule };
        if self.gateways.contains(&destination) {
            return self.laptop(flow);
        }
        if let Some(refusal) = self.refused.get(destination) {
            return refuse(*refusal, rule::RESERVED);
        }
        if self.host.get(destination).is_some() {
            return refuse(Refusal::Prohibited, rule::HOST);
        }
        for v4 in reserved::embedded_v4(destination) {
            if self.host.get(v4.into()).is_some() {
                return refuse(Refusal::Prohibited, rule::HOST);
            }
            if self.refused.get(v4.into()).is_some() {
                return refuse(Refusal::Prohibited, rule::RESERVED);
            }
            if self.excluded.get(v4.into()).is_some() {
                return refuse(Refusal::Prohibited, rule::EXCLUDED);
            }
        }
        let Some(interface) = self.forwarded.get(destination) else {
            return refuse(Refusal::NoRoute, rule::NO_ROUTE);
        };
        let forward = |rule| Verdict::Forward { destination: flow.destination, interface: *interface, rule };
        match self.rules.decide(flow) {
            Decision::Rule(Action::Allow, rule) => forward(rule),
            Decision::Rule(Action::Deny, rule) => refuse(Refusal::Prohibited, rule),
            Decision::Unmatched(Action::Allow) => forward(rule::FORWARDED),
            Decision::Unmatched(Action::Deny) => refuse(Refusal::Prohibited, rule::NOT_ALLOWED),
        }
    }

    fn refers_to(&self, name: &str) -> bool {
        self.rules.refer_to(name)
    }

    fn forwards(&self, address: IpAddr) -> bool {
        self.forwarded.get(address).is_some()
    }
}

/// The networks that are forwarded, each with a value: from `known` for a route's interface, from `named` for a network
/// that the user names.
pub(super) fn forwarded<V: Clone + Eq>(
    choice: &Choice,
    fib: &Fib,
    known: impl Fn(Option<InterfaceIndex>) -> V,
    named: impl Fn(RouteChoice) -> V,
) -> PrefixMap<V> {
    let mut forwarded = PrefixMap::default();
    if choice.has_auto() {
        forwarded = fib.map.filter_map(|found| match found {
            Lookup::Network(interface) => Some(known(*interface)),
            Lookup::Default { .. } | Lookup::Internal | Lookup::Blocked(_) => None,
        });
    }
    for (network, route) in choice.named() {
        // What the laptop blocks within a network is left out. The network itself is forwarded: the user named it.
        let blocked = fib.map.filter_map(|found| match found {
            Lookup::Blocked(length) => (*length > network.prefix_len()).then_some(()),
            Lookup::Network(_) | Lookup::Default { .. } | Lookup::Internal => None,
        });
        let network = PrefixMap::longest_prefix([(network, named(route))]);
        forwarded = forwarded.or(&network.without(&blocked));
    }
    forwarded.without(&excluded(choice)).without(&refused::blocks())
}

fn excluded(choice: &Choice) -> PrefixMap<()> {
    PrefixMap::from_prefixes(choice.excludes.iter().map(IpNet::trunc))
}

#[cfg(test)]
impl Policy {
    /// Forwards everything, loopback included.
    pub(crate) fn everything() -> Self {
        let all = [super::ranges::ALL_V4, super::ranges::ALL_V6].map(|all| (all, None));
        Self { forwarded: PrefixMap::longest_prefix(all), ..Self::default() }
    }
}
