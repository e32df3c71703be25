//! Finding a sidecar over there, or copying ours.
//!
//! One round trip looks: what machine it is, which sidecars there are, their versions and hashes. If one fits,
//! that is all. Else a second copies ours over the same connection, to a name that holds its version and the
//! start of its hash, and removes what we have copied earlier. [`choose`] decides, and is pure.

mod script;
mod sources;

use std::io;
use std::time::Duration;

use super::ssh::{self, Master, Output};
use crate::exit::{Exit, Explain};
use script::{Found, Report};
pub use sources::Sources;
use sources::{Arch, Binary};

/// How long looking may take: a slow login shell, and a hash over a few megabytes.
const LOOKING: Duration = Duration::from_secs(60);
/// How long copying may take: a few megabytes over the slowest of links.
const COPYING: Duration = Duration::from_secs(600);

/// Sidecars of other versions than ours are not used as long as there is one of ours.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Why there is no sidecar to run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// ssh failed on the way.
    #[error(transparent)]
    Ssh(#[from] ssh::Error),
    /// The shell over there did not run our script.
    #[error("the login shell of {name} did not answer as expected")]
    NoReport {
        /// The host.
        name: String,
        /// What it said instead.
        said: String,
    },
    /// It is no Linux.
    #[error("{name} runs {system}; the sidecar needs Linux")]
    System {
        /// The host.
        name: String,
        /// Its system.
        system: String,
    },
    /// There is none over there, and none here that runs there.
    #[error("there is no gh-net-sidecar at {name}, and none here to copy to its architecture, {machine}")]
    None {
        /// The host.
        name: String,
        /// Its architecture, as uname says it.
        machine: String,
        /// Where one was looked for on the laptop.
        searched: String,
    },
    /// Ours can't be read.
    #[error("the sidecar to copy, {path}, can't be read: {source}")]
    Read {
        /// Its file.
        path: String,
        /// Why not.
        source: io::Error,
    },
    /// It did not arrive, or does not run.
    #[error("copying the sidecar to {name} failed")]
    Copy {
        /// The host.
        name: String,
        /// What was said over there.
        said: String,
    },
}

impl Explain for Error {
    fn exit(&self) -> Exit {
        match self {
            Self::Ssh(error) => error.exit(),
            Self::NoReport { .. } => Exit::Unreachable,
            Self::System { .. } | Self::None { .. } | Self::Read { .. } | Self::Copy { .. } => Exit::Sidecar,
        }
    }

    fn details(&self) -> Option<String> {
        match self {
            Self::Ssh(error) => error.details(),
            Self::NoReport { said, .. } | Self::Copy { said, .. } => {
                Some(said.clone()).filter(|s| !s.is_empty())
            }
            Self::None { searched, .. } => Some(searched.clone()),
            Self::System { .. } | Self::Read { .. } => None,
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::Ssh(error) => error.remedy(),
            Self::None { .. } => Some(
                "Install gh-net-sidecar over there (--sidecar PATH says where it is), or put one for that\n\
                 architecture here and name its directory: GH_NET_SIDECAR_DIR."
                    .to_owned(),
            ),
            Self::Copy { .. } => {
                Some("Install gh-net-sidecar over there by hand, and say where: --sidecar PATH".to_owned())
            }
            Self::NoReport { .. } => Some("Its login shell must be able to run: sh".to_owned()),
            Self::System { .. } | Self::Read { .. } => None,
        }
    }
}

/// What is to be done about a sidecar.
#[derive(Debug, PartialEq, Eq)]
enum Choice<'a> {
    /// Run this one.
    Use(&'a Found),
    /// Copy ours.
    Copy,
    /// Run this one, of another version: there is no better. The handshake will say if it does not do.
    Try(&'a Found),
    /// There is nothing to run.
    Nothing,
}

/// The path of a sidecar over there that fits, copied if need be.
pub(super) async fn provision(master: &Master, sources: &Sources, name: &str) -> Result<String, Error> {
    let output = master.run("sh", script::LOOK.as_bytes(), LOOKING).await?;
    let report = Report::parse(&output.stdout)
        .ok_or_else(|| Error::NoReport { name: name.to_owned(), said: instead(&output) })?;
    tracing::debug!(?report, "looked for a sidecar");
    if report.system != "Linux" {
        return Err(Error::System { name: name.to_owned(), system: report.system });
    }
    let ours = match Arch::named(&report.machine) {
        Some(arch) => sources.find(arch)?,
        None => None,
    };
    match choose(&report, ours.as_ref()) {
        Choice::Use(found) => Ok(found.path.clone()),
        Choice::Try(found) => {
            tracing::warn!(
                "using {} of another version ({}): there is none here to copy",
                found.path,
                found.version
            );
            Ok(found.path.clone())
        }
        Choice::Copy if let Some(ours) = ours => copy(master, &ours, name).await,
        Choice::Copy | Choice::Nothing => {
            let searched = sources.searched();
            Err(Error::None { name: name.to_owned(), machine: report.machine, searched })
        }
    }
}

/// A sidecar of the very same bytes, else an installed one of the same line of releases, else ours, else any.
/// An installed one may have privileges that a copy has not: an entry for sudo, capabilities.
fn choose<'a>(report: &'a Report, ours: Option<&Binary>) -> Choice<'a> {
    let same = |found: &&Found| ours.is_some_and(|ours| found.hash == ours.hash);
    // Where no hash can be had, the name we gave it says which it is.
    let named = |found: &&Found| {
        found.hash.is_empty()
            && ours.is_some_and(|ours| found.path.ends_with(&format!("/{}", ours.remote_name())))
    };
    let installed = |found: &&Found| found.is_installed() && found.is_of_line(VERSION);
    let found = report.found.iter();
    let fits = found
        .clone()
        .find(same)
        .or_else(|| found.clone().find(named))
        .or_else(|| found.clone().find(installed));
    match (fits, ours, report.found.first()) {
        (Some(found), _, _) => Choice::Use(found),
        (None, Some(_), _) => Choice::Copy,
        (None, None, Some(found)) => Choice::Try(found),
        (None, None, None) => Choice::Nothing,
    }
}

async fn copy(master: &Master, ours: &Binary, name: &str) -> Result<String, Error> {
    tracing::info!("copying the sidecar to {name} ({:.1} MB)", ours.bytes.len() as f64 / 1e6);
    let command = script::copy(&ours.remote_name(), ours.bytes.len(), &ours.hash);
    let output = master.run(&command, &ours.bytes, COPYING).await?;
    let path = script::copied(&output.stdout).filter(|_| output.status == Some(0));
    path.ok_or_else(|| Error::Copy { name: name.to_owned(), said: instead(&output) })
}

/// The last of what a script said when it did not say what it should.
fn instead(output: &Output) -> String {
    const SHOWN: usize = 10;
    let lines: Vec<&str> = output.stdout.lines().chain(output.stderr.lines()).collect();
    gh_net_common::hello::printable(&lines[lines.len().saturating_sub(SHOWN)..].join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours() -> Binary {
        Binary { bytes: b"".into(), hash: "aa".repeat(32) }
    }

    fn found(hash: &str, version: &str, path: &str) -> Found {
        Found { hash: hash.into(), version: version.into(), path: path.into() }
    }

    fn report(found: Vec<Found>) -> Report {
        Report { machine: "x86_64".into(), system: "Linux".into(), found }
    }

    fn current() -> String {
        format!("gh-net-sidecar {VERSION}")
    }

    #[test]
    fn the_same_bytes_are_used_wherever_they_lie() {
        let report = report(vec![
            found("bb", "gh-net-sidecar 0.0.1", "/usr/bin/gh-net-sidecar"),
            found(&ours().hash, &current(), "/home/me/.cache/gh-net/gh-net-sidecar-x"),
        ]);
        assert_eq!(choose(&report, Some(&ours())), Choice::Use(&report.found[1]));
    }

    #[test]
    fn an_installed_one_of_our_version_is_used() {
        let report = report(vec![found("bb", &current(), "/usr/bin/gh-net-sidecar")]);
        assert_eq!(choose(&report, Some(&ours())), Choice::Use(&report.found[0]));
        assert_eq!(choose(&report, None), Choice::Use(&report.found[0]));
    }

    #[test]
    fn an_installed_one_may_differ_in_the_last_number() {
        let (line, _) = VERSION.rsplit_once('.').unwrap();
        let newer = format!("gh-net-sidecar {line}.99");
        let report = report(vec![found("bb", &newer, "/usr/bin/gh-net-sidecar")]);
        assert_eq!(choose(&report, Some(&ours())), Choice::Use(&report.found[0]));
    }

    #[test]
    fn a_stale_one_is_replaced_by_ours() {
        for stale in [
            found("bb", "gh-net-sidecar 0.0.1", "/usr/bin/gh-net-sidecar"),
            found("bb", "", "/usr/bin/gh-net-sidecar"),
            found("bb", &current(), "/home/me/.cache/gh-net/gh-net-sidecar-0.1.0-bbbbbbbb"),
            found("", &current(), "/home/me/.cache/gh-net/gh-net-sidecar-0.1.0-bbbbbbbb"),
        ] {
            let report = report(vec![stale]);
            assert_eq!(choose(&report, Some(&ours())), Choice::Copy, "{report:?}");
        }
    }

    #[test]
    fn without_hashes_the_name_we_gave_it_counts() {
        let path = format!("/home/me/.cache/gh-net/{}", ours().remote_name());
        let report = report(vec![found("", &current(), &path)]);
        assert_eq!(choose(&report, Some(&ours())), Choice::Use(&report.found[0]));
    }

    #[test]
    fn with_none_of_ours_any_is_tried() {
        let stale = report(vec![found("bb", "gh-net-sidecar 0.0.1", "/usr/bin/gh-net-sidecar")]);
        assert_eq!(choose(&stale, None), Choice::Try(&stale.found[0]));
        assert_eq!(choose(&report(vec![]), None), Choice::Nothing);
    }
}
