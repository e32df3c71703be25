//! Running gh, and finding out why it fails.

use std::ffi::OsString;
use std::io;
use std::process::{Output, Stdio};

use gh_net_common::hello::printable;
use serde::Deserialize;
use tokio::process::Command;

use super::codespace::Codespace;
use crate::exit::{Exit, Explain};
use crate::invoked;

const FIELDS: &str = "displayName,name,owner,repository,state,gitStatus,lastUsedAt,machineName";

/// The line of devcontainer.json that installs an ssh server.
const SSHD_FEATURE: &str = "\"features\": { \"ghcr.io/devcontainers/features/sshd:1\": {} }";

/// The user's gh.
#[derive(Debug)]
pub struct Gh {
    program: OsString,
}

/// Why gh failed. `stderr` is what it printed there.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no gh.
    #[error("gh, GitHub's command line tool, was not found")]
    Missing,
    /// It can't be run.
    #[error("gh could not be run: {0}")]
    Spawn(io::Error),
    /// The user is not logged in.
    #[error("gh is not logged in")]
    NotLoggedIn {
        /// gh's messages.
        stderr: String,
    },
    /// The token lacks the codespace scope.
    #[error("gh is logged in, but without the codespace scope")]
    Scope {
        /// gh's messages.
        stderr: String,
    },
    /// The organisation requires a single sign-on first.
    #[error("the organisation requires a single sign-on (SAML)")]
    SingleSignOn {
        /// gh's messages.
        stderr: String,
    },
    /// There is no such codespace.
    #[error("there is no codespace {name}")]
    Unknown {
        /// Its name.
        name: String,
        /// gh's messages.
        stderr: String,
    },
    /// The codespace does not run.
    #[error("codespace {name} is stopped ({})", printable(state))]
    Stopped {
        /// Its name.
        name: String,
        /// Its state, in gh's word.
        state: String,
    },
    /// No sshd runs in the codespace.
    #[error("codespace {name} has no ssh server")]
    NoSshServer {
        /// Its name.
        name: String,
        /// gh's messages.
        stderr: String,
    },
    /// gh succeeded but printed no configuration.
    #[error("gh printed no ssh configuration for codespace {name}")]
    NoEntry {
        /// Its name.
        name: String,
    },
    /// Any other failure.
    #[error("gh failed (exit status {})", status.map_or("unknown".to_owned(), |status| status.to_string()))]
    Failed {
        /// gh's exit status.
        status: Option<i32>,
        /// gh's messages.
        stderr: String,
    },
    /// The output of `gh codespace list` is not a list.
    #[error("gh's list of codespaces can't be parsed: {0}")]
    List(serde_json::Error),
}

impl Explain for Error {
    fn exit(&self) -> Exit {
        match self {
            Self::NotLoggedIn { .. } | Self::Scope { .. } | Self::SingleSignOn { .. } => Exit::Denied,
            Self::Unknown { .. } | Self::Stopped { .. } | Self::NoSshServer { .. } | Self::NoEntry { .. } => {
                Exit::Unreachable
            }
            Self::Missing | Self::Spawn(_) | Self::Failed { .. } | Self::List(_) => Exit::Failed,
        }
    }

    fn details(&self) -> Option<String> {
        match self {
            Self::NotLoggedIn { stderr }
            | Self::Scope { stderr }
            | Self::SingleSignOn { stderr }
            | Self::Unknown { stderr, .. }
            | Self::NoSshServer { stderr, .. }
            | Self::Failed { stderr, .. } => Some(stderr.clone()).filter(|stderr| !stderr.is_empty()),
            Self::Missing | Self::Spawn(_) | Self::Stopped { .. } | Self::NoEntry { .. } | Self::List(_) => {
                None
            }
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::Missing => Some(format!(
                "Install it (https://cli.github.com) and run: gh auth login\n\
                 Any other ssh host can be bridged without it: {} --ssh user@host",
                invoked::name()
            )),
            Self::NotLoggedIn { .. } => Some(format!(
                "Run: gh auth login -h github.com -s codespace{}",
                under_sudo().unwrap_or_default()
            )),
            Self::Stopped { name, .. } => Some(format!(
                "It is not started automatically, because a running codespace costs money. Start it, for example with \
                 gh codespace ssh -c {name}, or use --keep-started."
            )),
            Self::Scope { .. } => Some("Run: gh auth refresh -h github.com -s codespace".to_owned()),
            Self::SingleSignOn { .. } => {
                Some("Run gh auth refresh, and authorise the organisation.".to_owned())
            }
            Self::Unknown { .. } => Some("See: gh codespace list".to_owned()),
            Self::NoSshServer { .. } => {
                Some(format!("Add this to its devcontainer.json, and rebuild it:\n{SSHD_FEATURE}"))
            }
            Self::NoEntry { name } => Some(format!("See the output of: gh codespace ssh --config -c {name}")),
            Self::List(_) => Some(format!("Update gh, or name the codespace: {} -c NAME", invoked::name())),
            Self::Spawn(_) | Self::Failed { .. } => None,
        }
    }
}

/// A hint, if gh can't see the user's login.
fn under_sudo() -> Option<&'static str> {
    let root = nix::unistd::geteuid().is_root() && std::env::var_os("SUDO_USER").is_some();
    root.then_some(
        "\nYou run gh-net by sudo, where gh does not see your login. gh-net needs no root: run it without sudo.",
    )
}

impl Gh {
    /// The gh that `GH_PATH` names, as gh sets it for its extensions, else the one in PATH.
    pub fn find() -> Self {
        if under_sudo().is_some() {
            tracing::warn!(
                "running by sudo: gh uses the login and settings of root, not yours; gh-net needs no root"
            );
        }
        let program = std::env::var_os("GH_PATH").filter(|path| !path.is_empty());
        Self { program: program.unwrap_or_else(|| "gh".into()) }
    }

    /// The user's codespaces.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn list(&self) -> Result<Vec<Codespace>, Error> {
        let output = self.run(&["codespace", "list", "--json", FIELDS], None).await?;
        Vec::deserialize(&mut serde_json::Deserializer::from_slice(&output)).map_err(Error::List)
    }

    /// The ssh configuration for a codespace. gh starts it if it is stopped.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn ssh_config(&self, name: &str) -> Result<String, Error> {
        let output = self.run(&["codespace", "ssh", "--config", "-c", name], Some(name)).await?;
        Ok(String::from_utf8_lossy(&output).into_owned())
    }

    async fn run(&self, arguments: &[&str], name: Option<&str>) -> Result<Vec<u8>, Error> {
        let output = Command::new(&self.program)
            .args(arguments)
            .stdin(Stdio::null())
            // So that Ctrl-C does not reach gh, whose end would look like a failure; we end it ourselves.
            .process_group(0)
            .kill_on_drop(true)
            .output()
            .await
            .map_err(|error| if is_missing(&error) { Error::Missing } else { Error::Spawn(error) })?;
        let Output { status, stdout, stderr } = output;
        let stderr = printable(String::from_utf8_lossy(&stderr).trim());
        if !status.success() {
            return Err(classify(status.code(), stderr, name));
        }
        stderr.lines().for_each(|line| tracing::warn!("gh: {line}"));
        Ok(stdout)
    }
}

fn is_missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

/// The meaning of gh's exit status and messages (cli/cli 2.23 to 2.60).
fn classify(status: Option<i32>, stderr: String, name: Option<&str>) -> Error {
    let has = |words: &str| stderr.to_ascii_lowercase().contains(words);
    if status == Some(4) || has("gh auth login") || has("http 401") {
        return Error::NotLoggedIn { stderr };
    }
    if has("saml") {
        return Error::SingleSignOn { stderr };
    }
    if has("http 403") || has("-s codespace") {
        return Error::Scope { stderr };
    }
    match name.map(str::to_owned) {
        Some(name) if has("ssh server") => Error::NoSshServer { name, stderr },
        Some(name) if has("http 404") || has("not found") => Error::Unknown { name, stderr },
        Some(_) | None => Error::Failed { status, stderr },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_of_gh_are_classified() {
        let of = |status, stderr: &str| classify(Some(status), stderr.to_owned(), Some("big-fish"));
        let stderr = "To get started with GitHub CLI, please run:  gh auth login";
        assert!(matches!(of(4, stderr), Error::NotLoggedIn { .. }));
        let stderr = "error getting codespaces: HTTP 403: Must have admin rights to Repository.\n\
                    This API operation needs the \"codespace\" scope. To request it, run:  gh auth refresh -h github.com -s codespace";
        assert!(matches!(of(1, stderr), Error::Scope { .. }));
        let stderr = "HTTP 403: Resource protected by organization SAML enforcement.";
        assert!(matches!(of(1, stderr), Error::SingleSignOn { .. }));
        let stderr = "error getting codespace info: getting full codespace details: HTTP 404: Not Found";
        assert!(matches!(of(1, stderr), Error::Unknown { .. }));
        let stderr = "error getting ssh server details: failed to start SSH server:\n\
                    Please check if an SSH server is installed in the container.";
        assert!(matches!(of(1, stderr), Error::NoSshServer { .. }));
        assert!(matches!(of(1, "dial tcp: connection refused"), Error::Failed { status: Some(1), .. }));
    }
}
