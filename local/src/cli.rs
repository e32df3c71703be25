//! The command line. Values stay text here: [`crate::config`] checks them together with those of the
//! environment and the file, so that a bad one is refused in the same words wherever it came from.

mod legacy;

use clap::error::ErrorKind;
use clap::{ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueHint};

use crate::{exit, invoked};
use legacy::Legacy;

const ABOUT: &str = "Lets a codespace reach what only this computer reaches: its VPN, its LAN, its names";

/// What `--help` says at its end.
pub const AFTER: &str = "\
Every flag can also be set by a variable (--ssh-option is GH_NET_SSH_OPTION) or in the file
$XDG_CONFIG_HOME/gh-net/config.toml (ssh-option = \"K=V\"). A flag wins over a variable, a variable over the file.";

/// What was typed.
#[derive(Debug, Clone, Default, Parser)]
#[command(name = "gh-net", version, about = ABOUT, after_help = AFTER, args_conflicts_with_subcommands = false)]
struct Cli {
    #[command(flatten)]
    flags: Flags,
    #[command(flatten)]
    legacy: Legacy,
    /// The codespace's name; without one, it is chosen from `gh codespace list`
    #[arg(value_name = "CODESPACE", conflicts_with_all = ["codespace", "ssh", "exec"])]
    name: Option<String>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Clone, Subcommand)]
enum Command {
    /// Bridge a codespace (what gh-net does without a command, too)
    Start {
        /// The codespace's name; without one, it is chosen from `gh codespace list`
        #[arg(value_name = "CODESPACE", conflicts_with_all = ["codespace", "ssh", "exec"])]
        name: Option<String>,
    },
    /// Of github/gh-net
    #[command(hide = true)]
    Exists,
}

/// The flags that were given. None of them has a default here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct Flags {
    /// The codespace's name [default: chosen from `gh codespace list`]
    #[arg(short, long, global = true, value_name = "NAME", conflicts_with_all = ["ssh", "exec"])]
    pub codespace: Option<String>,
    /// Bridge this ssh destination instead of a codespace
    #[arg(long, global = true, value_name = "DEST", conflicts_with = "exec", value_hint = ValueHint::Hostname)]
    pub ssh: Option<String>,
    /// Bridge whatever this command's stdin and stdout lead to: a `gh-net-sidecar attach`. It is split into
    /// words and run without a shell
    #[arg(long, global = true, value_name = "COMMAND", value_hint = ValueHint::CommandString)]
    pub exec: Option<String>,
    /// An option for ssh (its -o), for codespaces too; may be repeated
    #[arg(long, global = true, value_name = "K=V", action = ArgAction::Append)]
    pub ssh_option: Vec<String>,
    /// Where gh-net-sidecar is over there [default: found, else copied from
    /// $GH_NET_SIDECAR_DIR, from within gh-net or from beside it]
    #[arg(long, global = true, value_name = "PATH")]
    pub sidecar: Option<String>,
    /// What is forwarded: every network this computer has a route to (auto), the private ranges whatever its
    /// routes (private), or networks such as 10.0.0.0/8; may be repeated [default: auto]
    #[arg(long, global = true, value_name = "auto|private|CIDR", action = ArgAction::Append)]
    pub route: Vec<String>,
    /// A network that is not forwarded; may be repeated
    #[arg(long, global = true, value_name = "CIDR", action = ArgAction::Append)]
    pub exclude: Vec<String>,
    /// Names: this computer's domains are asked here, all else over there (true, split), all names here first
    /// (local), or leave the codespace's resolver alone (false) [default: split]
    #[arg(long, short_alias = 'd', global = true, value_name = "true|false|split|local")]
    pub dns: Option<String>,
    /// Whether to draw a full-screen view. There is none yet: both values give plain lines [default: true]
    #[arg(short, long, global = true, value_name = "true|false")]
    pub gui: Option<String>,
    /// How much is logged: off, error, warn, info, debug, trace, or such as debug,gh_net::engine=trace
    /// [default: info]
    #[arg(short, long, alias = "trace-level", global = true, value_name = "LEVEL")]
    pub trace: Option<String>,
    /// Where the log goes; stderr then has what `info` has [default: stderr]
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub trace_dest: Option<String>,
    /// The configuration file [default: $XDG_CONFIG_HOME/gh-net/config.toml]
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<String>,
    /// What the user should know about the flags themselves.
    #[arg(skip)]
    pub warnings: Vec<String>,
}

/// The definition of the command line, for those who describe it: its manual, its completions, its reference.
pub fn command() -> clap::Command {
    let after = format!("{AFTER}\n\n{}", exit::HELP);
    Cli::command().after_long_help(after.clone()).after_help(after)
}

/// Parses the process's arguments. Help, version and usage errors end the process, as clap words them.
pub fn parse() -> Flags {
    match parse_from(std::env::args_os(), invoked::name()) {
        Ok(flags) => flags,
        Err(error) => error.exit(),
    }
}

/// Parses arguments, the program's name first; `invoked` is what usage lines call it.
///
/// # Errors
/// Whatever clap has to say: help and version are errors, too.
pub fn parse_from<I>(arguments: I, invoked: &str) -> Result<Flags, clap::Error>
where
    I: IntoIterator,
    I::Item: Into<std::ffi::OsString> + Clone,
{
    let mut definition = command().bin_name(invoked);
    let matches = definition.try_get_matches_from_mut(arguments)?;
    let Cli { mut flags, legacy, name, command } = Cli::from_arg_matches(&matches)?;
    flags.warnings = legacy.judge().map_err(|why| definition.error(ErrorKind::InvalidValue, why))?;
    let after_start = match command {
        None => None,
        Some(Command::Start { name }) => name,
        Some(Command::Exists) => return Err(definition.error(ErrorKind::InvalidSubcommand, legacy::EXISTS)),
    };
    if name.is_some() && after_start.is_some() {
        let twice = "a codespace is named before `start` and after it";
        return Err(definition.error(ErrorKind::ArgumentConflict, twice));
    }
    flags.codespace = flags.codespace.or(after_start).or(name);
    Ok(flags)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Flags, clap::Error> {
        parse_from(line.split(' '), "gh-net")
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
            assert_eq!(flags.codespace.as_deref(), Some("big-fish"), "{line}");
            assert_eq!(flags.trace.as_deref(), Some("debug"), "{line}");
        }
    }

    #[test]
    fn lists_grow_with_each_flag() {
        let flags =
            parsed("gh-net --route auto --route 10.0.0.0/8,fd00::/8 --ssh-option A=1 --ssh-option B=2");
        let flags = flags.unwrap();
        assert_eq!(flags.route, ["auto", "10.0.0.0/8,fd00::/8"]);
        assert_eq!(flags.ssh_option, ["A=1", "B=2"]);
    }

    #[test]
    fn one_destination_at_most() {
        for line in [
            "gh-net a -c b",
            "gh-net a --ssh b",
            "gh-net start a --exec b",
            "gh-net --ssh a --exec b",
            "gh-net a start b",
        ] {
            assert!(parsed(line).is_err(), "{line}");
        }
    }

    #[test]
    fn the_flags_of_the_old_extension_work_or_name_what_came_in_their_place() {
        let flags =
            parsed("gh-net start --location local --trace-level debug --telemetry false -g false -d true")
                .unwrap();
        assert_eq!(flags.trace.as_deref(), Some("debug"));
        assert_eq!(flags.gui.as_deref(), Some("false"));
        assert_eq!(flags.dns.as_deref(), Some("true"));
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
