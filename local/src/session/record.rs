//! The session's record of its own state, and the status built from it.

use std::time::{Duration, Instant};

use gh_net_common::frame::{self, Notice, Opened, SidecarStatus};
use gh_net_common::hello::printable;

use super::networks::Networks;
use crate::engine::FlowView;
use crate::io::{self, Report};
use crate::resolver;
use crate::status::{
    Counters, Denied, DnsMode, Flow, Level, Link, LinkState, Lookup, Note, Outcome, SCHEMA, Session,
    SessionState, Sidecar, Status, Tunnel, unix_time,
};

/// Maximum length of the name of a network device (`IFNAMSIZ`).
const MAX_DEVICE: usize = 16;

/// The states of a session and its link.
#[derive(Debug)]
pub(super) struct Record {
    session: Session,
    link: Link,
    /// Notices of the sidecar from before a session was open.
    early: Vec<Notice>,
}

impl Record {
    /// A session that is about to connect to `target`.
    pub(super) fn new(target: String, dns: frame::DnsMode) -> Self {
        let since = unix_time();
        let dns = DnsMode::from(dns);
        Self {
            session: Session { state: SessionState::Opening, since, target, dns },
            link: Link {
                state: LinkState::Connecting,
                since,
                end: None,
                lost_since: None,
                next_attempt: None,
                round_trip_ms: None,
                lanes: None,
                tunnel: None,
            },
            early: Vec::new(),
        }
    }

    /// The sidecar has opened or resumed the session.
    pub(super) fn opened(&mut self, opened: &Opened, early: Vec<Notice>) {
        if self.session.state != SessionState::Open {
            self.session.since = unix_time();
            self.session.state = SessionState::Open;
        }
        self.link.tunnel = Some(Tunnel {
            device: printable(&opened.device)
                .chars()
                .filter(|c| !c.is_whitespace())
                .take(MAX_DEVICE)
                .collect(),
            mtu: opened.mtu,
            addresses: opened.addresses.iter().map(|address| address.sidecar).collect(),
            gateways: opened.addresses.iter().map(|address| address.gateway).collect(),
        });
        self.early = early;
        (self.link.lost_since, self.link.next_attempt) = (None, None);
        self.set_link(LinkState::Up);
    }

    /// A link is being established.
    pub(super) fn connecting(&mut self) {
        self.link.next_attempt = None;
        self.set_link(LinkState::Connecting);
    }

    /// The link has become quiet, or has ceased to be.
    pub(super) fn quiet(&mut self, quiet: bool) {
        self.set_link(if quiet { LinkState::Quiet } else { LinkState::Up });
    }

    /// The link has ended.
    pub(super) fn link_ended(&mut self, end: String) {
        self.set_link(LinkState::Down);
        self.link.lost_since.get_or_insert(self.link.since);
        self.link.end = Some(end);
    }

    /// There is no link; the next attempt to connect is due after `wait`.
    pub(super) fn waiting(&mut self, wait: Duration) {
        self.set_link(LinkState::Down);
        self.link.next_attempt = Some(unix_time().saturating_add(wait.as_secs_f64().ceil() as u64));
    }

    /// The link.
    pub(super) fn link(&self) -> &Link {
        &self.link
    }

    fn set_link(&mut self, state: LinkState) {
        if self.link.state != state {
            self.link.since = unix_time();
            self.link.state = state;
        }
    }

    /// The status, with what io reports if there is an io.
    pub(super) fn status(&self, networks: Option<&Networks>, report: Option<Report>) -> Status {
        let now = Instant::now();
        let mut status = Status {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION"),
            pid: std::process::id(),
            session: self.session.clone(),
            link: self.link.clone(),
            routes: networks.map(|networks| networks.routes().to_vec()).unwrap_or_default(),
            rules: networks.map(Networks::rules).unwrap_or_default(),
            notes: networks.map(|networks| networks.notes().to_vec()).unwrap_or_default(),
            flows: Vec::new(),
            denied: Vec::new(),
            names: Vec::new(),
            counters: Counters::default(),
            sidecar: None,
        };
        let mut notices = self.early.clone();
        if let Some(Report { counters, flows, denials, lookups, warnings, notices: latest, sidecar }) = report
        {
            status.counters = Counters { flows: flows.len() as u64, ..counters_of(&counters) };
            status.flows = flows.into_iter().map(|flow| flow_of(&flow, now)).collect();
            status.denied = denials.into_iter().map(denied_of).collect();
            status.link.round_trip_ms = counters.round_trip.map(milliseconds);
            let is_up = matches!(status.link.state, LinkState::Up | LinkState::Quiet);
            status.link.lanes = is_up.then_some(counters.lanes as u64);
            status.names = lookups.into_iter().map(|lookup| lookup_of(lookup, now)).collect();
            status.notes.extend(warnings.iter().map(warning));
            notices.extend(latest);
            status.sidecar = sidecar.map(|(sidecar, at)| sidecar_of(&sidecar, age(at, now)));
        }
        status.notes.extend(notices.iter().map(note));
        status
    }
}

fn note(notice: &Notice) -> Note {
    let level = match notice.level {
        frame::Level::Info => Level::Info,
        frame::Level::Warning => Level::Warning,
        frame::Level::Error => Level::Error,
    };
    Note { code: notice.code.clone(), level, sidecar: true, text: notice.text.clone() }
}

fn warning(warning: &io::Warning) -> Note {
    let (code, text) = (warning.code().to_owned(), warning.to_string());
    Note { code, level: Level::Warning, sidecar: false, text }
}

fn counters_of(counters: &io::Counters) -> Counters {
    let engine = counters.engine;
    Counters {
        uplink_packets: engine.uplink_packets,
        uplink_bytes: counters.uplink_bytes,
        downlink_packets: engine.downlink_packets,
        downlink_bytes: counters.downlink_bytes,
        connections: engine.connections,
        flows: 0,
        sockets: counters.sockets as u64,
        refused: engine.refused,
        malformed: engine.malformed,
        dropped: engine.dropped,
        evicted: engine.evicted,
        unsupported: engine.unsupported,
        sockets_refused: counters.sockets_refused,
        datagrams_dropped: counters.datagrams_dropped,
        queries_dropped: counters.queries_dropped,
        bounds: engine.bounds,
    }
}

fn flow_of(flow: &FlowView, now: Instant) -> Flow {
    Flow {
        protocol: flow.protocol.into(),
        client: flow.client,
        server: flow.destination,
        name: flow.name.clone(),
        state: flow.state.to_string(),
        uplink_bytes: flow.uplink_bytes,
        downlink_bytes: flow.downlink_bytes,
        age: age(flow.opened, now),
    }
}

fn denied_of(denial: io::Denial) -> Denied {
    let io::Denial { protocol, client, destination, name, refusal, rule, remedy, first, last, count } =
        denial;
    let (protocol, refusal) = (protocol.into(), refusal.into());
    Denied { protocol, client, server: destination, name, rule, refusal, remedy, first, last, count }
}

fn lookup_of(lookup: io::Lookup, now: Instant) -> Lookup {
    let io::Lookup { lookup: resolver::Lookup { name, kind, source, outcome }, answered, took } = lookup;
    let outcome = match outcome {
        resolver::Outcome::Found => Outcome::Found,
        resolver::Outcome::NoData => Outcome::NoData,
        resolver::Outcome::NoName => Outcome::NoName,
        resolver::Outcome::Failed => Outcome::Failed,
    };
    let source = source.map(|source| source.to_string());
    Lookup { name, kind, source, outcome, took_ms: milliseconds(took), age: age(answered, now) }
}

fn sidecar_of(status: &SidecarStatus, age: u64) -> Sidecar {
    let SidecarStatus { uptime, dns, resolver_hook, routes, counters } = *status;
    Sidecar {
        age,
        uptime,
        dns: dns.into(),
        resolver_hook,
        routes,
        uplink_packets: counters.uplink_packets,
        uplink_bytes: counters.uplink_bytes,
        downlink_packets: counters.downlink_packets,
        downlink_bytes: counters.downlink_bytes,
        downlink_malformed: counters.downlink_malformed,
        downlink_refused: counters.downlink_refused,
        rebind_refused: counters.rebind_refused,
        uplink_dropped: counters.uplink_dropped,
    }
}

fn age(at: Instant, now: Instant) -> u64 {
    now.saturating_duration_since(at).as_secs()
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use gh_net_common::frame::SidecarCounters;

    use super::*;

    fn notice(code: &str) -> Notice {
        Notice { level: frame::Level::Warning, code: code.into(), text: code.into() }
    }

    #[test]
    fn the_status_joins_what_io_and_the_sidecar_report() {
        let mut record = Record::new("codespace x".into(), frame::DnsMode::Split);
        record.early.push(notice("early"));
        let now = Instant::now();
        let lookup = resolver::Lookup {
            name: "www.corp.internal.".into(),
            kind: "A".into(),
            source: Some(resolver::Source::Nss),
            outcome: resolver::Outcome::Found,
        };
        let sidecar = SidecarStatus {
            uptime: 9,
            dns: frame::DnsMode::Split,
            resolver_hook: true,
            routes: 3,
            counters: SidecarCounters { uplink_packets: 5, ..SidecarCounters::default() },
        };
        let report = Report {
            counters: io::Counters {
                round_trip: Some(Duration::from_millis(20)),
                lanes: 3,
                sockets: 7,
                ..io::Counters::default()
            },
            flows: Vec::new(),
            denials: Vec::new(),
            lookups: vec![io::Lookup { lookup, answered: now, took: Duration::from_millis(3) }],
            warnings: vec![io::Warning::EchoForbidden],
            notices: vec![notice("late")],
            sidecar: Some((sidecar, now)),
        };
        assert_eq!(record.status(None, Some(report.clone())).link.lanes, None, "there is no link");
        record.quiet(false);
        let status = record.status(None, Some(report));
        assert_eq!(status.link.lanes, Some(3));
        let codes: Vec<&str> = status.notes.iter().map(|note| note.code.as_str()).collect();
        assert_eq!(codes, ["echo-forbidden", "early", "late"], "ours first");
        assert_eq!((status.link.round_trip_ms, status.counters.sockets), (Some(20.0), 7));
        assert_eq!(status.names[0].source.as_deref(), Some("system resolver"));
        assert_eq!(status.sidecar.map(|sidecar| (sidecar.routes, sidecar.uplink_packets)), Some((3, 5)));
    }

    #[test]
    fn a_link_that_ended_is_down_and_says_why() {
        let mut record = Record::new("codespace x".into(), frame::DnsMode::Off);
        assert_eq!(record.status(None, None).link.state, LinkState::Connecting);
        record.link_ended("the connection was cut".into());
        let status = record.status(None, None);
        assert_eq!((status.link.state, status.session.state), (LinkState::Down, SessionState::Opening));
        assert_eq!(status.link.end.as_deref(), Some("the connection was cut"));
    }

    #[test]
    fn a_lost_link_stays_lost_over_its_attempts() {
        let mut record = Record::new("codespace x".into(), frame::DnsMode::Off);
        record.link_ended("the connection was cut".into());
        record.link.lost_since = Some(17);
        record.waiting(Duration::from_millis(2500));
        let link = record.status(None, None).link;
        assert_eq!((link.state, link.lost_since), (LinkState::Down, Some(17)));
        assert!(link.next_attempt.is_some_and(|at| at >= unix_time() + 2), "{link:?}");
        record.connecting();
        let link = record.status(None, None).link;
        assert_eq!((link.state, link.lost_since, link.next_attempt), (LinkState::Connecting, Some(17), None));
    }
}
