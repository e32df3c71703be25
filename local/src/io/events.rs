//! What the engine tells of flows: the latest refused ones are kept for the status and logged, and all go to the audit.

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::audit::{self, Entry, Recorder, Verdict};
use crate::engine::{self, Engine, Event, FlowEvent, Protocol, Refusal};
use crate::limit::RateLimit;
use crate::policy::Policy;
use crate::random::random;
use crate::status::unix_time;

/// Kinds of refused flows that are kept for the status.
const KEPT: usize = 64;
/// Maximum number of lines about refused flows in each [`LOG_PERIOD`].
const LOG_LINES: u32 = 8;
const LOG_PERIOD: Duration = Duration::from_secs(60);

/// Refused flows of one kind: with the same protocol, destination and rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// The transport protocol.
    pub protocol: Protocol,
    /// The program in the codespace that was refused last. For echo the port is the identifier.
    pub client: SocketAddr,
    /// The destination. For echo the port is 0.
    pub destination: SocketAddr,
    /// The name of the destination, if it is known.
    pub name: Option<String>,
    /// The answer to the codespace.
    pub refusal: Refusal,
    /// The rule that decided.
    pub rule: String,
    /// The option that would admit it, if there is one.
    pub remedy: Option<String>,
    /// When the first one was refused: Unix time in seconds.
    pub first: u64,
    /// The same for the last one.
    pub last: u64,
    /// How many packets were refused.
    pub count: u64,
}

impl Denial {
    fn new(denied: engine::Denied, policy: &Policy, time: u64) -> Self {
        let rule = policy.rule_text(denied.rule);
        let remedy = policy.remedy(&denied);
        let engine::Denied { protocol, client, destination, name, refusal, count, .. } = denied;
        let name = name.map(|name| name.to_string());
        Self { protocol, client, destination, name, refusal, rule, remedy, first: time, last: time, count }
    }

    fn is_like(&self, other: &Self) -> bool {
        (self.protocol, self.destination, &self.rule) == (other.protocol, other.destination, &other.rule)
    }
}

/// The line of the log.
impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { protocol, client, destination, name, rule, remedy, .. } = self;
        let (protocol, client, destination) = match protocol {
            Protocol::Tcp => ("tcp", client.to_string(), destination.to_string()),
            Protocol::Udp => ("udp", client.to_string(), destination.to_string()),
            Protocol::Echo => ("ping", client.ip().to_string(), destination.ip().to_string()),
        };
        write!(f, "denied {protocol} {client} → ")?;
        match name {
            Some(name) => write!(f, "{name} ({destination})")?,
            None => write!(f, "{destination}")?,
        }
        write!(f, ": {rule}")?;
        match remedy {
            Some(remedy) => write!(f, "; to allow it: {remedy}"),
            None => Ok(()),
        }
    }
}

/// See the [module's documentation](self).
#[derive(Debug)]
pub(super) struct Events {
    /// The policy in force, which gives the rules their meaning.
    policy: Policy,
    /// The latest last.
    denials: VecDeque<Denial>,
    audit: Option<Recorder>,
    /// Tells this engine's flows from those of others in the audit.
    engine: u64,
    /// How many lost events of the engine the audit knows of.
    lost: u64,
    log: RateLimit,
    /// Lines that were left out since the last one.
    unlogged: u64,
}

impl Default for Events {
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            denials: VecDeque::new(),
            audit: None,
            engine: random(),
            lost: 0,
            log: RateLimit::new(LOG_PERIOD, LOG_LINES),
            unlogged: 0,
        }
    }
}

impl Events {
    /// All events go to this audit, too.
    pub(super) fn audit(&mut self, audit: Recorder, engine: &mut Engine) {
        self.audit = Some(audit);
        engine.tell_flows(true);
    }

    /// How many events are missing in the audit.
    pub(super) fn audit_lost(&self) -> u64 {
        self.audit.as_ref().map_or(0, Recorder::lost)
    }

    /// The engine is given a new policy. What happened before is told by the rules of the old one.
    pub(super) fn set_policy(&mut self, policy: Policy, engine: &mut Engine, now: Instant) {
        engine.flush_events();
        self.take(engine, now);
        self.policy = policy.clone();
        engine.set_policy(Box::new(policy), now);
    }

    /// Takes the engine's events.
    pub(super) fn take(&mut self, engine: &mut Engine, now: Instant) {
        while let Some(event) = engine.poll_event() {
            if let Some(audit) = &self.audit {
                audit.record(entry(&event, self.engine, &self.policy));
            }
            match event {
                Event::Denied(denied) => {
                    let denial = Denial::new(denied, &self.policy, unix_time());
                    if let Some(line) = self.add(denial, now) {
                        tracing::info!("{line}");
                    }
                }
                Event::Opened(_) | Event::Closed { .. } => {}
            }
        }
        let lost = engine.lost_events();
        if let Some(audit) = &self.audit
            && lost > self.lost
        {
            audit.missed(lost - std::mem::replace(&mut self.lost, lost));
        }
    }

    /// Keeps a denial. Returns the line to be logged: one for each kind that is not kept already.
    fn add(&mut self, mut denial: Denial, now: Instant) -> Option<String> {
        let position = self.denials.iter().position(|kept| kept.is_like(&denial));
        let known = position.and_then(|position| self.denials.remove(position));
        if let Some(known) = &known {
            denial.first = known.first;
            denial.count = denial.count.saturating_add(known.count);
        } else if self.denials.len() >= KEPT {
            self.denials.pop_front();
        }
        let mut line = known.is_none().then(|| denial.to_string());
        self.denials.push_back(denial);
        if line.is_some() && !self.log.admits(now) {
            self.unlogged += 1;
            line = None;
        } else if let Some(line) = &mut line
            && self.unlogged > 0
        {
            line.push_str(&format!(" ({} others before were not logged; see gh-net status)", self.unlogged));
            self.unlogged = 0;
        }
        line
    }

    /// The latest refused flows, the latest last.
    pub(super) fn denials(&self) -> Vec<Denial> {
        self.denials.iter().cloned().collect()
    }
}

/// The audit's entry for an event.
fn entry(event: &Event, engine: u64, policy: &Policy) -> Entry {
    match event {
        Event::Opened(opened) => Entry::FlowOpened { flow: flow(opened, engine, policy) },
        Event::Closed { flow: closed, uplink_bytes, downlink_bytes, ending } => Entry::FlowClosed {
            flow: flow(closed, engine, policy),
            uplink_bytes: *uplink_bytes,
            downlink_bytes: *downlink_bytes,
            ended: (*ending).into(),
        },
        Event::Denied(denied) => Entry::FlowDenied {
            flow: audit::Flow {
                flow: None,
                protocol: denied.protocol.into(),
                client: denied.client,
                server: denied.destination,
                actual: None,
                name: denied.name.as_deref().map(str::to_owned),
                verdict: Verdict::Denied,
                rule: policy.rule_text(denied.rule),
            },
            refusal: denied.refusal.into(),
            count: denied.count,
        },
    }
}

fn flow(event: &FlowEvent, engine: u64, policy: &Policy) -> audit::Flow {
    audit::Flow {
        flow: Some(audit::FlowId { engine, number: event.flow.0 }),
        protocol: event.protocol.into(),
        client: event.client,
        server: event.destination,
        actual: event.actual,
        name: event.name.as_deref().map(str::to_owned),
        verdict: Verdict::Forwarded,
        rule: policy.rule_text(event.rule),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::rule;

    fn denial(port: u16, time: u64, count: u64) -> Denial {
        let denied = engine::Denied {
            protocol: Protocol::Tcp,
            client: "10.1.2.3:40000".parse().unwrap(),
            destination: SocketAddr::from(([10, 20, 0, 10], port)),
            name: None,
            refusal: Refusal::NoRoute,
            rule: rule::NO_ROUTE,
            count,
        };
        Denial::new(denied, &Policy::default(), time)
    }

    #[test]
    fn a_line_names_the_flow_the_rule_and_what_would_admit_it() {
        let mut denial = denial(5432, 0, 1);
        assert_eq!(
            denial.to_string(),
            "denied tcp 10.1.2.3:40000 → 10.20.0.10:5432: no route; to allow it: --route 10.20.0.10"
        );
        (denial.name, denial.remedy) = (Some("db.corp".into()), None);
        assert_eq!(denial.to_string(), "denied tcp 10.1.2.3:40000 → db.corp (10.20.0.10:5432): no route");
        (denial.name, denial.protocol) = (None, Protocol::Echo);
        assert_eq!(denial.to_string(), "denied ping 10.1.2.3 → 10.20.0.10: no route", "a ping has no ports");
    }

    #[test]
    fn denials_of_one_kind_are_one_entry_that_is_logged_once() {
        let (mut events, now) = (Events::default(), Instant::now());
        assert!(events.add(denial(1, 100, 1), now).is_some());
        assert!(events.add(denial(2, 101, 1), now).is_some());
        assert_eq!(events.add(denial(1, 102, 998), now), None);
        let kept: Vec<_> = events.denials().iter().map(|it| (it.first, it.last, it.count)).collect();
        assert_eq!(kept, [(101, 101, 1), (100, 102, 999)], "the latest last");
    }

    #[test]
    fn a_scan_fills_neither_the_log_nor_the_list() {
        let (mut events, now) = (Events::default(), Instant::now());
        let logged = (0..1000).filter_map(|port| events.add(denial(port, 0, 1), now)).count();
        assert_eq!((logged, events.denials().len()), (LOG_LINES as usize, KEPT));
        let line = events.add(denial(2000, 0, 1), now + LOG_PERIOD).unwrap();
        assert!(line.ends_with("(992 others before were not logged; see gh-net status)"), "{line}");
    }
}
