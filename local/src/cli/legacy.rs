//! The flags of github/gh-net, the archived extension that ours takes the place of, where they are not ours
//! too: scripts that use them go on working, or hear what came in their place.

use clap::Args;

/// What `gh net exists` was for, and what does it now.
pub(super) const EXISTS: &str =
    "there is no `exists` any more: `gh extension list` says whether gh net is there";

/// Flags that are read and not shown.
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
    /// Words for flags that do nothing any more, or why there is no going on with one.
    pub(super) fn judge(self) -> Result<Vec<String>, String> {
        if let Some(repo) = self.repo {
            return Err(format!(
                "--repo {repo}: nothing is installed from a repository any more. The sidecar is copied over ssh; \
                 --sidecar PATH names one that is in the codespace already"
            ));
        }
        let mut warnings = Vec::new();
        match self.location.as_deref() {
            None => {}
            Some("local" | "auto") => {
                warnings.push("--location means nothing any more: leave it out".to_owned())
            }
            Some(other) => {
                return Err(format!(
                    "--location {other}: the codespace's half is gh-net-sidecar now, and is started from here"
                ));
            }
        }
        if self.telemetry.is_some() {
            warnings.push("--telemetry means nothing any more, there is none: leave it out".to_owned());
        }
        Ok(warnings)
    }
}
