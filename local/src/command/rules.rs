//! `gh-net rules`: what would happen to a flow, and why. The running sessions are asked. If there is none, or a flag that
//! decides is given, it is a dry run: it judges by the configuration and the networks as they are now, as a session that
//! starts now would.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use gh_net_common::hello::printable;
use serde_json::json;

use super::output::print;
use crate::config::Sources;
use crate::engine::Protocol;
use crate::exit::{Exit, Failure};
use crate::instance::{Error, Running, ask_all};
use crate::judgement::{Judgement, Question};
use crate::netwatch::Netwatch;
use crate::policy::{Codespace, HOST_NAME, Pattern, Policy, Report, Target};
use crate::resolver::Resolver;
use crate::session;
use crate::status::{FlowProtocol, Refusal, Route};

/// Flags that have a say in a verdict. With one of them, the user asks about another session than those that run.
const DECIDING: [&str; 6] = ["route", "exclude", "allow", "deny", "host-port", "config"];

/// Shows what would happen to flows to `target`, which is written as in a rule: an address or a name, with a port.
///
/// # Errors
/// The configuration or `target` is not valid, the name has no address, the networks can't be read, or a session does not
/// answer.
pub fn run(sources: &Sources, target: &str, json: bool) -> Result<(), Failure> {
    let config = sources.load()?;
    let asked = Asked::parse(target)?;
    let is_given = |key: &&str| sources.flags.value(key).is_some();
    let is_dry = DECIDING.iter().any(is_given);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| failure(format!("gh-net can't start: {error}")))?;
    let addresses = runtime.block_on(asked.addresses())?;
    let show = |process: Option<&str>, question: &Question, judgement: &Judgement| {
        print(&if json { line(process, question, judgement) } else { text(process, question, judgement) });
    };
    if !is_dry && ask_sessions(&asked, &addresses, show)? {
        return Ok(());
    }
    if asked.is_laptop() {
        return Err(failure(format!(
            "{HOST_NAME} has an address only while a session runs, which is then asked"
        )));
    }
    let _entered = runtime.enter();
    let snapshot = Netwatch::open().and_then(|mut netwatch| netwatch.snapshot());
    let snapshot = snapshot.map_err(|error| failure(error.to_string()))?;
    let choice = session::choice(&config);
    let policy = Policy::new(&choice, &snapshot, &Codespace::default());
    let report = Report::new(&choice, &snapshot, &Codespace::default());
    let routes: Vec<Route> = report.routes.into_iter().map(Route::from).collect();
    for question in &asked.questions(&addresses) {
        show(None, question, &Judgement::new(question, Vec::new(), &policy, &routes));
    }
    Ok(())
}

/// Asks the running sessions. Returns whether there are any.
fn ask_sessions(
    asked: &Asked,
    addresses: &[IpAddr],
    show: impl Fn(Option<&str>, &Question, &Judgement),
) -> Result<bool, Failure> {
    let ask = |session: &Running| -> Result<Vec<_>, Error> {
        let gateways = if asked.is_laptop() { gateways(session)? } else { Vec::new() };
        let questions = asked.questions(if asked.is_laptop() { &gateways } else { addresses });
        questions.into_iter().map(|question| Ok((session.judge(&question)?, question))).collect()
    };
    let (mut any, mut failed) = (false, None);
    for (session, answers) in ask_all(Running::all()?, ask) {
        match answers {
            Ok(answers) => {
                for (judgement, question) in answers {
                    // It has ended, or was killed.
                    let Some(judgement) = judgement else { continue };
                    any = true;
                    show(Some(session.process()), &question, &judgement);
                }
            }
            Err(error) => failed = Some(error),
        }
    }
    failed.map_or(Ok(any), |error| Err(error.into()))
}

/// What [`HOST_NAME`] leads to in this session.
fn gateways(session: &Running) -> Result<Vec<IpAddr>, Error> {
    let status = session.status()?.unwrap_or_default();
    let gateways = status["link"]["tunnel"]["gateways"].as_array().cloned().unwrap_or_default();
    Ok(gateways.iter().filter_map(|gateway| gateway.as_str()?.parse().ok()).collect())
}

/// The flows that are asked about, as typed.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    protocol: FlowProtocol,
    name: Option<String>,
    address: Option<IpAddr>,
    /// 0 for ping.
    port: u16,
}

impl Asked {
    fn parse(text: &str) -> Result<Self, Failure> {
        let usage = |what: String| Failure { exit: Exit::Usage, what, details: None, remedy: None };
        let pattern: Pattern = text.parse().map_err(|error| usage(format!("{error}")))?;
        let protocol = FlowProtocol::from(pattern.protocol.unwrap_or(Protocol::Tcp));
        let port = match (&pattern.ports, protocol) {
            (Some(ports), _) if ports.start() == ports.end() => *ports.start(),
            (None, FlowProtocol::Echo) => 0,
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

    /// Whether it is the name of the laptop itself, whose addresses differ from session to session.
    fn is_laptop(&self) -> bool {
        self.name.as_deref() == Some(HOST_NAME)
    }

    /// The addresses that are the same in all sessions.
    async fn addresses(&self) -> Result<Vec<IpAddr>, Failure> {
        match &self.name {
            Some(_) if self.is_laptop() => Ok(Vec::new()),
            Some(name) => addresses(name).await,
            None => Ok(self.address.into_iter().collect()),
        }
    }

    /// One question for each address.
    fn questions(&self, addresses: &[IpAddr]) -> Vec<Question> {
        let &Self { protocol, port, .. } = self;
        let question = |address: &IpAddr| {
            let (destination, name) = (SocketAddr::new(*address, port), self.name.clone());
            Question { protocol, destination, name }
        };
        addresses.iter().map(question).collect()
    }
}

/// What this computer's resolver says.
async fn addresses(name: &str) -> Result<Vec<IpAddr>, Failure> {
    let resolver = Resolver::system().map_err(|error| failure(error.to_string()))?;
    let addresses = resolver.addresses(name).await;
    if addresses.is_empty() {
        return Err(failure(format!("this computer's resolver has no address for {name}")));
    }
    Ok(addresses)
}

fn protocol(question: &Question) -> &'static str {
    match question.protocol {
        FlowProtocol::Tcp => "tcp",
        FlowProtocol::Udp => "udp",
        FlowProtocol::Echo => "icmp",
    }
}

fn failure(what: String) -> Failure {
    Failure { exit: Exit::Failed, what, details: None, remedy: None }
}

fn text(process: Option<&str>, question: &Question, judgement: &Judgement) -> String {
    let mut text = process.map(|process| format!("process {process}: ")).unwrap_or_default();
    // Writing to a string does not fail.
    let _ = match question.protocol {
        FlowProtocol::Tcp | FlowProtocol::Udp => {
            write!(text, "{} {}", protocol(question), question.destination)
        }
        FlowProtocol::Echo => write!(text, "icmp {}", question.destination.ip()),
    };
    if !judgement.names.is_empty() {
        let _ = write!(text, " ({})", printable(&judgement.names.join(", ")));
    }
    let outcome = match (judgement.refusal, judgement.host_port) {
        (Some(Refusal::NoRoute), _) => "not forwarded, the codespace uses its own way".to_owned(),
        (Some(Refusal::Prohibited | Refusal::Closed | Refusal::Silent), _) => "refused".to_owned(),
        (None, Some(port)) => format!("forwarded to port {port} of this computer"),
        (None, None) => {
            format!("forwarded by {}", judgement.network.as_deref().unwrap_or("the session's networks"))
        }
    };
    let _ = writeln!(text, ": {outcome}: {}", judgement.rule);
    text
}

fn line(process: Option<&str>, question: &Question, judgement: &Judgement) -> String {
    let Judgement { names, forwarded, refusal, host_port, rule, network } = judgement;
    let port = (question.protocol != FlowProtocol::Echo).then_some(question.destination.port());
    let answer = json!({
        "process": process, "protocol": protocol(question), "address": question.destination.ip(), "port": port,
        "name": question.name, "names": names, "forwarded": forwarded, "refusal": refusal, "host_port": host_port,
        "rule": rule, "network": network,
    });
    format!("{answer}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_one_destination_with_a_port() {
        let asked = Asked::parse("udp:[fd00::1]:53").unwrap();
        assert_eq!(
            (asked.protocol, asked.address, asked.port),
            (FlowProtocol::Udp, "fd00::1".parse().ok(), 53)
        );
        let asked = Asked::parse("DB.corp.example:5432").unwrap();
        assert_eq!((asked.protocol, asked.name.as_deref()), (FlowProtocol::Tcp, Some("db.corp.example")));
        assert_eq!(Asked::parse("icmp:10.0.0.1").unwrap().port, 0);
        for text in ["10.0.0.1", "10.0.0.0/8:80", "*:80", "*.corp.example:80", "10.0.0.1:80-90", "db:80"] {
            assert_eq!(Asked::parse(text).unwrap_err().exit, Exit::Usage, "{text}");
        }
    }
}
