//! Rules of the project that the compiler does not know.

use std::fs;
use std::path::PathBuf;

use gh_net_tests::root;

/// A source file, by its path in the workspace.
struct Source {
    path: String,
    text: String,
}

impl Source {
    /// Its code up to its tests, without comments and documentation, with line numbers.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let tests = self.text.find("#[cfg(test)]\nmod tests").unwrap_or(self.text.len());
        let lines = self.text[..tests].lines().zip(1..);
        lines.map(|(line, number)| (number, line.trim())).filter(|(_, line)| !line.starts_with("//"))
    }

    fn is_test(&self) -> bool {
        self.path.contains("/tests/") || self.path.ends_with("tests.rs")
    }
}

fn sources(folder: &str) -> Vec<Source> {
    let root = root();
    let mut found = Vec::new();
    let mut folders = vec![root.join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the workspace") {
            let path = entry.expect("an entry").path();
            match path.is_dir() {
                true if path.file_name().is_some_and(|name| name != "target") => folders.push(path),
                false if path.extension().is_some_and(|extension| extension == "rs") => found.push(path),
                _ => {}
            }
        }
    }
    let read = |path: PathBuf| Source {
        text: fs::read_to_string(&path).expect("a source"),
        path: path.strip_prefix(root).expect("in the workspace").display().to_string(),
    };
    found.into_iter().map(read).collect()
}

fn all() -> Vec<Source> {
    ["common/src", "sidecar/src", "local/src", "local/engine", "tests"]
        .into_iter()
        .flat_map(sources)
        .collect()
}

/// Fails with each line of `sources` that holds one of `words`.
fn forbid<'a>(sources: impl IntoIterator<Item = &'a Source>, words: &[&str], why: &str) {
    let mut broken = String::new();
    for source in sources {
        for (number, line) in source.code() {
            if words.iter().any(|word| line.contains(word)) {
                broken.push_str(&format!("{}:{number}: {line}\n", source.path));
            }
        }
    }
    assert!(broken.is_empty(), "{why}:\n{broken}");
}

#[test]
fn policy_is_pure() {
    let sources = sources("local/src");
    let policy = sources.iter().filter(|s| s.path.starts_with("local/src/policy") && !s.is_test());
    forbid(policy, &["tokio", "Instant::now", "std::fs", "nix::", "libc::"], "the policy is a function");
}

/// Its stdout is the wire. Only what a person runs by hand may print.
#[test]
fn the_sidecar_does_not_print() {
    let sources = sources("sidecar/src");
    let by_hand = ["sidecar/src/main.rs", "sidecar/src/status.rs", "sidecar/src/console.rs"];
    let silent = sources.iter().filter(|s| !by_hand.contains(&s.path.as_str()) && !s.is_test());
    forbid(silent, &["print!(", "println!(", "io::stdout()"], "a stray byte on stdout breaks the stream");
}

#[test]
fn files_stay_readable() {
    let long: Vec<_> = all()
        .into_iter()
        .map(|source| (source.code().filter(|(_, line)| !line.is_empty()).count(), source))
        .filter(|(lines, source)| *lines > if source.is_test() { 800 } else { 600 })
        .map(|(lines, source)| format!("{}: {lines} lines of code", source.path))
        .collect();
    assert!(long.is_empty(), "too long to be read in one go:\n{}", long.join("\n"));
}

#[test]
fn files_say_what_they_are_for() {
    let silent: Vec<_> = all()
        .into_iter()
        .filter(|source| !source.text.starts_with("//!") && !source.path.ends_with("/tests.rs"))
        .map(|source| source.path)
        .collect();
    assert!(silent.is_empty(), "no //! at the top:\n{}", silent.join("\n"));
}

#[test]
fn modules_have_one_shape() {
    let old: Vec<_> = all().into_iter().filter(|s| s.path.ends_with("/mod.rs")).map(|s| s.path).collect();
    assert!(old.is_empty(), "foo.rs and foo/, not foo/mod.rs: {old:?}");
}

#[test]
fn channels_are_bounded() {
    let sources: Vec<_> = ["common/src", "sidecar/src", "local/src", "local/engine/src"]
        .into_iter()
        .flat_map(sources)
        .collect();
    let code = sources.iter().filter(|source| !source.is_test());
    forbid(code, &["unbounded_channel", "unbounded()"], "a queue without a bound grows until memory ends");
}
