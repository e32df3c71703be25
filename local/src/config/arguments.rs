//! The flags that were given: clap's arguments are made from the table of settings, and what clap parsed becomes one list
//! in the order of the command line.

use std::ffi::OsStr;

use clap::builder::{PossibleValue, StringValueParser, TypedValueParser};
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use super::settings::{Setting, flags};

/// The flags that were given, none of them with a default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flags {
    /// Keys and values, in the order of the command line: some settings depend on the order of several flags.
    given: Vec<(&'static str, String)>,
    /// Warnings about the flags themselves.
    pub warnings: Vec<String>,
}

impl Flags {
    /// These flags, by key, as if they had been typed.
    pub fn of(flags: &[(&'static str, &str)]) -> Self {
        let given = flags.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
        Self { given, warnings: Vec::new() }
    }

    /// The value of a flag that is not repeatable.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.values(key).last()
    }

    /// The values of a flag, in order.
    pub fn values(&self, key: &str) -> impl Iterator<Item = &str> {
        self.given.iter().filter(move |(given, _)| *given == key).map(|(_, value)| value.as_str())
    }

    /// The values of all these flags in the order of the command line, each after its flag's name. A value that has
    /// several parts, separated by commas, is each of them.
    pub(super) fn joined(&self, keys: &[&str]) -> impl Iterator<Item = String> {
        let given = self.given.iter().filter(|(key, _)| keys.contains(key));
        given.flat_map(|(key, value)| value.split(',').map(move |part| format!("{key} {}", part.trim())))
    }

    /// Adds a value, as if it had been typed last.
    pub fn set(&mut self, key: &'static str, value: String) {
        self.given.push((key, value));
    }

    pub(crate) fn append(&mut self, mut after: Self) {
        self.given.append(&mut after.given);
    }
}

impl Args for Flags {
    fn augment_args(command: Command) -> Command {
        command.args(flags().map(argument))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut given = Vec::new();
        for Setting { key, .. } in flags() {
            let positions = matches.indices_of(key).into_iter().flatten();
            let values = matches.get_many::<String>(key).into_iter().flatten();
            given.extend(positions.zip(values).map(|(position, value)| (position, *key, value.clone())));
        }
        given.sort_by_key(|(position, ..)| *position);
        let given = given.into_iter().map(|(_, key, value)| (key, value)).collect();
        Ok(Self { given, warnings: Vec::new() })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.append(Self::from_arg_matches(matches)?);
        Ok(())
    }
}

fn argument(setting: &Setting) -> Arg {
    let help = match setting.default_text() {
        Some(default) => format!("{} [default: {default}]", setting.meaning),
        None => setting.meaning.to_owned(),
    };
    let argument = Arg::new(setting.key)
        .long(setting.key)
        .short(setting.short)
        .alias(setting.hidden_alias)
        .short_alias(setting.hidden_short)
        .value_name(setting.value)
        .value_hint(setting.hint)
        .value_parser(AnyText { offered: setting.choices })
        .hide_possible_values(true)
        .action(if setting.repeatable { ArgAction::Append } else { ArgAction::Set })
        .groups(setting.group)
        .help(help);
    if !setting.is_switch {
        return argument;
    }
    argument.num_args(0..=1).require_equals(true).default_missing_value("true")
}

/// Accepts any text; completions offer some.
#[derive(Clone)]
struct AnyText {
    offered: &'static [&'static str],
}

impl TypedValueParser for AnyText {
    type Value = String;

    fn parse_ref(
        &self,
        command: &Command,
        argument: Option<&Arg>,
        value: &OsStr,
    ) -> Result<String, clap::Error> {
        StringValueParser::new().parse_ref(command, argument, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        let values = self.offered.iter().map(PossibleValue::new);
        (!self.offered.is_empty()).then(|| Box::new(values) as Box<dyn Iterator<Item = PossibleValue> + '_>)
    }
}
