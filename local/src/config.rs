//! The configuration: flags take precedence over `GH_NET_*` variables, those over the file, the file over defaults.
//!
//! [`SETTINGS`] is the table of what can be set. [`raw`] parses the values that were set or are defaults; [`Config`] is
//! the result, in which nothing is left open that the program would need a default for.

mod arguments;
mod layer;
mod raw;
mod rules;
mod settings;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use figment::providers::{Format, Toml};
use figment::{Figment, Metadata};
use gh_net_common::frame::{self, DnsMode, Rebind};
use ipnet::IpNet;

use crate::exit::{Exit, Explain};
use crate::policy::{HostPort, RouteChoice, Rules};
pub use arguments::Flags;
use layer::Layer;
use raw::Raw;
pub use settings::{SETTINGS, Setting, Unset, flags, keys};

/// Set by gh's extension script; see [`crate::invoked`].
const EXTENSION: &str = "GH_NET_EXTENSION";

/// What a session is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// What is bridged.
    pub target: Target,
    /// Options for ssh; they take precedence over most of ours.
    pub ssh_options: Vec<String>,
    /// Which sidecar to run in the codespace.
    pub sidecar: Sidecar,
    /// The first directory on the laptop to search for a sidecar to copy.
    pub sidecar_dir: Option<PathBuf>,
    /// What is forwarded; never empty.
    pub routes: Vec<RouteChoice>,
    /// What is taken away from `routes`.
    pub exclude: Vec<IpNet>,
    /// Whose packets enter the tunnel.
    pub from: frame::Sources,
    /// What may be reached of the networks that are forwarded.
    pub rules: Rules,
    /// How long a session waits for its next link. Zero: a lost link ends it.
    pub grace: Duration,
    /// For how long no connection may have moved any data until the link becomes quiet. Zero: it never does.
    pub idle_timeout: Duration,
    /// How many bytes may be kept for the codespace.
    pub memory: usize,
    /// Whether a codespace that has stopped while the link was lost is started again.
    pub keep_started: bool,
    /// How names are resolved.
    pub dns: DnsMode,
    /// What becomes of public names that lead into the laptop's networks.
    pub rebind: Rebind,
    /// Whether to draw a full-screen view if there is a terminal.
    pub gui: bool,
    /// What is logged: a `tracing` filter.
    pub trace: String,
    /// Ports of the laptop itself that the codespace may reach.
    pub host_ports: Vec<HostPort>,
    /// Where flows are recorded.
    pub audit: Option<PathBuf>,
    /// Where the log goes; `None` is stderr.
    pub trace_dest: Option<PathBuf>,
    /// Warnings about the configuration itself.
    pub warnings: Vec<String>,
}

/// What is bridged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A codespace; without a name, the user chooses one.
    Codespace(Option<String>),
    /// An ssh destination.
    Ssh(String),
    /// A program and its arguments, whose stdin and stdout lead to `gh-net-sidecar attach`.
    Exec(Vec<String>),
}

/// Which sidecar to run in the codespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sidecar {
    /// A compatible one that is installed, else a copy of ours.
    Provision,
    /// The one with this path.
    At(String),
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("the configuration file {} can't be read: {source}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file is not TOML.
    #[error("the configuration file {} is not valid TOML", path.display())]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// The parser's message.
        message: String,
    },
    /// The file has a key that does not exist.
    #[error("{origin}: there is no key {key:?}")]
    UnknownKey {
        /// The file.
        origin: String,
        /// The key.
        key: String,
    },
    /// A value does not fit its key.
    #[error("{origin}: {problem}")]
    Value {
        /// The flag, the variable, or the file and key.
        origin: String,
        /// What is wrong.
        problem: String,
    },
    /// Several destinations at the same level of precedence.
    #[error("{origin}: {first} and {second} are both set; at most one destination is possible")]
    Targets {
        /// The environment or the file.
        origin: String,
        /// One of them.
        first: &'static str,
        /// Another.
        second: &'static str,
    },
}

impl Explain for ConfigError {
    fn exit(&self) -> Exit {
        Exit::Usage
    }

    fn details(&self) -> Option<String> {
        match self {
            Self::Syntax { message, .. } => Some(message.trim_end().to_owned()),
            Self::File { .. } | Self::UnknownKey { .. } | Self::Value { .. } | Self::Targets { .. } => None,
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::UnknownKey { .. } => {
                let keys: Vec<_> = keys().map(|setting| setting.key).collect();
                Some(format!("the keys are: {}", keys.join(", ")))
            }
            Self::File { .. } | Self::Syntax { .. } | Self::Value { .. } | Self::Targets { .. } => None,
        }
    }
}

/// Variables of the environment, by name.
pub type Environment = BTreeMap<String, String>;

/// The process's environment, without what is not UTF-8: it can't be a value of ours.
pub fn environment() -> Environment {
    std::env::vars_os()
        .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// Where a configuration comes from, beside the file.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The flags.
    pub flags: Flags,
    /// The variables.
    pub environment: Environment,
}

impl Sources {
    /// The configuration, with the file as it is now.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn load(&self) -> Result<Config, ConfigError> {
        load(&self.flags, &self.environment)
    }
}

/// Combines all layers into the configuration.
///
/// # Errors
/// See [`ConfigError`].
pub fn load(flags: &Flags, environment: &Environment) -> Result<Config, ConfigError> {
    let mut groups = [
        default_layers(),
        file_layers(flags, environment)?,
        environment_layers(environment),
        flag_layers(flags),
    ];
    let [_, file, variables, typed] = &mut groups;
    let rules = rules::take(typed, variables, file);
    let rules = rules.map_err(|rules::Invalid { origin, problem }| ConfigError::Value { origin, problem })?;
    let figment = groups.into_iter().try_fold(Figment::new(), stack)?;
    let raw: Raw = figment.extract().map_err(|error| explain(error, &figment))?;
    let warnings =
        flags.warnings.iter().cloned().chain(unknown_variables(environment)).chain(rules.warnings());
    let config = resolve(raw, warnings.collect(), rules);
    // Which layers these come from is not known any more.
    let wrong = |key: &str, problem| ConfigError::Value { origin: key.to_owned(), problem };
    let named = config.from.networks.len();
    if named > frame::MAX_SOURCES {
        return Err(wrong("from", format!("{named} networks are more than {}", frame::MAX_SOURCES)));
    }
    if let Some((one, other)) = conflict(&config.host_ports) {
        return Err(wrong(
            "host-port",
            format!("{one} and {other} are the same port of the codespace; choose one"),
        ));
    }
    Ok(config)
}

/// Two that lead the same port to different ones.
fn conflict(ports: &[HostPort]) -> Option<(HostPort, HostPort)> {
    let first_of = |port: u16| ports.iter().find(|opened| opened.port == port);
    ports.iter().find_map(|other| first_of(other.port).filter(|one| *one != other).map(|one| (*one, *other)))
}

fn resolve(raw: Raw, warnings: Vec<String>, rules: Rules) -> Config {
    let target = match (raw.exec, raw.ssh) {
        (Some(words), _) => Target::Exec(words.0.0),
        (None, Some(destination)) => Target::Ssh(destination.0.0),
        (None, None) => Target::Codespace(raw.codespace.map(|name| name.0.0)),
    };
    let routes = if raw.route.0.is_empty() { vec![RouteChoice::Auto] } else { raw.route.0 };
    Config {
        target,
        ssh_options: raw.ssh_option.map_or_else(Vec::new, |list| list.0.into_iter().map(|o| o.0).collect()),
        sidecar: raw.sidecar.map_or(Sidecar::Provision, |path| Sidecar::At(path.0.0)),
        sidecar_dir: raw.sidecar_dir,
        grace: raw.grace.0.0,
        idle_timeout: raw.idle_timeout.0.0,
        memory: raw.memory.0.0,
        keep_started: raw.keep_started.0.0,
        routes,
        exclude: raw.exclude.map_or_else(Vec::new, |list| list.0.into_iter().map(|n| n.0).collect()),
        from: packet_sources(raw.from.0),
        rules,
        dns: raw.dns.0.0,
        rebind: raw.rebind.0.0,
        gui: raw.gui.0.0,
        trace: raw.trace.0.0,
        host_ports: raw.host_port.map_or_else(Vec::new, |list| list.0),
        audit: raw.audit,
        trace_dest: raw.trace_dest,
        warnings,
    }
}

/// What `--from` adds up to.
fn packet_sources(given: Vec<raw::Source>) -> frame::Sources {
    let mut sources = frame::Sources { containers: false, networks: Vec::new() };
    for source in given {
        match source {
            raw::Source::Containers => sources.containers = true,
            raw::Source::Network(network) => sources.networks.push(network),
            raw::Source::Nobody => {}
        }
    }
    sources
}

/// Puts layers of the same precedence on top of `below`. If they set a destination, the destinations in `below`
/// no longer count: `--ssh` on the command line replaces the codespace in the file.
fn stack(below: Figment, layers: Vec<Layer>) -> Result<Figment, ConfigError> {
    let destinations = || keys().filter(|setting| setting.group == Some(settings::DESTINATION));
    let layer_with = |key: &str| layers.iter().find(|layer| layer.values.contains_key(key));
    let mut set = destinations().filter_map(|setting| Some((setting.key, layer_with(setting.key)?)));
    let Some((first, layer)) = set.next() else {
        return Ok(layers.into_iter().fold(below, Figment::merge));
    };
    let origin = layer.metadata.name.clone().into_owned();
    if let Some((second, _)) = set.next() {
        return Err(ConfigError::Targets { origin, first, second });
    }
    let cleared = destinations().filter(|setting| setting.key != first).fold(below, |figment, setting| {
        figment.merge(Layer::of(setting.key, figment::value::Empty::None, origin.clone()))
    });
    Ok(layers.into_iter().fold(cleared, Figment::merge))
}

fn default_layers() -> Vec<Layer> {
    let layer = |setting: &Setting| match setting.default {
        Unset::Value(value) => Some(Layer::of(setting.key, value, format!("the default of {}", setting.key))),
        Unset::Described(_) | Unset::Nothing => None,
    };
    keys().filter_map(layer).collect()
}

fn file_layers(flags: &Flags, environment: &Environment) -> Result<Vec<Layer>, ConfigError> {
    let variable = environment.get("GH_NET_CONFIG").map(String::as_str).filter(|path| !path.is_empty());
    let named = flags.value("config").or(variable);
    let Some(path) = named.map(PathBuf::from).or_else(|| default_file(environment)) else {
        return Ok(Vec::new());
    };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound && named.is_none() => return Ok(Vec::new()),
        Err(source) => return Err(ConfigError::File { path, source }),
    };
    let values = Toml::from_str(&text)
        .map_err(|error| ConfigError::Syntax { path: path.clone(), message: error.to_string() })?;
    Ok(vec![Layer { metadata: Metadata::from(path.display().to_string(), path.as_path()), values }])
}

fn default_file(environment: &Environment) -> Option<PathBuf> {
    let set = |name| environment.get(name).filter(|value| Path::new(value).is_absolute()).map(PathBuf::from);
    let home = set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config")))?;
    Some(home.join("gh-net/config.toml"))
}

/// An empty variable counts as not set.
fn environment_layers(environment: &Environment) -> Vec<Layer> {
    let layer = |setting: &Setting| {
        let variable = setting.variable();
        let value = environment.get(&variable).filter(|value| !value.is_empty())?;
        Some(Layer::of(setting.key, value.as_str(), variable))
    };
    keys().filter_map(layer).collect()
}

fn unknown_variables(environment: &Environment) -> Vec<String> {
    let is_variable = |setting: &Setting, name: &str| setting.joins.is_none() && setting.variable() == name;
    let known = |name: &str| name == EXTENSION || SETTINGS.iter().any(|setting| is_variable(setting, name));
    let unknown = environment.keys().filter(|name| name.starts_with("GH_NET_") && !known(name));
    unknown.map(|name| format!("the variable {name} is unknown to gh-net")).collect()
}

fn flag_layers(flags: &Flags) -> Vec<Layer> {
    let layer = |setting: &Setting| {
        let joining: Vec<_> = settings::joining(setting.key).map(|joining| joining.key).collect();
        if !joining.is_empty() {
            let origin = joining.iter().map(|flag| format!("--{flag}")).collect::<Vec<_>>().join(", ");
            let values: Vec<_> = flags.joined(&joining).collect();
            return (!values.is_empty()).then(|| Layer::of(setting.key, values, origin));
        }
        let origin = format!("--{}", setting.key);
        if setting.repeatable {
            let values: Vec<_> = flags.values(setting.key).collect();
            return (!values.is_empty()).then(|| Layer::of(setting.key, values, origin));
        }
        Some(Layer::of(setting.key, flags.value(setting.key)?, origin))
    };
    keys().filter_map(layer).collect()
}

/// Tells where a bad value came from.
fn explain(error: figment::Error, figment: &Figment) -> ConfigError {
    let key = error.path.first().cloned().unwrap_or_default();
    let metadata = error.metadata.as_ref().or_else(|| figment.find_metadata(&key));
    let origin = metadata.map(|metadata| metadata.name.clone().into_owned()).unwrap_or_default();
    if let figment::error::Kind::UnknownField(key, _) = &error.kind {
        // Only the file can have one: flags and variables are looked up by the known keys.
        let origin = figment.find_metadata(key).map_or(origin, |metadata| metadata.name.clone().into_owned());
        return ConfigError::UnknownKey { origin, key: key.clone() };
    }
    let is_file = metadata.is_some_and(|metadata| metadata.source.is_some());
    let origin = if is_file { format!("{origin}: {key}") } else { origin };
    ConfigError::Value { origin, problem: error.kind.to_string() }
}

#[cfg(test)]
mod tests;
