//! The configuration as the user wrote it. The type of each field parses and checks its value, so that figment can
//! tell which flag, variable or file a bad value came from.

use std::fmt;
use std::marker::PhantomData;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use gh_net_common::frame::{DnsMode, Rebind};
use ipnet::IpNet;
use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};

use crate::policy::{HostPort, RouteChoice};

/// One field for each key of [`SETTINGS`](super::SETTINGS). Those with a default value are always set.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Raw {
    pub(super) codespace: Option<Text<CodespaceName>>,
    pub(super) ssh: Option<Text<Destination>>,
    pub(super) exec: Option<Text<Words>>,
    pub(super) ssh_option: Option<Lines<SshOption>>,
    pub(super) sidecar: Option<Text<RemotePath>>,
    pub(super) sidecar_dir: Option<PathBuf>,
    pub(super) grace: Text<Grace>,
    pub(super) idle_timeout: Text<Idle>,
    pub(super) keep_started: Text<Switch>,
    pub(super) memory: Text<Memory>,
    pub(super) route: List<RouteChoice>,
    pub(super) exclude: Option<List<Network>>,
    pub(super) from: List<Source>,
    pub(super) dns: Text<Dns>,
    pub(super) rebind: Text<Rebinding>,
    pub(super) host_port: Option<List<HostPort>>,
    pub(super) audit: Option<PathBuf>,
    pub(super) gui: Text<Switch>,
    pub(super) trace: Text<TraceFilter>,
    pub(super) trace_dest: Option<PathBuf>,
}

/// A value written as a string or, in the file, as a boolean.
#[derive(Debug)]
pub(super) struct Text<T>(pub(super) T);

/// A string or an array of strings, each of which may hold several values separated by commas.
#[derive(Debug)]
pub(super) struct List<T>(pub(super) Vec<T>);

/// A string or an array of strings, each of which is one value: commas do not separate.
#[derive(Debug)]
pub(super) struct Lines<T>(pub(super) Vec<T>);

/// The name gh knows a codespace by.
#[derive(Debug)]
pub(super) struct CodespaceName(pub(super) String);

impl FromStr for CodespaceName {
    type Err = String;

    /// The name becomes an argument of gh and of a command in an ssh configuration, so only the characters that
    /// GitHub uses in names are accepted.
    fn from_str(text: &str) -> Result<Self, String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if text.is_empty() || text.starts_with('-') || !text.chars().all(plain) {
            return Err(format!("{text:?} is not the name of a codespace (see `gh codespace list`)"));
        }
        Ok(Self(text.to_owned()))
    }
}

/// What ssh is to connect to.
#[derive(Debug)]
pub(super) struct Destination(pub(super) String);

impl FromStr for Destination {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.starts_with('-') || text.contains(char::is_control) {
            return Err(format!(
                "{text:?} is not an ssh destination such as host, user@host or ssh://host:22"
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

/// A program and its arguments.
#[derive(Debug)]
pub(super) struct Words(pub(super) Vec<String>);

impl FromStr for Words {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match shlex::split(text) {
            None => Err(format!("a quote is not closed in {text:?}")),
            Some(words) if words.first().is_none_or(String::is_empty) => {
                Err("the command is empty".to_owned())
            }
            Some(words) => Ok(Self(words)),
        }
    }
}

/// An option as ssh's -o takes it.
#[derive(Debug)]
pub(super) struct SshOption(pub(super) String);

impl FromStr for SshOption {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let key = text.split(['=', ' ', '\t']).next().unwrap_or_default();
        let named = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric());
        if !named || key.len() == text.len() || text.contains(['\n', '\r', '\0']) {
            return Err(format!("{text:?} is not an ssh option such as Port=2222"));
        }
        Ok(Self(text.to_owned()))
    }
}

/// The path of a program in the codespace. It is quoted for an unknown login shell (POSIX, fish, csh), so every
/// character that one of them treats specially within single quotes is refused.
#[derive(Debug)]
pub(super) struct RemotePath(pub(super) String);

impl FromStr for RemotePath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.contains(['\'', '\\', '!']) || text.contains(char::is_control) {
            return Err(format!("{text:?} is not a path that a shell in the codespace can run"));
        }
        Ok(Self(text.to_owned()))
    }
}

/// How long a session waits for its next link.
#[derive(Debug)]
pub(super) struct Grace(pub(super) Duration);

impl FromStr for Grace {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const MOST: Duration = Duration::from_secs(24 * 3600);
        match humantime::parse_duration(text) {
            Ok(grace) if grace <= MOST => Ok(Self(grace)),
            Ok(_) => Err(format!("{text:?} is more than 24h")),
            Err(_) => Err(not_a_duration(text)),
        }
    }
}

/// After how long an idle link becomes quiet.
#[derive(Debug)]
pub(super) struct Idle(pub(super) Duration);

impl FromStr for Idle {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match humantime::parse_duration(text) {
            Ok(idle) if idle.is_zero() || idle >= Duration::from_secs(1) => Ok(Self(idle)),
            Ok(_) => Err(format!("{text:?} is less than 1s")),
            Err(_) => Err(not_a_duration(text)),
        }
    }
}

/// Yes or no.
#[derive(Debug)]
pub(super) struct Switch(pub(super) bool);

impl FromStr for Switch {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "true" => Ok(Self(true)),
            "false" => Ok(Self(false)),
            other => Err(format!("{other:?} is neither true nor false")),
        }
    }
}

/// How much may be kept for the codespace, in bytes.
#[derive(Debug)]
pub(super) struct Memory(pub(super) usize);

impl FromStr for Memory {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const LEAST: usize = 32 << 20;
        let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
        let number = text[..text.len() - unit.len()].parse::<usize>().ok();
        let scale = match unit {
            "MiB" | "M" => 1 << 20,
            "GiB" | "G" => 1 << 30,
            _ => return Err(format!("{text:?} is not a size such as 64MiB or 1GiB")),
        };
        match number.and_then(|number| number.checked_mul(scale)) {
            Some(size) if size >= LEAST => Ok(Self(size)),
            Some(_) => Err(format!("{text:?} is less than 32MiB")),
            None => Err(format!("{text:?} is not a size such as 64MiB or 1GiB")),
        }
    }
}

fn not_a_duration(text: &str) -> String {
    format!("{text:?} is not a duration such as 90s, 15m or 2h")
}

/// A network; a lone address is the network of that address.
#[derive(Debug)]
pub(super) struct Network(pub(super) IpNet);

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        match network {
            Ok(network) => Ok(Self(network.trunc())),
            Err(_) => Err(format!("{text:?} is not a network such as 10.0.0.0/8 or fd00::/8")),
        }
    }
}

/// Whose packets enter the tunnel.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Source {
    Containers,
    Nobody,
    Network(IpNet),
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Containers),
            "none" => Ok(Self::Nobody),
            text => match text.parse::<Network>() {
                Ok(Network(all)) if all.prefix_len() == 0 => {
                    Err(format!("{text} is everything: name the networks whose packets may enter"))
                }
                Ok(network) => Ok(Self::Network(network.0)),
                Err(_) => Err(format!("{text:?} is neither auto nor none nor a network such as 10.9.0.0/16")),
            },
        }
    }
}

/// How names are resolved.
#[derive(Debug)]
pub(super) struct Dns(pub(super) DnsMode);

impl Dns {
    pub(super) const CHOICES: [&str; 5] = ["true", "false", "split", "split-strict", "local"];
}

impl FromStr for Dns {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "true" | "split" => Ok(Self(DnsMode::Split)),
            "split-strict" => Ok(Self(DnsMode::SplitStrict)),
            "local" => Ok(Self(DnsMode::Local)),
            "false" => Ok(Self(DnsMode::Off)),
            other => Err(format!("{other:?} is none of {}", Self::CHOICES.join(", "))),
        }
    }
}

/// What becomes of public names that lead into the laptop's networks.
#[derive(Debug)]
pub(super) struct Rebinding(pub(super) Rebind);

impl Rebinding {
    pub(super) const CHOICES: [&str; 2] = ["refuse", "allow"];
}

impl FromStr for Rebinding {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "refuse" => Ok(Self(Rebind::Refuse)),
            "allow" => Ok(Self(Rebind::Allow)),
            other => Err(format!("{other:?} is none of {}", Self::CHOICES.join(", "))),
        }
    }
}

/// What is logged. `tracing` would take a misspelt level for a module's name and log nothing.
#[derive(Debug)]
pub(super) struct TraceFilter(pub(super) String);

impl FromStr for TraceFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
        // github/gh-net calls it `none`.
        let text = if text == "none" { "off" } else { text };
        let is_level = |word: &str| LEVELS.iter().any(|level| word.eq_ignore_ascii_case(level));
        let valid = |part: &str| match part.rsplit_once('=') {
            Some((module, level)) => !module.is_empty() && is_level(level),
            None => is_level(part),
        };
        if !text.split(',').all(valid) {
            let levels = LEVELS.join(", ");
            return Err(format!(
                "{text:?} is not one of {levels}, or a list such as debug,gh_net::engine=trace"
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

impl<'de, T: FromStr<Err: fmt::Display>> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OneText(PhantomData)).map(Self)
    }
}

impl<'de, T: FromStr<Err: fmt::Display>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let texts = deserializer.deserialize_any(Texts)?;
        let parts =
            texts.iter().flat_map(|text| text.split(',')).map(str::trim).filter(|part| !part.is_empty());
        parts.map(|part| part.parse().map_err(de::Error::custom)).collect::<Result<_, _>>().map(Self)
    }
}

impl<'de, T: FromStr<Err: fmt::Display>> Deserialize<'de> for Lines<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let texts = deserializer.deserialize_any(Texts)?;
        texts.iter().map(|text| text.parse().map_err(de::Error::custom)).collect::<Result<_, _>>().map(Self)
    }
}

struct OneText<T>(PhantomData<T>);

impl<T: FromStr<Err: fmt::Display>> Visitor<'_> for OneText<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<T, E> {
        self.visit_str(if value { "true" } else { "false" })
    }
}

struct Texts;

impl<'de> Visitor<'de> for Texts {
    type Value = Vec<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or an array of strings")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Vec<String>, E> {
        Ok(vec![text.to_owned()])
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<String>, A::Error> {
        let mut texts = Vec::new();
        while let Some(text) = items.next_element()? {
            texts.push(text);
        }
        Ok(texts)
    }
}
