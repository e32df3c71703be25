//! The table of settings. Flags with their help and completions, `GH_NET_*` variables, the keys of the
//! configuration file, the defaults and the reference in docs/ are all made from it.
//!
//! To add a setting: a row here, a field of the same name in [`Raw`](super::raw::Raw) whose type parses the value,
//! and the place in [`Config`](super::Config) where the result belongs.

use clap::ValueHint;

use super::raw::{Dns, Rebinding};

/// A setting, named by `key` in the file, by `--key` on the command line and by `GH_NET_KEY` in the environment.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// As the file spells it.
    pub key: &'static str,
    /// The flag's one-letter form.
    pub short: Option<char>,
    /// A long form that is accepted and not shown.
    pub hidden_alias: Option<&'static str>,
    /// A one-letter form that is accepted and not shown.
    pub hidden_short: Option<char>,
    /// What `--help` shows in place of a value.
    pub value: &'static str,
    /// The values that completions offer. There may be others.
    pub choices: &'static [&'static str],
    /// What completions offer beside `choices`.
    pub hint: ValueHint,
    /// Whether the flag works without a value, and then means `true`. A value has to follow an equals sign.
    pub is_switch: bool,
    /// Whether the flag may be repeated, and the file may hold an array.
    pub repeatable: bool,
    /// The key whose list this flag adds to: its values, each after the flag's own name.
    pub joins: Option<&'static str>,
    /// Flags of one group exclude each other.
    pub group: Option<&'static str>,
    /// What it means, as a sentence without its full stop.
    pub meaning: &'static str,
    /// What applies if it is not set anywhere.
    pub default: Unset,
    /// An example of a value, in TOML.
    pub example: &'static str,
    /// Whether there is a flag.
    pub is_flag: bool,
    /// Whether it is a key of the file.
    pub is_key: bool,
}

/// What applies where a setting is not set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unset {
    /// The same as with this value.
    Value(&'static str),
    /// What this describes.
    Described(&'static str),
    /// Nothing.
    Nothing,
}

/// What is bridged: at most one of these is set.
pub(super) const DESTINATION: &str = "destination";

/// The list of rules, which several flags add to.
pub(super) const RULES: &str = "rules";

/// The fields that most settings share.
const PLAIN: Setting = Setting {
    key: "",
    short: None,
    hidden_alias: None,
    hidden_short: None,
    value: "",
    choices: &[],
    hint: ValueHint::Unknown,
    is_switch: false,
    repeatable: false,
    joins: None,
    group: None,
    meaning: "",
    default: Unset::Nothing,
    example: "",
    is_flag: true,
    is_key: true,
};

/// All settings, in the order of `--help`.
pub const SETTINGS: [Setting; 24] = [
    Setting {
        key: "codespace",
        short: Some('c'),
        value: "NAME",
        group: Some(DESTINATION),
        meaning: "The codespace's name",
        default: Unset::Described("chosen from `gh codespace list`"),
        example: r#""fluffy-potato-4x7q""#,
        ..PLAIN
    },
    Setting {
        key: "ssh",
        value: "DEST",
        hint: ValueHint::Hostname,
        group: Some(DESTINATION),
        meaning: "Bridge this ssh destination instead of a codespace",
        example: r#""me@build-host""#,
        ..PLAIN
    },
    Setting {
        key: "exec",
        value: "COMMAND",
        hint: ValueHint::CommandString,
        group: Some(DESTINATION),
        meaning: "Bridge through this command, whose stdin and stdout lead to `gh-net-sidecar attach`. It is split \
                  into words and run without a shell",
        example: r#""docker exec -i box gh-net-sidecar attach""#,
        ..PLAIN
    },
    Setting {
        key: "ssh-option",
        value: "K=V",
        repeatable: true,
        meaning: "An option for ssh (its -o), also for codespaces; may be repeated",
        example: r#"["Port=2222", "IdentityFile=~/.ssh/work"]"#,
        ..PLAIN
    },
    Setting {
        key: "sidecar",
        value: "PATH",
        meaning: "Path of gh-net-sidecar in the codespace",
        default: Unset::Described(
            "an installed one, else a copy from $GH_NET_SIDECAR_DIR, from within gh-net or from its directory",
        ),
        example: r#""/usr/local/bin/gh-net-sidecar" # in the codespace"#,
        ..PLAIN
    },
    Setting {
        key: "sidecar-dir",
        meaning: "The first directory on this computer to search for a sidecar to copy. The file's name is \
                  gh-net-sidecar-x86_64 or gh-net-sidecar-aarch64",
        example: r#""/opt/gh-net" # on this computer"#,
        is_flag: false,
        ..PLAIN
    },
    Setting {
        key: "grace",
        value: "DURATION",
        meaning: "How long a session waits for its next link when one is lost, at most 24h. Meanwhile gh-net reconnects, \
                  and connections and routes are kept. With 0s, a lost link ends the session",
        default: Unset::Value("15m"),
        example: r#""2h""#,
        ..PLAIN
    },
    Setting {
        key: "idle-timeout",
        value: "DURATION",
        meaning: "For how long no connection may have moved any data until nothing at all passes between this computer and \
                  the codespace, so that it may fall asleep. The next data wakes the link. With 0s, the \
                  codespace is kept awake",
        default: Unset::Value("15m"),
        example: r#""1h""#,
        ..PLAIN
    },
    Setting {
        key: "keep-started",
        value: "true|false",
        choices: &["true", "false"],
        is_switch: true,
        meaning: "Start the codespace again if it has stopped while the link was lost. Otherwise gh-net waits until you \
                  start it: a running codespace costs money",
        default: Unset::Value("false"),
        example: "true",
        ..PLAIN
    },
    Setting {
        key: "memory",
        value: "SIZE",
        meaning: "How much memory the codespace can make gh-net use for connections, at least 32MiB. It is shared among them: \
                  with less, windows are smaller, and there may be fewer connections",
        default: Unset::Value("256MiB"),
        example: r#""1GiB""#,
        ..PLAIN
    },
    Setting {
        key: "route",
        value: "auto|private|CIDR",
        choices: &["auto", "private"],
        repeatable: true,
        meaning: "What to forward: every network that this computer has a route to (auto), the private ranges \
                  regardless of its routes (private), or networks such as 10.0.0.0/8; may be repeated",
        default: Unset::Value("auto"),
        example: r#"["auto", "10.20.0.0/16"]"#,
        ..PLAIN
    },
    Setting {
        key: "exclude",
        value: "CIDR",
        repeatable: true,
        meaning: "A network that is not forwarded; may be repeated",
        example: r#"["192.168.1.0/24"]"#,
        ..PLAIN
    },
    Setting {
        key: "from",
        value: "NETWORK",
        repeatable: true,
        meaning: "Whose packets enter the tunnel, besides those of the codespace itself: auto (its containers behind a \
                  bridge), none, or a network that it forwards, such as that of routed pods; may be repeated",
        default: Unset::Value("auto"),
        example: r#"["auto", "10.9.0.0/16"]"#,
        ..PLAIN
    },
    Setting {
        key: "allow",
        value: "RULE",
        repeatable: true,
        joins: Some(RULES),
        meaning: "Let the codespace reach this of the networks that are forwarded, such as db.corp.example:5432. Of all \
                  rules the first that matches decides. With any --allow, whatever no rule matches is denied",
        is_key: false,
        ..PLAIN
    },
    Setting {
        key: "deny",
        value: "RULE",
        repeatable: true,
        joins: Some(RULES),
        meaning: "Refuse this, although its network is forwarded, such as tcp:10.66.0.0/16:22",
        is_key: false,
        ..PLAIN
    },
    Setting {
        key: RULES,
        repeatable: true,
        meaning: "What the codespace may reach of the networks that are forwarded: an ordered list, whose first rule that \
                  matches decides. A rule is `allow` or `deny` with `[tcp|udp|icmp:]TARGET[:PORT[-PORT]]`, where TARGET is \
                  a network, an address (IPv6 with a port in brackets), a name, `*.name` (all names below it) or `*`. If \
                  any rule allows something, whatever no rule matches is denied, otherwise it is allowed",
        example: r#"["deny *.prod.corp.example", "allow *.corp.example:443", "allow 10.20.0.0/16"]"#,
        is_flag: false,
        ..PLAIN
    },
    Setting {
        key: "dns",
        hidden_short: Some('d'),
        value: "true|false|split|split-strict|local",
        choices: &Dns::CHOICES,
        meaning: "How names are resolved: this computer resolves those of its own domains and the codespace all \
                  others, then this computer what the codespace does not know (true, split) or not (split-strict), this computer is asked first for every name (local), or the codespace's \
                  resolver is left unchanged (false)",
        default: Unset::Value("split"),
        example: r#""local""#,
        ..PLAIN
    },
    Setting {
        key: "rebind",
        value: "refuse|allow",
        choices: &Rebinding::CHOICES,
        meaning: "What becomes of an answer of the codespace's own resolvers that leads a name into the networks of this \
                  computer: it is refused, so that no stranger's name leads there (refuse), or passed on (allow). Names \
                  that this computer resolves are not concerned",
        default: Unset::Value("refuse"),
        example: r#""allow""#,
        ..PLAIN
    },
    Setting {
        key: "host-port",
        value: "PORT[:LOCAL]",
        repeatable: true,
        meaning: "A port of this computer that the codespace may reach, TCP and UDP, at host.gh-net.internal:PORT. It leads to \
                  the port LOCAL (the same if it is left out) of 127.0.0.1, over IPv6 to that of ::1; may be repeated",
        example: r#"["3000", "15432:5432"]"#,
        ..PLAIN
    },
    Setting {
        key: "audit",
        value: "FILE",
        hint: ValueHint::FilePath,
        meaning: "Record in this file, as JSON lines, what the codespace reaches and what it is refused. It is rotated by \
                  its size; docs/audit.md describes the lines",
        example: r#""/home/me/gh-net-audit.jsonl""#,
        ..PLAIN
    },
    Setting {
        key: "gui",
        short: Some('g'),
        value: "true|false",
        choices: &["true", "false"],
        meaning: "Whether to draw a full-screen view. There is none yet: both values give plain lines",
        default: Unset::Value("true"),
        example: "false",
        ..PLAIN
    },
    Setting {
        key: "trace",
        short: Some('t'),
        hidden_alias: Some("trace-level"),
        value: "LEVEL",
        choices: &["error", "warn", "info", "debug", "trace"],
        meaning: "What to log: off, error, warn, info, debug, trace, or a filter such as \
                  debug,gh_net::engine=trace",
        default: Unset::Value("info"),
        example: r#""debug""#,
        ..PLAIN
    },
    Setting {
        key: "trace-dest",
        value: "FILE",
        hint: ValueHint::FilePath,
        meaning: "The file to log to. Messages of level `info` and above still go to stderr",
        default: Unset::Described("stderr"),
        example: r#""/tmp/gh-net.log""#,
        ..PLAIN
    },
    Setting {
        key: "config",
        value: "FILE",
        hint: ValueHint::FilePath,
        meaning: "The configuration file",
        default: Unset::Described("$XDG_CONFIG_HOME/gh-net/config.toml"),
        is_key: false,
        ..PLAIN
    },
];

/// The settings that the command line takes.
pub fn flags() -> impl Iterator<Item = &'static Setting> {
    SETTINGS.iter().filter(|setting| setting.is_flag)
}

/// The settings that the file takes.
pub fn keys() -> impl Iterator<Item = &'static Setting> {
    SETTINGS.iter().filter(|setting| setting.is_key)
}

/// The flags that add to the list of `key`.
pub(super) fn joining(key: &str) -> impl Iterator<Item = &'static Setting> {
    flags().filter(move |setting| setting.joins == Some(key))
}

impl Setting {
    /// The name of its variable.
    pub fn variable(&self) -> String {
        format!("GH_NET_{}", self.key.replace('-', "_").to_ascii_uppercase())
    }

    /// Its flag, or the flags that add to its list, as usage lines show them, such as `-c, --codespace <NAME>`.
    pub fn usages(&self) -> Vec<String> {
        let own = flags().filter(|flag| flag.joins.unwrap_or(flag.key) == self.key);
        let usage = |Self { key, short, value, is_switch, .. }: &Self| {
            let short = short.map(|short| format!("-{short}, ")).unwrap_or_default();
            let value = if *is_switch { String::new() } else { format!(" <{value}>") };
            format!("{short}--{key}{value}")
        };
        own.map(usage).collect()
    }

    /// What applies without it, in words.
    pub fn default_text(&self) -> Option<&'static str> {
        match self.default {
            Unset::Value(text) | Unset::Described(text) => Some(text),
            Unset::Nothing => None,
        }
    }

    /// A line of the file.
    pub fn example_line(&self) -> String {
        format!("{} = {}", self.key, self.example)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Write;

    use super::*;
    use crate::config::{Environment, Flags, load};

    #[test]
    fn every_setting_is_explained() {
        for setting in &SETTINGS {
            assert!(!setting.meaning.is_empty(), "{setting:?}");
            assert!(!setting.is_flag || !setting.value.is_empty(), "{setting:?}");
        }
    }

    #[test]
    fn examples_are_understood() {
        let plain = load(&Flags::default(), &Environment::new()).unwrap();
        for example in keys().map(Setting::example_line) {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            writeln!(file, "{example}").unwrap();
            let flags = Flags::of(&[("config", file.path().to_str().unwrap())]);
            assert_ne!(load(&flags, &Environment::new()).unwrap(), plain, "{example} changes nothing");
        }
    }

    #[test]
    fn choices_are_accepted() {
        for setting in &SETTINGS {
            for choice in setting.choices {
                let variables = BTreeMap::from([(setting.variable(), (*choice).to_owned())]);
                let loaded = load(&Flags::default(), &variables);
                assert!(loaded.is_ok(), "{} {choice}: {loaded:?}", setting.key);
            }
        }
    }

    #[test]
    fn a_default_value_is_what_applies_without_the_setting() {
        let plain = load(&Flags::default(), &Environment::new()).unwrap();
        let mut compared = 0;
        for setting in &SETTINGS {
            let Unset::Value(default) = setting.default else { continue };
            let variables = BTreeMap::from([(setting.variable(), default.to_owned())]);
            assert_eq!(load(&Flags::default(), &variables).unwrap(), plain, "{}: {default}", setting.key);
            compared += 1;
        }
        assert!(compared >= 3, "{compared} defaults compared");
    }
}
