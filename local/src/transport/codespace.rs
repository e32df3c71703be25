//! A codespace: gh starts it and prints an ssh configuration, with which it is an ordinary ssh host.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;

use super::error::Error;
use super::ssh::{self, Host};
use crate::codespaces::gh::{self, Gh};

/// Gets the ssh configuration of codespace `name` from gh, which starts the codespace if it is stopped.
pub(super) async fn host(name: &str, options: &[String]) -> Result<Host, Error> {
    tracing::info!(
        "asking gh for the ssh configuration of codespace {name}; starting a stopped one takes minutes"
    );
    let entry = Gh::find().ssh_config(name).await?;
    let destination = alias(&entry).ok_or_else(|| gh::Error::NoEntry { name: name.to_owned() })?;
    let directory = ssh::private_directory()?;
    let file = directory.path().join("config");
    let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file);
    written.and_then(|mut config| config.write_all(entry.as_bytes())).map_err(cannot_write)?;
    Ok(Host {
        destination: destination.to_owned(),
        options: options.to_vec(),
        codespace: Some((file, name.to_owned())),
        directory,
    })
}

/// Asks gh whether the codespace runs: `gh codespace ssh` would start it.
pub(super) async fn check_running(name: &str) -> Result<(), Error> {
    const RUNNING: &str = "Available";
    let codespaces = Gh::find().list().await?;
    let unknown = || gh::Error::Unknown { name: name.to_owned(), stderr: String::new() };
    let codespace = codespaces.into_iter().find(|codespace| codespace.name == name).ok_or_else(unknown)?;
    if codespace.state == RUNNING {
        return Ok(());
    }
    Err(gh::Error::Stopped { name: name.to_owned(), state: codespace.state }.into())
}

fn cannot_write(source: io::Error) -> Error {
    ssh::Error::Local { what: "the ssh configuration can't be written", source }.into()
}

/// The host that the configuration is for.
fn alias(entry: &str) -> Option<&str> {
    let mut words = entry.lines().map(str::split_whitespace).find_map(|mut words| {
        let is_host = words.next().is_some_and(|word| word.eq_ignore_ascii_case("host"));
        is_host.then_some(words)
    })?;
    words.next().filter(|alias| !alias.starts_with('-') && !alias.contains(['*', '?', '!']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alias_is_found_in_what_gh_prints() {
        let entry = "Host cs.big-fish-x7.feature-a\n\tUser vscode\n\tProxyCommand gh cs ssh -c big-fish-x7\n";
        assert_eq!(alias(entry), Some("cs.big-fish-x7.feature-a"));
        assert_eq!(alias(""), None);
        assert_eq!(alias("Host *\n"), None);
        assert_eq!(alias("Host -oProxyCommand=evil\n"), None);
    }
}
