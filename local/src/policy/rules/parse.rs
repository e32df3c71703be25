//! The grammar of rules.
//!
//! ```text
//! rule     = ("allow" | "deny") space pattern       in the file and the variable; flags have the pattern alone
//! pattern  = [("tcp" | "udp" | "icmp") ":"] target [":" port ["-" port]]
//! target   = "*" | network | address | name | "*." name
//! ```
//!
//! An IPv6 address or network that a port follows is in brackets. A network is an address with a prefix length; what is
//! set beyond the prefix does not count. Names have at least one dot, because those without one are never asked of the
//! laptop, and are in ASCII. Case does not matter, nor does a trailing dot.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::str::FromStr;

use ipnet::IpNet;

use super::rule::{Action, Pattern, Rule, Target};
use crate::engine::Protocol;

/// Maximum length of a name, and of a label of it (RFC 1035, 2.3.4).
const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;

const TARGETS: &str =
    "a network such as 10.0.0.0/8, an address, a name such as db.corp.example, *.name, or *";
const PORTS: &str = "a number from 1 to 65535, or a range such as 8000-8100";

/// Text that is not a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("in {text:?}, {part:?} {problem}")]
pub struct ParseRuleError {
    /// The whole text.
    text: String,
    /// The part of it that is wrong.
    part: String,
    /// What is wrong with it, and what is expected.
    problem: String,
}

/// What is wrong with a part.
type Wrong<'a> = (&'a str, String);

impl FromStr for Rule {
    type Err = ParseRuleError;

    fn from_str(text: &str) -> Result<Self, ParseRuleError> {
        let text = text.trim();
        let (action, pattern) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let wrong = |part: &str, problem: String| ParseRuleError {
            text: text.to_owned(),
            part: part.to_owned(),
            problem,
        };
        let action = if action.eq_ignore_ascii_case("allow") {
            Action::Allow
        } else if action.eq_ignore_ascii_case("deny") {
            Action::Deny
        } else {
            let problem = "is neither allow nor deny, with which a rule begins, such as allow 10.0.0.0/8:443";
            return Err(wrong(action, problem.to_owned()));
        };
        let pattern = pattern_of(pattern.trim()).map_err(|(part, problem)| wrong(part, problem))?;
        Ok(Self { action, pattern })
    }
}

impl FromStr for Pattern {
    type Err = ParseRuleError;

    fn from_str(text: &str) -> Result<Self, ParseRuleError> {
        let text = text.trim();
        pattern_of(text).map_err(|(part, problem)| ParseRuleError {
            text: text.to_owned(),
            part: part.to_owned(),
            problem,
        })
    }
}

fn pattern_of(text: &str) -> Result<Pattern, Wrong<'_>> {
    let (protocol, rest) = match text.split_once(':') {
        Some((word, rest)) if word.eq_ignore_ascii_case("tcp") => (Some(Protocol::Tcp), rest),
        Some((word, rest)) if word.eq_ignore_ascii_case("udp") => (Some(Protocol::Udp), rest),
        Some((word, rest)) if word.eq_ignore_ascii_case("icmp") => (Some(Protocol::Echo), rest),
        Some(_) if text.contains("://") => {
            return Err((
                text,
                "is a URL; expected a host and a port, such as db.corp.example:443".to_owned(),
            ));
        }
        Some((word, rest)) if network(text).is_none() && is_pattern(rest) => {
            return Err((word, "is not a protocol; expected tcp, udp or icmp".to_owned()));
        }
        Some(_) | None => (None, text),
    };
    let (target, ports) = split(rest)?;
    if protocol != Some(Protocol::Echo)
        && let Some((address, port)) = ambiguous(rest)
    {
        let problem = format!("may be an address or a port of one; write [{rest}] or [{address}]:{port}");
        return Err((rest, problem));
    }
    let target = target_of(target)?;
    let ports = match ports {
        Some(ports) if protocol == Some(Protocol::Echo) => {
            return Err((
                ports,
                "is a port, and icmp has none; leave it out, or write tcp or udp".to_owned(),
            ));
        }
        Some(ports) => Some(ports_of(ports)?),
        None => None,
    };
    Ok(Pattern { protocol, target, ports })
}

/// The target and the ports. The colons of an IPv6 address outside of brackets begin no port.
fn split(text: &str) -> Result<(&str, Option<&str>), Wrong<'_>> {
    if let Some(bracketed) = text.strip_prefix('[') {
        let unclosed = || (text, "begins with a bracket that is not closed, as in [fd00::1]:443".to_owned());
        let (inside, after) = bracketed.split_once(']').ok_or_else(unclosed)?;
        if !matches!(network(inside), Some(IpNet::V6(_))) {
            return Err((
                inside,
                "is not an IPv6 address or network, and only these are in brackets".to_owned(),
            ));
        }
        return match after.strip_prefix(':') {
            Some(ports) => Ok((inside, Some(ports))),
            None if after.is_empty() => Ok((inside, None)),
            None => Err((after, "follows the bracket; expected a colon and a port, or nothing".to_owned())),
        };
    }
    if network(text).is_some() {
        return Ok((text, None));
    }
    match text.split_once(':') {
        Some((_, ports)) if ports.contains(':') => {
            let problem =
                "has several colons and is no IPv6 address; with a port, that is written as [fd00::1]:443";
            Err((text, problem.to_owned()))
        }
        Some((target, ports)) => Ok((target, Some(ports))),
        None => Ok((text, None)),
    }
}

/// Whether this has a target of its own, so that a word and a colon before it are meant as a protocol.
fn is_pattern(text: &str) -> bool {
    split(text).is_ok_and(|(target, _)| target_of(target).is_ok())
}

/// The address and the port, if an IPv6 address can also be read as a shorter one with a port (RFC 5952, 6). Either
/// reading could open, or fail to close, what the user did not mean.
fn ambiguous(text: &str) -> Option<(Ipv6Addr, u16)> {
    text.parse::<Ipv6Addr>().ok()?;
    let (address, port) = text.rsplit_once(':')?;
    Some((address.parse().ok()?, port.parse().ok()?))
}

fn target_of(text: &str) -> Result<Target, Wrong<'_>> {
    if text == "*" {
        return Ok(Target::Any);
    }
    if let Some(network) = network(text) {
        return Ok(Target::Network(network));
    }
    match text.strip_prefix("*.") {
        Some(parent) => Ok(Target::Below(name(parent, 1)?)),
        None => Ok(Target::Name(name(text, 2)?)),
    }
}

/// A network without the bits beyond its prefix; an address is the network of that address.
fn network(text: &str) -> Option<IpNet> {
    let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    network.ok().map(|network| network.trunc())
}

/// A name of at least so many labels, in lower case and without a trailing dot.
fn name(text: &str, least: usize) -> Result<String, Wrong<'_>> {
    let name = text.strip_suffix('.').unwrap_or(text);
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let problem = if name.contains('/') {
        "is not a network; expected an address and a prefix length, such as 10.0.0.0/8 or fd00::/8".to_owned()
    } else if name.contains('*') {
        "has a star in another place than the beginning; expected * or *.name".to_owned()
    } else if !name.is_ascii() {
        "is not ASCII; write the name in its encoded form, whose labels begin with xn--".to_owned()
    } else if !name.chars().all(plain) || name.split('.').any(str::is_empty) {
        format!("is not a target; expected {TARGETS}")
    } else if name.len() > MAX_NAME || name.split('.').any(|label| label.len() > MAX_LABEL) {
        format!("is too long for a name: at most {MAX_NAME} characters, {MAX_LABEL} between dots")
    } else if name.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit())) {
        // No top-level domain is a number (RFC 3696, 2), so this is a misspelt address.
        format!("is not an address; expected {TARGETS}")
    } else if name.split('.').count() < least {
        "is a name without a dot, and those are never asked of this computer; write the full name".to_owned()
    } else {
        return Ok(name.to_ascii_lowercase());
    };
    Err((text, problem))
}

fn ports_of(text: &str) -> Result<RangeInclusive<u16>, Wrong<'_>> {
    let port = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<u16>().ok().filter(|port| digits && *port > 0)
    };
    let wrong = || (text, format!("is not a port; expected {PORTS}"));
    let Some((first, last)) = text.split_once('-') else {
        return port(text).map(|port| port..=port).ok_or_else(wrong);
    };
    let (Some(first), Some(last)) = (port(first), port(last)) else { return Err(wrong()) };
    if first > last {
        return Err((text, "ends before it begins; expected the lower port first".to_owned()));
    }
    Ok(first..=last)
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        })
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.action, self.pattern)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.protocol {
            Some(Protocol::Tcp) => f.write_str("tcp:")?,
            Some(Protocol::Udp) => f.write_str("udp:")?,
            Some(Protocol::Echo) => f.write_str("icmp:")?,
            None => {}
        }
        let Some(ports) = &self.ports else {
            let target = self.target.to_string();
            let bracketed = self.protocol != Some(Protocol::Echo) && ambiguous(&target).is_some();
            return if bracketed { write!(f, "[{target}]") } else { f.write_str(&target) };
        };
        match &self.target {
            target @ Target::Network(IpNet::V6(_)) => write!(f, "[{target}]")?,
            target @ (Target::Any | Target::Network(IpNet::V4(_)) | Target::Name(_) | Target::Below(_)) => {
                target.fmt(f)?;
            }
        }
        write!(f, ":{}", ports.start())?;
        if ports.start() == ports.end() { Ok(()) } else { write!(f, "-{}", ports.end()) }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Network(network) if network.prefix_len() == network.max_prefix_len() => {
                network.addr().fmt(f)
            }
            Self::Network(network) => network.fmt(f),
            Self::Name(name) => f.write_str(name),
            Self::Below(parent) => write!(f, "*.{parent}"),
        }
    }
}
