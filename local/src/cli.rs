//! The command line. Its flags come from the table of settings, and their values stay text here:
//! [`crate::config`] checks them together with those of the environment and the file, so that the message about a
//! bad value is the same for all of them.

mod legacy;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::config::Flags;
use crate::{exit, invoked};
use legacy::Legacy;

const ABOUT: &str =
    "Gives a codespace access to what only this computer reaches: its VPN, its LAN, its names";

/// The end of `--help`.
pub const AFTER: &str = "\
Every flag can also be set by a variable (--ssh-option is GH_NET_SSH_OPTION) or in the file \
$XDG_CONFIG_HOME/gh-net/config.toml (ssh-option = \"K=V\"). A flag overrides a variable, a variable the file.";

/// The end of the help of `status`.
const STATUS_AFTER: &str = "\
Exit codes:
  0  shown; with --watch: the last session has ended, Ctrl-C, or nobody reads any more
  1  a session does not answer, or the sessions can't be found";

/// The end of the help of `rules`.
const RULES_AFTER: &str = "\
The running sessions are asked: they judge by their rules, their networks and the names that they have learnt. \
Without a session, or with flags, it judges by these flags, the variables and the file, and by this computer's \
networks, as a session that starts now would.

Exit codes:
  0  judged, whether it would be forwarded or refused
  1  a session does not answer, the name has no address, or the networks can't be read
  2  TARGET or the configuration is invalid";

/// The end of the help of `reload`.
const RELOAD_AFTER: &str = "\
Connections that the new rules deny end at once. Flags stay as they were given at the start; other settings \
apply from the next start. If the configuration is invalid, nothing changes.

Exit codes:
  0  read again by every session
  1  there is no session, or one does not answer
  2  the configuration is invalid";

/// What was typed.
#[derive(Debug, Clone, Default, Parser)]
#[command(name = "gh-net", version, about = ABOUT, after_help = AFTER, args_conflicts_with_subcommands = false)]
struct Cli {
    #[command(flatten)]
    flags: Flags,
    #[command(flatten)]
    legacy: Legacy,
    /// The codespace's name; without one, you choose from `gh codespace list`
    #[arg(value_name = "CODESPACE", group = "destination")]
    name: Option<String>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Clone, Subcommand)]
enum Command {
    /// Bridge a codespace (also the default without a command)
    Start {
        #[command(flatten)]
        flags: Flags,
        /// The codespace's name; without one, you choose from `gh codespace list`
        #[arg(value_name = "CODESPACE", group = "destination")]
        name: Option<String>,
    },
    /// Show the running sessions
    #[command(after_help = STATUS_AFTER)]
    Status {
        /// As JSON: one line for each session
        #[arg(long)]
        json: bool,
        /// Until the last session has ended. On a terminal, drawn again in place; otherwise, and with --json, one
        /// document for each change of the state of session, link, networks or notes
        #[arg(long)]
        watch: bool,
    },
    /// Say what would happen to a connection, and which rule decides: a dry run of the configuration as it is now
    #[command(after_help = RULES_AFTER)]
    Rules {
        #[command(flatten)]
        flags: Flags,
        /// An address or a name with a port, such as db.corp.example:5432, udp:10.0.0.53:53 or icmp:10.0.0.1
        #[arg(value_name = "TARGET")]
        target: String,
        /// As JSON: one line for each address
        #[arg(long)]
        json: bool,
    },
    /// Read the configuration of the running sessions again: changed rules apply at once
    #[command(after_help = RELOAD_AFTER)]
    Reload,
    /// End the running sessions, or the one with this codespace or destination, and wait for the end
    Stop {
        /// The codespace, ssh destination or process, as `gh-net status` shows it
        #[arg(value_name = "TARGET")]
        target: Option<String>,
    },
    /// A command of github/gh-net
    #[command(hide = true)]
    Exists,
}

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Invocation {
    /// Bridge a codespace.
    Start(Flags),
    /// Show the running sessions.
    Status {
        /// As JSON.
        json: bool,
        /// Until the last one has ended.
        watch: bool,
    },
    /// Say what would happen to a connection.
    Rules {
        /// The flags to judge by.
        flags: Flags,
        /// An address or a name, with a port.
        target: String,
        /// As JSON.
        json: bool,
    },
    /// Read the configuration of running sessions again.
    Reload,
    /// End running sessions.
    Stop {
        /// The one with this target; `None` means all.
        target: Option<String>,
    },
}

/// The definition of the command line, from which its manual and its completions are made as well.
pub fn command() -> clap::Command {
    let after = format!("{AFTER}\n\n{}", exit::HELP);
    Cli::command().after_long_help(after.clone()).after_help(after)
}

/// Parses the process's arguments. Help, version and usage errors end the process, as clap words them.
pub fn parse() -> Invocation {
    match parse_from(std::env::args_os(), invoked::name()) {
        Ok(invocation) => invocation,
        Err(error) => error.exit(),
    }
}

/// Parses arguments, the program's name first; `invoked` is its name in usage lines.
///
/// # Errors
/// What clap reports; to clap, help and version are errors as well.
pub fn parse_from<I>(arguments: I, invoked: &str) -> Result<Invocation, clap::Error>
where
    I: IntoIterator,
    I::Item: Into<std::ffi::OsString> + Clone,
{
    let mut definition = command().bin_name(invoked);
    let matches = definition.try_get_matches_from_mut(arguments)?;
    let Cli { mut flags, legacy, name, command } = Cli::from_arg_matches(&matches)?;
    flags.warnings = legacy.check().map_err(|why| definition.error(ErrorKind::InvalidValue, why))?;
    let after_start = match command {
        None => None,
        Some(Command::Start { flags: after, name }) => {
            flags.append(after);
            name
        }
        Some(Command::Status { json, watch }) => return Ok(Invocation::Status { json, watch }),
        Some(Command::Rules { flags: after, target, json }) => {
            flags.append(after);
            return Ok(Invocation::Rules { flags, target, json });
        }
        Some(Command::Reload) => return Ok(Invocation::Reload),
        Some(Command::Stop { target }) => return Ok(Invocation::Stop { target }),
        Some(Command::Exists) => return Err(definition.error(ErrorKind::InvalidSubcommand, legacy::EXISTS)),
    };
    let named = [flags.value("codespace").map(str::to_owned), name, after_start];
    let mut named = named.into_iter().flatten();
    if let (Some(name), again) = (named.next(), named.next()) {
        if again.is_some() {
            let twice = "a codespace is named twice: before `start` and after it";
            return Err(definition.error(ErrorKind::ArgumentConflict, twice));
        }
        flags.set("codespace", name);
    }
    Ok(Invocation::Start(flags))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Flags, clap::Error> {
        match parse_from(line.split(' '), "gh-net")? {
            Invocation::Start(flags) => Ok(flags),
            other @ (Invocation::Status { .. }
            | Invocation::Stop { .. }
            | Invocation::Reload
            | Invocation::Rules { .. }) => {
                panic!("{other:?}")
            }
        }
    }

    #[test]
    fn sessions_are_shown_and_stopped() {
        let invocation = |line: &str| parse_from(line.split(' '), "gh-net").unwrap();
        let status = |json, watch| Invocation::Status { json, watch };
        assert_eq!(invocation("gh-net status --json"), status(true, false));
        assert_eq!(invocation("gh-net status --watch"), status(false, true));
        assert_eq!(invocation("gh-net stop"), Invocation::Stop { target: None });
        let target = Some("codespace big-fish".split(' ').next_back().unwrap().to_owned());
        assert_eq!(invocation("gh-net stop big-fish"), Invocation::Stop { target });
    }

    #[test]
    fn the_definition_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn start_may_be_left_out_and_flags_may_stand_anywhere() {
        for line in [
            "gh-net big-fish -t debug",
            "gh-net start big-fish -t debug",
            "gh-net -t debug start big-fish",
            "gh-net start -t debug -c big-fish",
            "gh-net --codespace big-fish --trace debug",
        ] {
            let flags = parsed(line).unwrap();
            assert_eq!(flags.value("codespace"), Some("big-fish"), "{line}");
            assert_eq!(flags.value("trace"), Some("debug"), "{line}");
        }
    }

    #[test]
    fn lists_grow_with_each_flag() {
        let flags =
            parsed("gh-net --route auto --route 10.0.0.0/8,fd00::/8 --ssh-option A=1 --ssh-option B=2");
        let flags = flags.unwrap();
        assert_eq!(flags.values("route").collect::<Vec<_>>(), ["auto", "10.0.0.0/8,fd00::/8"]);
        assert_eq!(flags.values("ssh-option").collect::<Vec<_>>(), ["A=1", "B=2"]);
    }

    #[test]
    fn the_order_of_different_flags_is_kept_across_start() {
        let flags = parsed("gh-net --exclude a --route b start --route c --exclude d -t info").unwrap();
        let typed = [("exclude", "a"), ("route", "b"), ("route", "c"), ("exclude", "d"), ("trace", "info")];
        assert_eq!(flags, Flags::of(&typed));
    }

    #[test]
    fn one_destination_at_most() {
        for line in [
            "gh-net a -c b",
            "gh-net a --ssh b",
            "gh-net start a --exec b",
            "gh-net --ssh a --exec b",
            "gh-net a start b",
            "gh-net -c a start b",
        ] {
            assert!(parsed(line).is_err(), "{line}");
        }
    }

    #[test]
    fn the_flags_of_the_old_extension_work_or_name_what_came_in_their_place() {
        let flags =
            parsed("gh-net start --location local --trace-level debug --telemetry false -g false -d true")
                .unwrap();
        assert_eq!(flags.value("trace"), Some("debug"));
        assert_eq!(flags.value("gui"), Some("false"));
        assert_eq!(flags.value("dns"), Some("true"));
        assert_eq!(flags.warnings.len(), 2, "{:?}", flags.warnings);
        let refused = |line| parsed(line).unwrap_err().to_string();
        assert!(refused("gh-net start --location remote").contains("gh-net-sidecar"));
        assert!(refused("gh-net --repo me/gh-net").contains("--sidecar"));
        assert!(refused("gh-net exists").contains("gh extension list"));
        let help = parsed("gh-net --help").unwrap_err().to_string();
        assert!(!help.contains("telemetry") && !help.contains("--location"), "{help}");
    }

    #[test]
    fn help_and_errors_name_us_as_we_were_invoked() {
        let said = |line: &str, name| parse_from(line.split(' '), name).unwrap_err().to_string();
        assert!(said("x --help", "gh-net").contains("Usage: gh-net [OPTIONS]"));
        assert!(said("x --help", "gh-net").contains("Exit codes:"));
        for (line, usage) in [
            ("x --help", "Usage: gh net [OPTIONS]"),
            ("x start --help", "Usage: gh net start "),
            ("x --no-such", "Usage: gh net "),
            ("x start --no-such", "Usage: gh net start "),
            ("x a start b", "Usage: gh net "),
        ] {
            let said = said(line, "gh net");
            assert!(said.contains(usage) && !said.contains("Usage: gh-net"), "{line}: {said}");
        }
    }
}
