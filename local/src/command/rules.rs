//! `gh-net rules`: a dry run, which says what would happen to a flow, and why. It judges by the configuration and the
//! networks as they are now, as a session that starts now would.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde_json::json;

use super::output::print;
use crate::config::{Config, Sources};
use crate::engine::{NewFlow, Policy as _, Protocol, Refusal, Verdict};
use crate::exit::{Exit, Failure};
use crate::netwatch::Netwatch;
use crate::policy::{Codespace, Pattern, Policy, Report, Target};
use crate::resolver::Resolver;
use crate::session;

/// Shows what would happen to flows to `target`, which is written as in a rule: an address or a name, with a port.
///
/// # Errors
/// The configuration or `target` is not valid, the name has no address, or the networks can't be read.
pub fn run(sources: &Sources, target: &str, json: bool) -> Result<(), Failure> {
    let config = sources.load()?;
    let question = Question::parse(target)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| failure(format!("gh-net can't start: {error}")))?;
    runtime.block_on(answer(&config, &question, json))
}

async fn answer(config: &Config, question: &Question, json: bool) -> Result<(), Failure> {
    let snapshot = Netwatch::open().and_then(|mut netwatch| netwatch.snapshot());
    let snapshot = snapshot.map_err(|error| failure(error.to_string()))?;
    let choice = session::choice(config);
    let policy = Policy::new(&choice, &snapshot, &Codespace::default());
    let report = Report::new(&choice, &snapshot, &Codespace::default());
    let addresses = match (&question.name, question.address) {
        (Some(name), _) => {
            let resolver = Resolver::system().map_err(|error| failure(error.to_string()))?;
            resolver.addresses(name).await
        }
        (None, address) => address.into_iter().collect(),
    };
    if addresses.is_empty() {
        let name = question.name.as_deref().unwrap_or_default();
        return Err(failure(format!("this computer's resolver has no address for {name}")));
    }
    let names: Vec<String> = question.name.iter().cloned().collect();
    for address in addresses {
        let destination = SocketAddr::new(address, question.port);
        let client = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let flow = NewFlow { protocol: question.protocol, client, destination, names: &names };
        let route = report.routes.iter().find(|route| route.network.contains(&address));
        let route = route.map(|route| format!("{} ({})", route.network, route.reason));
        let verdict = policy.verdict(&flow);
        print(&if json {
            line(question, &policy, verdict, address, route)
        } else {
            text(question, &policy, verdict, address, route)
        });
    }
    Ok(())
}

/// The flow that is asked about.
#[derive(Debug, PartialEq, Eq)]
struct Question {
    protocol: Protocol,
    name: Option<String>,
    address: Option<IpAddr>,
    /// 0 for ping.
    port: u16,
}

impl Question {
    fn parse(text: &str) -> Result<Self, Failure> {
        let usage = |what: String| Failure { exit: Exit::Usage, what, details: None, remedy: None };
        let pattern: Pattern = text.parse().map_err(|error| usage(format!("{error}")))?;
        let protocol = pattern.protocol.unwrap_or(Protocol::Tcp);
        let port = match (&pattern.ports, protocol) {
            (Some(ports), _) if ports.start() == ports.end() => *ports.start(),
            (None, Protocol::Echo) => 0,
            (Some(_) | None, _) => {
                return Err(usage(format!(
                    "{text:?} has no port; expected one, such as {}:443, or icmp: for ping",
                    pattern.target
                )));
            }
        };
        let (name, address) = match pattern.target {
            Target::Name(name) => (Some(name), None),
            Target::Network(network) if network.prefix_len() == network.max_prefix_len() => {
                (None, Some(network.addr()))
            }
            Target::Network(_) | Target::Below(_) | Target::Any => {
                return Err(usage(format!(
                    "{text:?} is not one destination; expected an address or a name, with a port"
                )));
            }
        };
        Ok(Self { protocol, name, address, port })
    }

    fn protocol(&self) -> &'static str {
        match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Echo => "icmp",
        }
    }
}

fn failure(what: String) -> Failure {
    Failure { exit: Exit::Failed, what, details: None, remedy: None }
}

fn text(
    question: &Question,
    policy: &Policy,
    verdict: Verdict,
    address: IpAddr,
    route: Option<String>,
) -> String {
    let destination = SocketAddr::new(address, question.port);
    let mut text = match question.protocol {
        Protocol::Tcp | Protocol::Udp => format!("{} {destination}", question.protocol()),
        Protocol::Echo => format!("icmp {address}"),
    };
    if let Some(name) = &question.name {
        let _ = write!(text, " ({name})");
    }
    let (rule, outcome) = match verdict {
        Verdict::Forward { rule, .. } => (rule, format!("forwarded by {}", route.unwrap_or_default())),
        Verdict::Refuse { rule, refusal: Refusal::NoRoute } => {
            (rule, "not forwarded, the codespace uses its own way".to_owned())
        }
        Verdict::Laptop { rule, port } => (rule, format!("forwarded to port {port} of this computer")),
        Verdict::Refuse { rule, refusal: Refusal::Prohibited | Refusal::Closed | Refusal::Silent } => {
            (rule, "refused".to_owned())
        }
    };
    let _ = writeln!(text, ": {outcome}: {}", policy.rule_text(rule));
    text
}

fn line(
    question: &Question,
    policy: &Policy,
    verdict: Verdict,
    address: IpAddr,
    route: Option<String>,
) -> String {
    let (forwarded, rule, refusal) = match verdict {
        Verdict::Forward { rule, .. } | Verdict::Laptop { rule, .. } => (true, rule, None),
        Verdict::Refuse { rule, refusal: Refusal::NoRoute } => (false, rule, Some("no-route")),
        Verdict::Refuse { rule, refusal: Refusal::Prohibited } => (false, rule, Some("prohibited")),
        Verdict::Refuse { rule, refusal: Refusal::Closed } => (false, rule, Some("closed")),
        Verdict::Refuse { rule, refusal: Refusal::Silent } => (false, rule, Some("silent")),
    };
    let port = (question.protocol != Protocol::Echo).then_some(question.port);
    let answer = json!({
        "protocol": question.protocol(), "address": address, "port": port, "name": question.name,
        "forwarded": forwarded, "refusal": refusal, "rule": policy.rule_text(rule), "network": route,
    });
    format!("{answer}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_one_destination_with_a_port() {
        let question = Question::parse("udp:[fd00::1]:53").unwrap();
        assert_eq!(
            (question.protocol(), question.address, question.port),
            ("udp", "fd00::1".parse().ok(), 53)
        );
        let question = Question::parse("DB.corp.example:5432").unwrap();
        assert_eq!((question.protocol(), question.name.as_deref()), ("tcp", Some("db.corp.example")));
        assert_eq!(Question::parse("icmp:10.0.0.1").unwrap().port, 0);
        for text in ["10.0.0.1", "10.0.0.0/8:80", "*:80", "*.corp.example:80", "10.0.0.1:80-90", "db:80"] {
            assert_eq!(Question::parse(text).unwrap_err().exit, Exit::Usage, "{text}");
        }
    }
}
