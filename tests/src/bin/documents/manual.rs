//! The manual pages and the completions, from the command lines' own definitions.

use std::fs::{self, File};
use std::path::Path;

use anyhow::Result;
use clap::builder::StyledStr;
use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, italic, roman};
use gh_net_sidecar::cli::Arguments;

/// Writes them below `share`, each at its standard path.
pub(crate) fn write(share: &Path) -> Result<()> {
    let man = share.join("man/man1");
    fs::create_dir_all(&man)?;
    let gh_net = [("FILES AND ENVIRONMENT", gh_net::cli::AFTER), ("EXIT STATUS", gh_net::exit::HELP)];
    page(gh_net::cli::command(), &gh_net, &man.join("gh-net.1"))?;
    let sidecar = [("EXIT STATUS", gh_net_sidecar::exit::HELP)];
    page(Arguments::command(), &sidecar, &man.join("gh-net-sidecar.1"))?;

    let mut command = gh_net::cli::command();
    for (shell, file) in [
        (Shell::Bash, "bash-completion/completions/gh-net"),
        (Shell::Zsh, "zsh/site-functions/_gh-net"),
        (Shell::Fish, "fish/vendor_completions.d/gh-net.fish"),
    ] {
        let path = share.join(file);
        fs::create_dir_all(path.parent().expect("it is in a folder"))?;
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut command, "gh-net", &mut script);
        // clap_complete 4.6.11 encodes the hyphen of gh-net's subcommands for bash in two ways that don't match.
        fs::write(path, String::from_utf8(script)?.replace("gh__subcmd__net", "gh__net"))?;
    }
    Ok(())
}

/// One page for a program and all its commands. `sections` are the texts at the end of `--help`.
fn page(command: Command, sections: &[(&str, &str)], path: &Path) -> Result<()> {
    let mut file = File::create(path)?;
    let commands: Vec<_> =
        command.get_subcommands().filter(|command| !command.is_hide_set()).cloned().collect();
    let of_program: Vec<_> = command.get_arguments().map(|flag| flag.get_id().clone()).collect();
    let man = Man::new(command.disable_help_subcommand(true));
    man.render_title(&mut file)?;
    man.render_name_section(&mut file)?;
    man.render_synopsis_section(&mut file)?;
    man.render_description_section(&mut file)?;
    man.render_options_section(&mut file)?;

    let mut roff = Roff::new();
    roff.control("SH", ["COMMANDS"]);
    for command in commands {
        item(&mut roff, [bold(command.get_name())], command.get_about());
        roff.control("RS", []);
        let is_own = |flag: &&clap::Arg| {
            !flag.is_hide_set() && !flag.is_positional() && !of_program.contains(flag.get_id())
        };
        for flag in command.get_arguments().filter(is_own) {
            let name = bold(format!("--{}", flag.get_long().unwrap_or_default()));
            let value = flag.get_value_names().filter(|_| flag.get_action().takes_values());
            let value = value.map(|names| format!(" <{}>", names.concat())).unwrap_or_default();
            item(&mut roff, [name, italic(value)], flag.get_help());
        }
        roff.control("RE", []);
    }
    for (title, text) in sections {
        roff.control("SH", [*title]).control("nf", []);
        // One line per entry, also for entries in a sentence.
        let text = text.trim_start_matches("Exit codes:").trim();
        let lines: Vec<_> =
            if text.contains('\n') { text.lines().collect() } else { text.split(", ").collect() };
        roff.text([roman(lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join("\n"))])
            .control("fi", []);
    }
    roff.to_writer(&mut file)?;
    Ok(())
}

fn item<const N: usize>(roff: &mut Roff, what: [Inline; N], help: Option<&StyledStr>) {
    roff.control("TP", []).text(what).text([roman(help.map(ToString::to_string).unwrap_or_default())]);
}
