//! The configuration: flags win over `GH_NET_*` variables, those over the file, the file over defaults.
//!
//! In two steps. [`raw`] is what was written, every key optional; [`Config`] is what the rest of the program
//! sees, where nothing is left open that the program would have to know a default for.

mod raw;
mod reference;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use figment::providers::{Format, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};
use gh_net_common::frame::DnsMode;
use ipnet::IpNet;

use crate::cli::Flags;
use crate::exit::{Exit, Explain};
use crate::policy::RouteChoice;
use raw::{KEYS, Raw};
pub use reference::{Setting, settings};

/// Variables that are ours but no keys.
const OTHER_VARIABLES: [&str; 2] = ["GH_NET_CONFIG", "GH_NET_EXTENSION"];
/// Keys of which the highest layer that has any decides what is bridged.
const TARGETS: [&str; 3] = ["codespace", "ssh", "exec"];

/// What a session is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// What is bridged.
    pub target: Target,
    /// Options for ssh, before ours.
    pub ssh_options: Vec<String>,
    /// Which sidecar is run over there.
    pub sidecar: Sidecar,
    /// Where else sidecars to copy may lie on the laptop.
    pub sidecar_dir: Option<PathBuf>,
    /// What is forwarded; never empty.
    pub routes: Vec<RouteChoice>,
    /// What is not forwarded all the same.
    pub exclude: Vec<IpNet>,
    /// How names are resolved.
    pub dns: DnsMode,
    /// Whether a full-screen view is wished, where there is a terminal for it.
    pub gui: bool,
    /// What is logged: a `tracing` filter.
    pub trace: String,
    /// Where the log goes; `None` is stderr.
    pub trace_dest: Option<PathBuf>,
    /// What the user should know about the configuration itself.
    pub warnings: Vec<String>,
}

/// What is bridged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A codespace; without a name, the user is asked.
    Codespace(Option<String>),
    /// An ssh destination.
    Ssh(String),
    /// A program and its arguments, whose stdin and stdout lead to `gh-net-sidecar attach`.
    Exec(Vec<String>),
}

/// Which sidecar is run over there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sidecar {
    /// One that fits is looked for, else ours is copied.
    Provision,
    /// Exactly this one.
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
        /// What the parser says.
        said: String,
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
    /// More than one thing to bridge, and none of them wins.
    #[error("{origin}: {first} and {second} are both set; one destination at most")]
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
            Self::Syntax { said, .. } => Some(said.trim_end().to_owned()),
            Self::File { .. } | Self::UnknownKey { .. } | Self::Value { .. } | Self::Targets { .. } => None,
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::UnknownKey { .. } => Some(format!("the keys are: {}", KEYS.join(", "))),
            Self::File { .. } | Self::Syntax { .. } | Self::Value { .. } | Self::Targets { .. } => None,
        }
    }
}

/// Variables of the environment, by name.
pub type Environment = BTreeMap<String, String>;

/// The process's environment. What is not UTF-8 can't be a value of ours and is left out.
pub fn environment() -> Environment {
    std::env::vars_os()
        .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// Puts the configuration together.
///
/// # Errors
/// See [`ConfigError`].
pub fn load(flags: &Flags, environment: &Environment) -> Result<Config, ConfigError> {
    let groups = [file_layers(flags, environment)?, environment_layers(environment), flag_layers(flags)];
    let figment = groups.into_iter().try_fold(Figment::new(), stack)?;
    let raw: Raw = figment.extract().map_err(|error| explain(error, &figment))?;
    let warnings = flags.warnings.iter().cloned().chain(unknown_variables(environment));
    Ok(resolve(raw, warnings.collect()))
}

fn resolve(raw: Raw, warnings: Vec<String>) -> Config {
    let target = match (raw.exec, raw.ssh) {
        (Some(words), _) => Target::Exec(words.0.0),
        (None, Some(destination)) => Target::Ssh(destination.0.0),
        (None, None) => Target::Codespace(raw.codespace.map(|name| name.0.0)),
    };
    let routes = raw.route.map(|list| list.0).filter(|routes| !routes.is_empty());
    Config {
        target,
        ssh_options: raw.ssh_option.map_or_else(Vec::new, |list| list.0.into_iter().map(|o| o.0).collect()),
        sidecar: raw.sidecar.map_or(Sidecar::Provision, |path| Sidecar::At(path.0.0)),
        sidecar_dir: raw.sidecar_dir,
        routes: routes.unwrap_or_else(|| vec![RouteChoice::Auto]),
        exclude: raw.exclude.map_or_else(Vec::new, |list| list.0.into_iter().map(|n| n.0).collect()),
        dns: raw.dns.map_or(DnsMode::Split, |dns| dns.0.0),
        gui: raw.gui.is_none_or(|gui| gui.0),
        trace: raw.trace.map_or_else(|| "info".to_owned(), |filter| filter.0.0),
        trace_dest: raw.trace_dest,
        warnings,
    }
}

/// Values of one origin. Each flag and each variable is an origin of its own; the file is one.
struct Layer {
    origin: String,
    values: Dict,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.origin.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.values.clone()))
    }
}

/// Puts layers of the same rank on top of `below`. If they say what is to be bridged, what lies below no
/// longer does: `--ssh` on the command line is meant instead of the codespace in the file.
fn stack(below: Figment, layers: Vec<Layer>) -> Result<Figment, ConfigError> {
    let named = |key: &str| layers.iter().find(|layer| layer.values.contains_key(key));
    let mut targets = TARGETS.into_iter().filter_map(|key| named(key).map(|layer| (key, layer)));
    let Some((first, layer)) = targets.next() else {
        return Ok(layers.into_iter().fold(below, Figment::merge));
    };
    if let Some((second, _)) = targets.next() {
        return Err(ConfigError::Targets { origin: layer.origin.clone(), first, second });
    }
    let overruled = TARGETS.into_iter().filter(|key| *key != first);
    let cleared = overruled.fold(below, |figment, key| {
        let mut values = Dict::new();
        values.insert(key.to_owned(), Value::from(figment::value::Empty::None));
        figment.merge(Layer { origin: layer.origin.clone(), values })
    });
    Ok(layers.into_iter().fold(cleared, Figment::merge))
}

fn file_layers(flags: &Flags, environment: &Environment) -> Result<Vec<Layer>, ConfigError> {
    let variable = || environment.get("GH_NET_CONFIG").filter(|path| !path.is_empty());
    let named = flags.config.as_ref().or_else(variable);
    let Some(path) = named.map(PathBuf::from).or_else(|| default_file(environment)) else {
        return Ok(Vec::new());
    };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound && named.is_none() => return Ok(Vec::new()),
        Err(source) => return Err(ConfigError::File { path, source }),
    };
    let values = Toml::from_str(&text)
        .map_err(|error| ConfigError::Syntax { path: path.clone(), said: error.to_string() })?;
    Ok(vec![Layer { origin: path.display().to_string(), values }])
}

fn default_file(environment: &Environment) -> Option<PathBuf> {
    let set = |name| environment.get(name).filter(|value| Path::new(value).is_absolute()).map(PathBuf::from);
    let home = set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config")))?;
    Some(home.join("gh-net/config.toml"))
}

fn variable(key: &str) -> String {
    format!("GH_NET_{}", key.replace('-', "_").to_ascii_uppercase())
}

/// An empty variable counts as not set.
fn environment_layers(environment: &Environment) -> Vec<Layer> {
    let layer = |key: &&str| {
        let origin = variable(key);
        let value = environment.get(&origin).filter(|value| !value.is_empty())?;
        let values = Dict::from([((*key).to_owned(), Value::from(value.as_str()))]);
        Some(Layer { origin, values })
    };
    KEYS.iter().filter_map(layer).collect()
}

fn unknown_variables(environment: &Environment) -> Vec<String> {
    let known = |name: &String| {
        OTHER_VARIABLES.contains(&name.as_str()) || KEYS.iter().any(|key| variable(key) == **name)
    };
    let unknown = environment.keys().filter(|name| name.starts_with("GH_NET_") && !known(name));
    unknown.map(|name| format!("the variable {name} means nothing to gh-net")).collect()
}

fn flag_layers(flags: &Flags) -> Vec<Layer> {
    let one = |value: &Option<String>| value.as_deref().map(Value::from);
    let many = |values: &[String]| (!values.is_empty()).then(|| Value::from(values.to_vec()));
    let values = [
        ("codespace", one(&flags.codespace)),
        ("ssh", one(&flags.ssh)),
        ("exec", one(&flags.exec)),
        ("ssh-option", many(&flags.ssh_option)),
        ("sidecar", one(&flags.sidecar)),
        ("route", many(&flags.route)),
        ("exclude", many(&flags.exclude)),
        ("dns", one(&flags.dns)),
        ("gui", one(&flags.gui)),
        ("trace", one(&flags.trace)),
        ("trace-dest", one(&flags.trace_dest)),
    ];
    let layer = |(key, value): (&str, Option<Value>)| {
        Some(Layer { origin: format!("--{key}"), values: Dict::from([(key.to_owned(), value?)]) })
    };
    values.into_iter().filter_map(layer).collect()
}

/// Says where a value that does not fit came from.
fn explain(error: figment::Error, figment: &Figment) -> ConfigError {
    let key = error.path.first().cloned().unwrap_or_default();
    let origin = error.metadata.as_ref().or_else(|| figment.find_metadata(&key));
    let origin = origin.map(|metadata| metadata.name.clone().into_owned()).unwrap_or_default();
    if let figment::error::Kind::UnknownField(key, _) = &error.kind {
        // Only the file can have one: flags and variables are looked up by the keys there are.
        let origin = figment.find_metadata(key).map_or(origin, |metadata| metadata.name.clone().into_owned());
        return ConfigError::UnknownKey { origin, key: key.clone() };
    }
    let is_file = origin.contains('/');
    let origin = if is_file { format!("{origin}: {key}") } else { origin };
    ConfigError::Value { origin, problem: error.kind.to_string() }
}

#[cfg(test)]
mod tests;
