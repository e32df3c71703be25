//! Finding a sidecar in the codespace, or copying ours to it.
//!
//! A first command reports the system, the architecture, and the sidecars there are, with their versions and hashes. If
//! one is compatible, it is used. Otherwise a second command copies ours over the same connection, to a file name that
//! contains its version and the start of its hash, and removes earlier copies. [`choose`] decides, and is pure.

mod error;
mod script;
mod sources;

use std::time::Duration;

use super::ssh::{Master, Output};
pub use error::Error;
use script::{Found, Report};
pub use sources::Sources;
use sources::{Arch, Binary, VERSION};

/// Time limit of the report: a slow login shell, and the hash of a few megabytes.
const REPORT_TIMEOUT: Duration = Duration::from_secs(60);
/// Time limit of copying: a few megabytes over a very slow link.
const COPY_TIMEOUT: Duration = Duration::from_secs(600);

/// Which sidecar to run.
#[derive(Debug, PartialEq, Eq)]
enum Choice<'a> {
    /// This one.
    Use(&'a Found),
    /// A copy of ours.
    Copy,
    /// This one of another version, as there is none of ours. The handshake tells whether it is compatible.
    Try(&'a Found),
    /// There is none.
    Nothing,
}

/// The path of a compatible sidecar in the codespace, copied if necessary.
pub(super) async fn provision(master: &Master, sources: &Sources, name: &str) -> Result<String, Error> {
    let output = master.run("sh", script::REPORT.as_bytes(), REPORT_TIMEOUT).await?;
    let report = Report::parse(&output.stdout)
        .ok_or_else(|| Error::NoReport { name: name.to_owned(), output: last_lines(&output) })?;
    tracing::debug!(?report, "sidecars in the codespace");
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
                "using {} of another version ({}), as there is none on this computer to copy",
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

/// Prefers a sidecar with the same hash, then an installed one that is compatible, then a copy of ours, then any other.
/// An installed one may have privileges that a copy lacks: a sudoers entry, or capabilities.
fn choose<'a>(report: &'a Report, ours: Option<&Binary>) -> Choice<'a> {
    let same = |found: &&Found| ours.is_some_and(|ours| found.hash == ours.hash);
    // Without sha256sum there, the file name of our copy identifies it.
    let named = |found: &&Found| {
        found.hash.is_empty()
            && ours.is_some_and(|ours| found.path.ends_with(&format!("/{}", ours.remote_name())))
    };
    let installed = |found: &&Found| found.is_installed() && found.is_compatible_with(VERSION);
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
    let output = master.run(&command, &ours.bytes, COPY_TIMEOUT).await?;
    let path = script::copied(&output.stdout).filter(|_| output.status == Some(0));
    path.ok_or_else(|| Error::Copy { name: name.to_owned(), output: last_lines(&output) })
}

/// The last lines of a script's output, for an error.
fn last_lines(output: &Output) -> String {
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
    fn a_sidecar_with_the_same_hash_is_used_wherever_it_is() {
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
    fn without_hashes_the_file_name_counts() {
        let path = format!("/home/me/.cache/gh-net/{}", ours().remote_name());
        let report = report(vec![found("", &current(), &path)]);
        assert_eq!(choose(&report, Some(&ours())), Choice::Use(&report.found[0]));
    }

    #[test]
    fn without_ours_any_other_is_tried() {
        let stale = report(vec![found("bb", "gh-net-sidecar 0.0.1", "/usr/bin/gh-net-sidecar")]);
        assert_eq!(choose(&stale, None), Choice::Try(&stale.found[0]));
        assert_eq!(choose(&report(vec![]), None), Choice::Nothing);
    }
}
