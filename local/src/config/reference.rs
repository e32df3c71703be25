//! What can be configured, for those who write it down: the reference in docs/, and the tests that keep it true.
//!
//! A key's meaning, the shape of its values and its default are those of its flag's help; a key without a flag
//! brings its own. The example of each is a line of a file that [`load`](super::load) takes.

use super::raw::KEYS;
use super::variable;
use crate::cli;

/// One key of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// As the file spells it.
    pub key: &'static str,
    /// The flag with its value, such as `-c, --codespace <NAME>`, if there is one.
    pub flag: Option<String>,
    /// The variable.
    pub variable: String,
    /// A line of the file.
    pub example: &'static str,
    /// What holds without it.
    pub default: Option<String>,
    /// What it means.
    pub meaning: String,
}

/// A line of the file for each key.
const EXAMPLES: [(&str, &str); KEYS.len()] = [
    ("codespace", r#"codespace = "fluffy-potato-4x7q""#),
    ("ssh", r#"ssh = "me@build-host""#),
    ("exec", r#"exec = "docker exec -i box gh-net-sidecar attach""#),
    ("ssh-option", r#"ssh-option = ["Port=2222", "IdentityFile=~/.ssh/work"]"#),
    ("sidecar", r#"sidecar = "/usr/local/bin/gh-net-sidecar" # over there"#),
    ("sidecar-dir", r#"sidecar-dir = "/opt/gh-net" # here"#),
    ("route", r#"route = ["auto", "10.20.0.0/16"]"#),
    ("exclude", r#"exclude = ["192.168.1.0/24"]"#),
    ("dns", r#"dns = "local""#),
    ("gui", "gui = false"),
    ("trace", r#"trace = "debug""#),
    ("trace-dest", r#"trace-dest = "/tmp/gh-net.log""#),
];

/// Keys that have no flag.
const WITHOUT_FLAG: [(&str, &str); 1] = [(
    "sidecar-dir",
    "Where, on this computer, a sidecar to copy is looked for first; it is named gh-net-sidecar-x86_64 or \
     gh-net-sidecar-aarch64",
)];

/// All that can be configured, in the order of `--help`.
pub fn settings() -> Vec<Setting> {
    let command = cli::command();
    let flag_of = |key: &str| command.get_arguments().find(|argument| argument.get_long() == Some(key));
    EXAMPLES
        .into_iter()
        .map(|(key, example)| {
            let flag = flag_of(key);
            let own =
                WITHOUT_FLAG.into_iter().find(|(without, _)| *without == key).map(|(_, meaning)| meaning);
            let help = flag.and_then(clap::Arg::get_help).map(ToString::to_string);
            let help = help.or(own.map(str::to_owned)).unwrap_or_default();
            let (meaning, default) = apart(&help);
            Setting { key, flag: flag.map(written), variable: variable(key), example, default, meaning }
        })
        .collect()
}

/// A flag as it is typed.
fn written(argument: &clap::Arg) -> String {
    let short = argument.get_short().map(|short| format!("-{short}, ")).unwrap_or_default();
    let value = argument.get_value_names().and_then(<[_]>::first).map(|name| format!(" <{name}>"));
    format!("{short}--{}{}", argument.get_long().unwrap_or_default(), value.unwrap_or_default())
}

/// A help text without its default, and the default.
fn apart(help: &str) -> (String, Option<String>) {
    match help.split_once(" [default: ") {
        Some((meaning, rest)) => (meaning.to_owned(), Some(rest.trim_end_matches(']').to_owned())),
        None => (help.to_owned(), None),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Write;

    use super::*;
    use crate::cli::Flags;
    use crate::config::load;

    #[test]
    fn every_key_is_told_and_no_other() {
        let told: Vec<_> = settings().into_iter().map(|setting| setting.key).collect();
        assert_eq!(told, KEYS);
        for setting in settings() {
            assert!(!setting.meaning.is_empty(), "{setting:?}");
        }
    }

    /// `config` names the file itself; help and version are no settings.
    #[test]
    fn every_flag_is_told() {
        let told: Vec<_> = settings().into_iter().map(|setting| setting.key).collect();
        let command = cli::command();
        let shown =
            command.get_arguments().filter(|flag| !flag.is_hide_set()).filter_map(clap::Arg::get_long);
        for flag in shown.filter(|flag| !["config", "help", "version"].contains(flag)) {
            assert!(told.contains(&flag), "--{flag}");
        }
    }

    #[test]
    fn examples_are_understood() {
        for setting in settings() {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            writeln!(file, "{}", setting.example).unwrap();
            let config = Some(file.path().display().to_string());
            let loaded = load(&Flags { config, ..Flags::default() }, &BTreeMap::new());
            let plain = load(&Flags::default(), &BTreeMap::new()).unwrap();
            assert_ne!(loaded.unwrap(), plain, "{} changes nothing", setting.example);
        }
    }

    /// The words of `--help` against what the program does without the flag.
    #[test]
    fn defaults_are_what_holds_without_the_key() {
        let plain = load(&Flags::default(), &BTreeMap::new()).unwrap();
        let mut compared = 0;
        for setting in settings() {
            let Some(default) = setting.default.filter(|default| !default.contains([' ', '$'])) else {
                continue;
            };
            if default == "stderr" {
                continue; // no path leads there
            }
            let said = BTreeMap::from([(setting.variable, default.clone())]);
            assert_eq!(load(&Flags::default(), &said).unwrap(), plain, "{}: {default}", setting.key);
            compared += 1;
        }
        assert!(compared >= 3, "{compared} defaults compared");
    }
}
