//! The documents that are generated: `cargo xtask docs` writes them, a test compares them.

use std::fmt::Write;

use gh_net::config::{self, Setting};
use gh_net::exit;

/// Where the reference of the configuration is, in the workspace.
pub const CONFIGURATION: &str = "docs/configuration.md";

const OPENING: &str = "\
<!-- Generated from the program's own types by `cargo xtask docs`. Edit those. -->

# Configuration

Each setting can be given by a flag, by a variable, or in a file. A flag wins over a variable, a variable over the file. An
empty variable counts as not set. What is to be bridged (`codespace`, `ssh`, `exec`) is taken as one: `--ssh` on the command
line wins over a `codespace` in the file.

The file is `$XDG_CONFIG_HOME/gh-net/config.toml` (`~/.config/gh-net/config.toml`), or what `--config` or `GH_NET_CONFIG` names.
A key it does not know is an error, and a `GH_NET_` variable that means nothing is warned about.

Where several values are possible (`route`, `exclude`), a flag or variable may hold them between commas, and the flag may be
repeated. `ssh-option` is one option a flag, and one a variable: options have commas of their own.

All of it at once, as an example:

";

/// The reference of the configuration, in Markdown.
pub fn configuration() -> String {
    let mut text = OPENING.to_owned();
    let targets = ["ssh", "exec"];
    for setting in config::keys().filter(|setting| !targets.contains(&setting.key)) {
        line(&mut text, format_args!("    {}", setting.example_line()));
    }
    line(&mut text, format_args!("\n## Settings"));
    config::keys().for_each(|setting| one(&mut text, setting));
    line(&mut text, format_args!("\n## Exit codes of gh-net\n"));
    line(&mut text, format_args!("| code | meaning |\n|---|---|"));
    for row in exit::HELP.lines().skip(1) {
        let (code, meaning) = row.trim().split_once(' ').unwrap_or((row, ""));
        line(&mut text, format_args!("| {code} | {} |", meaning.trim()));
    }
    text
}

fn one(text: &mut String, setting: &Setting) {
    line(text, format_args!("\n### {}\n\n{}.\n", setting.key, setting.meaning));
    line(text, format_args!("| | |\n|---|---|"));
    if let Some(flag) = setting.usage() {
        // A bar would end the table's cell.
        line(text, format_args!("| flag | `{}` |", flag.replace('|', "\\|")));
    }
    line(
        text,
        format_args!("| variable | `{}` |\n| file | `{}` |", setting.variable(), setting.example_line()),
    );
    line(text, format_args!("| default | {} |", setting.default_text().unwrap_or("none")));
}

fn line(text: &mut String, words: std::fmt::Arguments<'_>) {
    writeln!(text, "{words}").expect("a String takes all that is written");
}
