//! What the policy says about a flow that nobody has opened, for `gh-net rules`. Pure.

use std::net::{Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::engine::{NewFlow, Policy as _, Verdict};
use crate::policy::Policy;
use crate::status::{FlowProtocol, Refusal, Route};

/// A flow that is asked about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// Its protocol.
    pub protocol: FlowProtocol,
    /// Its destination; for echo the port is 0.
    pub destination: SocketAddr,
    /// The name that the program looks up first, if it does.
    pub name: Option<String>,
}

/// What would happen to a flow, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judgement {
    /// The names that it is judged by.
    pub names: Vec<String>,
    /// Whether it would be forwarded.
    pub forwarded: bool,
    /// How it would be refused.
    pub refusal: Option<Refusal>,
    /// The port of the laptop that it leads to, if it does.
    pub host_port: Option<u16>,
    /// The rule that decides, for people.
    pub rule: String,
    /// The forwarded network that has the destination, with the reason, for people.
    pub network: Option<String>,
}

impl Judgement {
    /// The judgement of `policy`, which forwards `routes`. The address has been looked up by the names `learnt`.
    pub fn new(question: &Question, learnt: Vec<String>, policy: &Policy, routes: &[Route]) -> Self {
        let &Question { protocol, destination, .. } = question;
        let mut names: Vec<String> = question.name.iter().cloned().collect();
        names.extend(learnt.into_iter().filter(|name| question.name.as_ref() != Some(name)));
        let client = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let flow = NewFlow { protocol: protocol.into(), client, destination, names: &names };
        let (rule, refusal, host_port) = match policy.verdict(&flow) {
            Verdict::Forward { rule, .. } => (rule, None, None),
            Verdict::Laptop { rule, port } => (rule, None, Some(port)),
            Verdict::Refuse { rule, refusal } => (rule, Some(refusal.into()), None),
        };
        let network = routes.iter().find(|route| route.prefix.contains(&destination.ip()));
        let network = network.map(|route| format!("{} ({})", route.prefix, route.reason));
        let (forwarded, rule) = (refusal.is_none(), policy.rule_text(rule));
        Self { names, forwarded, refusal, host_port, rule, network }
    }
}
