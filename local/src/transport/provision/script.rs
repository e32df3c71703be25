//! The two scripts that run in the codespace, in a POSIX shell such as dash or busybox, and their output.

use gh_net_common::hello::printable;

/// Lines around the report: a login shell may print banners before it.
const BEGIN: &str = "gh-net-report-begin";
const END: &str = "gh-net-report-end";
/// Precedes the path of a copied sidecar.
const COPIED: &str = "gh-net-copied ";
/// Maximum number of sidecars accepted from a report.
const MAX_FOUND: usize = 32;

/// Reports the system and its sidecars. `sh` reads it from stdin, so that it need not be quoted for an unknown login
/// shell; the programs that it runs must therefore not read stdin.
pub(super) const REPORT: &str = r#"
report() {
    [ -f "$1" ] && [ -x "$1" ] || return 0
    hash=$(sha256sum "$1" 2>/dev/null </dev/null | cut -c1-64)
    version=$("$1" --version 2>/dev/null </dev/null | head -n 1 | cut -c1-100)
    printf 'found=%s|%s|%s\n' "$hash" "$version" "$1"
}
printf '\n%s\n' gh-net-report-begin
printf 'machine=%s\n' "$(uname -m)"
printf 'system=%s\n' "$(uname -s)"
report "$(command -v gh-net-sidecar)"
for file in /usr/local/bin/gh-net-sidecar /usr/bin/gh-net-sidecar "$HOME/.local/bin/gh-net-sidecar" \
    "$HOME"/.cache/gh-net/gh-net-sidecar-* "${XDG_RUNTIME_DIR:-/nonexistent}"/gh-net/gh-net-sidecar-*; do
    report "$file"
done
printf '%s\n' gh-net-report-end
"#;

/// Reads a sidecar from stdin: `$1` is its name, `$2` its size, `$3` its hash. As stdin is in use, the script is an
/// argument, and passes through a login shell that may be a POSIX one, fish or csh: it must be one line without a
/// single quote, backslash or exclamation mark.
///
/// It uses the first directory from which a program can be run (HOME may be mounted noexec). The file is renamed to its
/// final name once it has been checked, so that an incomplete copy is never run.
const COPY: &[&str] = &[
    "umask 077;",
    "fit() { mkdir -p \"$1\" 2>/dev/null || return 1; p=\"$1/.probe.$$\";",
    "{ echo : > \"$p\" && chmod 700 \"$p\" && \"$p\"; } 2>/dev/null; r=$?; rm -f \"$p\"; return $r; };",
    "fail() { echo \"$1\" >&2; rm -f \"$t\"; exit 1; };",
    "for d in \"$HOME/.cache/gh-net\" \"${XDG_RUNTIME_DIR:-/dev/null}/gh-net\" new; do",
    "if [ \"$d\" = new ]; then d=$(mktemp -d) || d=/dev/null; fi; fit \"$d\" && break; d=; done;",
    "[ -n \"$d\" ] || fail \"there is no directory from which programs can be run\";",
    "t=\"$d/.new.$$\"; cat > \"$t\" || fail \"writing to $d failed\";",
    "[ \"$(wc -c < \"$t\")\" -eq \"$2\" ] || fail \"only a part of it arrived\";",
    "s=$(sha256sum < \"$t\" 2>/dev/null | cut -c1-64);",
    "[ -z \"$s\" ] || [ \"$s\" = \"$3\" ] || fail \"it was changed on the way\";",
    "chmod 755 \"$t\" && \"$t\" --version </dev/null >/dev/null || fail \"it does not run there\";",
    "for f in \"$d\"/gh-net-sidecar-*; do rm -f \"$f\"; done;",
    "mv -f \"$t\" \"$d/$1\" || fail \"renaming it failed\";",
    "echo; echo \"gh-net-copied $d/$1\"",
];

/// The command that copies. `name` and `hash` consist of letters, digits, dots and hyphens.
pub(super) fn copy(name: &str, size: usize, hash: &str) -> String {
    format!("sh -c '{}' gh-net {name} {size} {hash}", COPY.join(" "))
}

/// The path of the copy.
pub(super) fn copied(stdout: &str) -> Option<String> {
    let path = stdout.lines().find_map(|line| line.strip_prefix(COPIED))?;
    is_quotable(path).then(|| path.to_owned())
}

/// Whether a path that the remote side reports can be quoted for any shell.
fn is_quotable(path: &str) -> bool {
    path.starts_with('/') && !path.contains(['\'', '\\', '!']) && !path.contains(char::is_control)
}

/// A sidecar in the codespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// Its SHA-256 in hexadecimal; empty if there is no sha256sum.
    pub(super) hash: String,
    /// Its output for `--version`; empty if it does not run.
    pub(super) version: String,
    /// Its path.
    pub(super) path: String,
}

impl Found {
    /// Whether it was installed, and is not a copy of ours.
    pub(super) fn is_installed(&self) -> bool {
        self.path.ends_with("/gh-net-sidecar")
    }

    /// Whether it is compatible with `version`, that is, differs from it only in the last number.
    pub(super) fn is_compatible_with(&self, version: &str) -> bool {
        let release = |version: &str| version.rsplit_once('.').map(|(release, _)| release.to_owned());
        let theirs = self.version.split_whitespace().next_back().and_then(release);
        theirs.is_some() && theirs == release(version)
    }
}

/// The output of [`REPORT`].
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Report {
    /// `uname -m`.
    pub(super) machine: String,
    /// `uname -s`.
    pub(super) system: String,
    /// The sidecars, in order of preference.
    pub(super) found: Vec<Found>,
}

impl Report {
    /// Finds the report in the output; `None` if it is incomplete.
    pub(super) fn parse(stdout: &str) -> Option<Self> {
        let (_, rest) = stdout.split_once(&format!("\n{BEGIN}\n"))?;
        let (report, _) = rest.split_once(END)?;
        let value = |key: &str| report.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        let found = report.lines().filter_map(|line| line.strip_prefix("found="));
        Some(Self {
            machine: printable(value("machine")?),
            system: printable(value("system")?),
            found: found.filter_map(parse_found).take(MAX_FOUND).collect(),
        })
    }
}

fn parse_found(line: &str) -> Option<Found> {
    let mut parts = line.splitn(3, '|');
    let (hash, version, path) = (parts.next()?, parts.next()?, parts.next()?);
    is_quotable(path).then(|| Found {
        hash: hash.to_owned(),
        version: printable(version),
        path: path.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    /// Runs `command` as the login shell `shell` would, in an otherwise empty home.
    fn run(shell: &[&str], command: &str, home: &std::path::Path, input: &[u8]) -> (bool, String, String) {
        let mut child = Command::new(shell[0])
            .args(&shell[1..])
            .args(["-c", command])
            .env_clear()
            .env("PATH", path())
            .env("HOME", home)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.success(), text(output.stdout), text(output.stderr))
    }

    const PROGRAM: &[u8] = b"#!/bin/sh\necho gh-net-sidecar 9.9.9\n";

    fn hash(bytes: &[u8]) -> String {
        super::super::sources::hash(bytes)
    }

    /// Our own PATH: not every system has its programs in /usr/bin.
    fn path() -> OsString {
        std::env::var_os("PATH").unwrap_or_default()
    }

    /// The shells that this machine has; dash and bash are on any Debian.
    fn shells() -> Vec<Vec<&'static str>> {
        let all = [vec!["dash"], vec!["bash"], vec!["zsh"], vec!["fish"], vec!["csh"], vec!["busybox", "sh"]];
        let exists =
            |shell: &Vec<&str>| std::env::split_paths(&path()).any(|folder| folder.join(shell[0]).exists());
        all.into_iter().filter(exists).collect()
    }

    #[test]
    fn what_was_copied_is_found_with_its_version_and_hash() {
        for shell in shells() {
            let home = tempfile::tempdir().unwrap();
            let command = copy("gh-net-sidecar-9.9.9-abc", PROGRAM.len(), &hash(PROGRAM));
            let (success, stdout, stderr) = run(&shell, &command, home.path(), PROGRAM);
            assert!(success, "{shell:?}: {stderr}");
            let path = copied(&stdout).unwrap();
            assert_eq!(path, format!("{}/.cache/gh-net/gh-net-sidecar-9.9.9-abc", home.path().display()));

            let (_, stdout, _) = run(&shell, "sh", home.path(), REPORT.as_bytes());
            let report = Report::parse(&format!("Welcome!{stdout}")).unwrap();
            assert_eq!(report.system, "Linux");
            let version = "gh-net-sidecar 9.9.9".to_owned();
            assert!(report.found.contains(&Found { hash: hash(PROGRAM), version, path }), "{report:?}");
        }
    }

    #[test]
    fn an_older_copy_is_removed() {
        let home = tempfile::tempdir().unwrap();
        for name in ["gh-net-sidecar-1-a", "gh-net-sidecar-2-b"] {
            assert!(run(&["sh"], &copy(name, PROGRAM.len(), &hash(PROGRAM)), home.path(), PROGRAM).0);
        }
        let left: Vec<_> = std::fs::read_dir(home.path().join(".cache/gh-net"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        assert_eq!(left, ["gh-net-sidecar-2-b"]);
    }

    #[test]
    fn a_copy_that_is_incomplete_or_changed_or_does_not_run_is_refused_and_removed() {
        let home = tempfile::tempdir().unwrap();
        let broken = b"\x7fELF nonsense";
        for (program, size, hash, why) in [
            (PROGRAM, PROGRAM.len() + 1, hash(PROGRAM), "only a part"),
            (PROGRAM, PROGRAM.len(), hash(b"other"), "changed on the way"),
            (&broken[..], broken.len(), hash(broken), "does not run"),
        ] {
            let (success, stdout, stderr) =
                run(&["sh"], &copy("gh-net-sidecar-1-a", size, &hash), home.path(), program);
            assert!(!success && copied(&stdout).is_none(), "{stdout}");
            assert!(stderr.contains(why), "{stderr}");
        }
        assert_eq!(std::fs::read_dir(home.path().join(".cache/gh-net")).unwrap().count(), 0);
    }

    #[test]
    fn another_directory_is_used_if_home_is_not_writable() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join(".cache"), "a file").unwrap();
        let command = copy("gh-net-sidecar-1-a", PROGRAM.len(), &hash(PROGRAM));
        let (success, stdout, stderr) = run(&["sh"], &command, home.path(), PROGRAM);
        assert!(success, "{stderr}");
        let path = copied(&stdout).unwrap();
        assert!(!path.starts_with(home.path().to_str().unwrap()), "{path}");
        std::fs::remove_dir_all(std::path::Path::new(&path).parent().unwrap()).unwrap();
    }

    #[test]
    fn the_copy_script_has_no_character_that_a_login_shell_would_change() {
        let script = COPY.join(" ");
        assert!(!script.contains(['\'', '\\', '!', '\n']), "{script}");
    }

    #[test]
    fn an_incomplete_report_is_none() {
        assert_eq!(Report::parse("Welcome!\n"), None);
        assert_eq!(Report::parse("\ngh-net-report-begin\nmachine=x86_64\n"), None);
    }

    #[test]
    fn a_path_that_would_end_its_quotes_is_ignored() {
        let stdout =
            "\ngh-net-report-begin\nmachine=m\nsystem=s\nfound=a|b|/x/'; rm -rf '/\ngh-net-report-end\n";
        assert_eq!(Report::parse(stdout).unwrap().found, []);
        assert_eq!(copied("gh-net-copied /x/'; rm -rf '/"), None);
    }
}
