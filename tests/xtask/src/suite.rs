//! The workspace's test programs: built with one command, then run concurrently.
//!
//! `cargo test` runs one program after the other. Most of the end-to-end tests wait (for a time-out, for a link), so
//! running them concurrently takes half the time. Labs have their own namespaces, so they don't disturb each other. The
//! output of a program is shown as a whole when it ends.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::shell::{self, root};

/// A test program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Suite {
    /// Its package and target, such as `gh-net-tests: dns`.
    pub(crate) name: String,
    program: PathBuf,
    /// The working directory that cargo would start it in.
    folder: PathBuf,
}

impl Suite {
    /// Whether it is an end-to-end test of this name, in tests/tests.
    pub(crate) fn is(&self, target: &str) -> bool {
        self.is_integration() && self.program_name() == target
    }

    /// Whether it is in tests/tests.
    pub(crate) fn is_integration(&self) -> bool {
        self.name.starts_with("gh-net-tests: ") && self.folder == root().join("tests")
    }

    /// The target's name.
    pub(crate) fn program_name(&self) -> &str {
        self.name.split_once(": ").map_or("", |(_, target)| target)
    }
}

/// Builds all test programs of the workspace.
pub(crate) fn build() -> Result<Vec<Suite>> {
    let mut cargo = shell::cargo();
    cargo.args(["test", "--workspace", "--locked", "--no-run", "--message-format=json-render-diagnostics"]);
    let line = shell::announce(&cargo);
    let mut child = cargo.stdout(Stdio::piped()).spawn().with_context(|| format!("starting `{line}`"))?;
    let messages = BufReader::new(child.stdout.take().context("it was piped")?);
    let mut suites = Vec::new();
    for message in messages.lines() {
        suites.extend(suite(&serde_json::from_str(&message?).context("a message of cargo")?));
    }
    ensure!(child.wait()?.success(), "`{line}` failed");
    ensure!(!suites.is_empty(), "`{line}` named no test program");
    Ok(suites)
}

/// The test program that a message of cargo announces, if it announces one.
fn suite(message: &Value) -> Option<Suite> {
    let is_test = message["reason"] == "compiler-artifact" && message["profile"]["test"] == true;
    let program = message["executable"].as_str().filter(|_| is_test)?;
    let folder = Path::new(message["manifest_path"].as_str()?).parent()?;
    // `path+file:///…/tests#gh-net-tests@0.1.0`, or `…/common#0.1.0` where package and folder have one name.
    let (path, version) = message["package_id"].as_str()?.rsplit_once('#')?;
    let package = match version.split_once('@') {
        Some((name, _)) => name,
        None => path.rsplit('/').next()?,
    };
    Some(Suite {
        name: format!("{package}: {}", message["target"]["name"].as_str()?),
        program: program.into(),
        folder: folder.to_owned(),
    })
}

/// Runs test programs concurrently. The error names those that failed.
pub(crate) fn run(suites: Vec<Suite>, environment: &[(&str, &OsStr)]) -> Result<()> {
    // One more than there are processors, because tests wait more than they compute.
    let workers = thread::available_parallelism()?.get() + 1;
    let queue = Mutex::new(VecDeque::from(suites));
    let failed = Mutex::new(Vec::new());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let work = || {
        while let Some(suite) = next() {
            if !passes(&suite, environment) {
                failed.lock().unwrap_or_else(PoisonError::into_inner).push(suite.name);
            }
        }
    };
    thread::scope(|scope| (0..workers).for_each(|_| drop(scope.spawn(work))));
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    ensure!(failed.is_empty(), "these tests failed, see above: {}", failed.join(", "));
    Ok(())
}

fn passes(suite: &Suite, environment: &[(&str, &OsStr)]) -> bool {
    let started = Instant::now();
    let mut command = Command::new(&suite.program);
    command.current_dir(&suite.folder).env("CARGO_MANIFEST_DIR", &suite.folder);
    command.envs(environment.iter().copied());
    // Shows skips, which passing tests print to stderr.
    let output = command.arg("--show-output").stdin(Stdio::null()).output();
    let (success, text) = match output {
        Ok(output) => {
            let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
            (output.status.success(), text.concat())
        }
        Err(error) => (false, format!("starting {}: {error}", suite.program.display())),
    };
    let shown = if success { summary(&text) } else { text };
    // With one call, because other threads print at the same time.
    println!("\n{} ({:.0} s)\n{}", suite.name, started.elapsed().as_secs_f64(), shown.trim_end());
    success
}

/// The output that is shown of a program that passed: each test, each skip, and the result.
fn summary(text: &str) -> String {
    let is_shown = |line: &&str| {
        line.starts_with("test ") || line.starts_with("SKIPPED") || line.starts_with("test result")
    };
    text.lines().filter(is_shown).map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn artifact(package: &str, test: bool) -> Value {
        json!({
            "reason": "compiler-artifact",
            "package_id": package,
            "manifest_path": "/src/tests/Cargo.toml",
            "target": { "name": "dns" },
            "profile": { "test": test },
            "executable": "/src/target/debug/deps/dns-1",
        })
    }

    #[test]
    fn test_programs_are_found_among_the_messages_of_cargo() {
        let named = |package| suite(&artifact(package, true)).map(|suite| suite.name);
        assert_eq!(named("path+file:///src/tests#gh-net-tests@0.1.0").as_deref(), Some("gh-net-tests: dns"));
        assert_eq!(named("path+file:///src/common#0.1.0").as_deref(), Some("common: dns"));
        assert_eq!(suite(&artifact("path+file:///src/tests#gh-net-tests@0.1.0", false)), None);
        assert_eq!(suite(&json!({ "reason": "build-finished", "success": true })), None);
    }

    #[test]
    fn a_passing_program_shows_its_tests_and_skips() {
        let text = "\nrunning 1 test\ntest a ... ok\n\nsuccesses:\n\n---- a stderr ----\nSKIPPED: no root\nnoise\n\n\
                    test result: ok. 1 passed\n";
        assert_eq!(summary(text), "test a ... ok\nSKIPPED: no root\ntest result: ok. 1 passed\n");
    }

    #[test]
    fn a_failure_is_named() {
        let suite = |name: &str, program: &str| Suite {
            name: name.to_owned(),
            program: program.into(),
            folder: root().to_owned(),
        };
        assert!(run(vec![suite("good", "/bin/true")], &[]).is_ok());
        let error = run(vec![suite("good", "/bin/true"), suite("bad", "/bin/false")], &[]).unwrap_err();
        assert!(error.to_string().ends_with(": bad"), "{error}");
    }
}
