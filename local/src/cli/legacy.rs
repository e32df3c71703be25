//! The flags of github/gh-net, the archived extension that ours replaces, except those that are ours as well: scripts that
//! use them keep working, or get a message that names the replacement.

use clap::Args;

/// The message for `gh net exists`.
pub(super) const EXISTS: &str = "`exists` was removed: `gh extension list` shows whether gh net is installed";

/// Flags that are accepted and not shown.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct Legacy {
    /// Which half of the bridge this is
    #[arg(long, global = true, hide = true, value_name = "local|remote|auto")]
    location: Option<String>,
    /// Whether usage is reported
    #[arg(long, global = true, hide = true, value_name = "true|false")]
    telemetry: Option<String>,
    /// Whose extension is installed in the codespace
    #[arg(long, global = true, hide = true, value_name = "OWNER/NAME")]
    repo: Option<String>,
}

impl Legacy {
    /// Warnings about flags that have no effect any more, or the error for one that can't be ignored.
    pub(super) fn check(self) -> Result<Vec<String>, String> {
        if let Some(repo) = self.repo {
            return Err(format!(
                "--repo {repo}: nothing is installed from a repository any more. The sidecar is copied over ssh; \
                 --sidecar PATH names one that is already in the codespace"
            ));
        }
        let mut warnings = Vec::new();
        match self.location.as_deref() {
            None => {}
            Some("local" | "auto") => {
                warnings.push("--location has no effect any more: remove it".to_owned())
            }
            Some(other) => {
                return Err(format!(
                    "--location {other}: the codespace's side is now gh-net-sidecar, which gh-net starts there by itself"
                ));
            }
        }
        if self.telemetry.is_some() {
            warnings.push("--telemetry has no effect any more, there is no telemetry: remove it".to_owned());
        }
        Ok(warnings)
    }
}
