//! A simple policy for tests of the engine.

use std::net::{IpAddr, SocketAddr};

use gh_net_common::reserved::{self, Answer};
use gh_net_engine::{InterfaceIndex, NewFlow, Policy, Refusal, RuleId, Verdict};
use ipnet::IpNet;

use crate::socket;

/// Forwards some networks, translates some destinations, and refuses reserved ones.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    forwarded: Vec<IpNet>,
    translated: Vec<(SocketAddr, SocketAddr)>,
    prohibited: Vec<IpNet>,
    laptop: Vec<(SocketAddr, u16)>,
    name: Option<String>,
    zone: Option<String>,
    interface: Option<InterfaceIndex>,
}

impl Rules {
    /// Forwards these networks, except reserved addresses.
    pub fn forward(networks: &[&str]) -> Self {
        let forwarded = networks.iter().map(|network| network.parse().unwrap()).collect();
        Self { forwarded, ..Self::default() }
    }

    /// Forwards flows to `asked` to the destination `actual`.
    pub fn translate(mut self, asked: &str, actual: &str) -> Self {
        self.translated.push((socket(asked), socket(actual)));
        self
    }

    /// Opens a port of the laptop itself at this address.
    pub fn open(mut self, asked: &str, port: u16) -> Self {
        self.laptop.push((socket(asked), port));
        self
    }

    /// Forbids these networks.
    pub fn prohibit(mut self, networks: &[&str]) -> Self {
        self.prohibited.extend(networks.iter().map(|network| network.parse::<IpNet>().unwrap()));
        self
    }

    /// Forbids everything that does not have this name.
    pub fn only(self, name: &str) -> Self {
        Self { name: Some(name.to_owned()), ..self }
    }

    /// Has rules for all names that end like this, which decide nothing.
    pub fn refer_to(self, zone: &str) -> Self {
        Self { zone: Some(zone.to_owned()), ..self }
    }

    /// Binds every flow to this interface.
    pub fn bind(self, interface: u32) -> Self {
        Self { interface: InterfaceIndex::new(interface), ..self }
    }
}

impl Policy for Rules {
    fn verdict(&self, flow: &NewFlow<'_>) -> Verdict {
        let rule = RuleId(0);
        let asked = flow.destination;
        if let Some((_, destination)) = self.translated.iter().find(|(from, _)| *from == asked) {
            return Verdict::Forward { destination: *destination, interface: self.interface, rule };
        }
        if let Some((_, port)) = self.laptop.iter().find(|(from, _)| *from == asked) {
            return Verdict::Laptop { port: *port, rule };
        }
        if let Some((_, answer)) = reserved::all().find(|(block, _)| block.contains(&asked.ip())) {
            let refusal = match answer {
                Answer::Prohibited => Refusal::Prohibited,
                Answer::Silent => Refusal::Silent,
            };
            return Verdict::Refuse { refusal, rule };
        }
        let unnamed = self.name.as_ref().is_some_and(|name| !flow.names.contains(name));
        if unnamed || self.prohibited.iter().any(|network| network.contains(&asked.ip())) {
            return Verdict::Refuse { refusal: Refusal::Prohibited, rule };
        }
        if self.forwarded.iter().any(|network| network.contains(&asked.ip())) {
            return Verdict::Forward { destination: asked, interface: self.interface, rule };
        }
        Verdict::Refuse { refusal: Refusal::NoRoute, rule }
    }
    fn refers_to(&self, name: &str) -> bool {
        self.name.as_deref() == Some(name) || self.zone.as_ref().is_some_and(|zone| name.ends_with(zone))
    }

    fn forwards(&self, address: IpAddr) -> bool {
        self.forwarded.iter().any(|network| network.contains(&address))
    }
}
