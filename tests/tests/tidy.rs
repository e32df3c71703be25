//! Rules of the project that the compiler does not check.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::iter::Peekable;
use std::path::PathBuf;
use std::slice;

use gh_net_tests::root;

/// A source file, by its path in the workspace.
struct Source {
    path: String,
    text: String,
}

impl Source {
    /// The lines of code before the tests, without comments and documentation, with their numbers.
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
    ["common", "sidecar", "local", "tests"].into_iter().flat_map(sources).collect()
}

/// Fails if a line of `sources` contains one of `words`; shows all such lines.
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
    forbid(policy, &["tokio", "Instant::now", "std::fs", "nix::", "libc::"], "the policy is pure");
}

/// Its stdout is the wire. Only commands that a person runs may print.
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
    assert!(long.is_empty(), "too long to read:\n{}", long.join("\n"));
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
    forbid(
        code,
        &["unbounded_channel", "mpsc::unbounded", "channel::unbounded", " unbounded()"],
        "an unbounded queue can exhaust the memory",
    );
}

/// A file imports from files below it. What two files share is in a third one, below both.
#[test]
fn imports_make_no_circles() {
    let crates = ["common/src", "sidecar/src", "local/src", "local/engine/src"];
    let circles: Vec<_> = crates.into_iter().flat_map(|folder| circles(&imports(folder))).collect();
    assert!(circles.is_empty(), "files that import from each other:\n{}", circles.join("\n"));
}

#[test]
fn a_circle_is_found_through_any_kind_of_import() {
    fn paths_of(code: &str) -> Vec<Vec<&str>> {
        paths(&tokens(code))
    }
    assert_eq!(
        paths_of("use super::{a::{self, B}, c};"),
        [vec!["super", "a", "self"], vec!["super", "a", "B"], vec!["super", "c"]]
    );
    assert_eq!(paths_of("let x = y(crate::z::<u8>, \"self::s\", '\"'); // super::c"), [["crate", "z"]]);
    assert_eq!(paths_of("pub(in crate::a) use self::b::C;"), [["self", "b", "C"]]);
    let module = |path: &str| path.split("::").filter(|name| !name.is_empty()).map(str::to_owned).collect();
    let modules: BTreeSet<Vec<String>> = ["", "a", "a::b", "a::c"].into_iter().map(module).collect();
    let resolved = |path: &str| {
        let path: Vec<_> = path.split("::").collect();
        resolve(&module("a::b"), &path, &modules).map(|module| module.join("::"))
    };
    assert_eq!(resolved("super::c::Type").as_deref(), Some("a::c"));
    assert_eq!(resolved("super::Type").as_deref(), Some("a"));
    assert_eq!(resolved("super::super::a::self").as_deref(), Some("a"));
    assert_eq!(resolved("crate::Type").as_deref(), Some(""));
    assert_eq!(resolved("self::Type").as_deref(), Some("a::b"));
    assert_eq!(resolved("std::fs"), None);
    let edge = |from: &str, to: &[&str]| (from.to_owned(), to.iter().map(|&to| to.to_owned()).collect());
    let graph =
        BTreeMap::from([edge("a", &["b"]), edge("b", &["c", "d"]), edge("c", &["b"]), edge("d", &[])]);
    assert_eq!(circles(&graph), BTreeSet::from(["b -> c -> b".to_owned()]));
}

/// Files and the files of the same crate that they import from.
type Imports = BTreeMap<String, BTreeSet<String>>;

fn imports(folder: &str) -> Imports {
    // A crate with a library has its modules there; its main.rs is a crate of its own without modules.
    let mut sources = sources(folder);
    let library = format!("{folder}/lib.rs");
    if sources.iter().any(|source| source.path == library) {
        sources.retain(|source| source.path != format!("{folder}/main.rs"));
    }
    let module = |source: &Source| -> Vec<String> {
        let path = source.path[folder.len() + 1..].trim_end_matches(".rs");
        path.split('/').filter(|&name| name != "lib" && name != "main").map(str::to_owned).collect()
    };
    let files: BTreeMap<_, _> = sources.iter().map(|source| (module(source), &source.path)).collect();
    let modules = files.keys().cloned().collect();
    let imported = |source: &Source| {
        let code: Vec<_> = source.code().map(|(_, line)| line).collect();
        let (code, module) = (code.join("\n"), module(source));
        let targets = paths(&tokens(&code)).into_iter().filter_map(|path| resolve(&module, &path, &modules));
        targets.filter(|target| *target != module).map(|target| files[&target].clone()).collect()
    };
    let code = sources.iter().filter(|source| !source.is_test());
    code.map(|source| (source.path.clone(), imported(source))).collect()
}

/// Names and punctuation of `code`, without comments and literals. `::` is one token.
fn tokens(code: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = code;
    while let Some(first) = rest.chars().next() {
        let is_name = |c: char| c.is_alphanumeric() || c == '_';
        let len = match first {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '"' => quoted(rest, '"'),
            '\'' if rest[1..].starts_with('\\') || rest.chars().nth(2) == Some('\'') => quoted(rest, '\''),
            ':' if rest.starts_with("::") => 2,
            _ if is_name(first) => rest.find(|c| !is_name(c)).unwrap_or(rest.len()),
            _ => first.len_utf8(),
        };
        let (token, after) = rest.split_at(len);
        if !token.trim().is_empty() && !token.starts_with(['"', '/']) {
            tokens.push(token);
        }
        rest = after;
    }
    tokens
}

/// The length of the literal that `text` begins with.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    let end = text.char_indices().skip(1).find(|&(_, c)| {
        let found = c == quote && !escaped;
        escaped = c == '\\' && !escaped;
        found
    });
    end.map_or(text.len(), |(at, quote)| at + quote.len_utf8())
}

/// All paths of at least two names, each branch of a `use` tree as one path.
fn paths<'a>(tokens: &[&'a str]) -> Vec<Vec<&'a str>> {
    let mut found = Vec::new();
    let mut tokens = tokens.iter().peekable();
    while let Some(token) = tokens.peek() {
        if **token == "pub" {
            skip_visibility(&mut tokens);
        } else {
            branch(&mut tokens, &[], &mut found);
        }
    }
    found.retain(|path| path.len() > 1);
    found
}

/// `pub(in crate::a)` imports nothing from `a`.
fn skip_visibility(tokens: &mut Peekable<slice::Iter<'_, &str>>) {
    tokens.next();
    if tokens.next_if(|&&token| token == "(").is_some() {
        while tokens.next_if(|&&token| token != ")").is_some() {}
    }
}

fn branch<'a>(
    tokens: &mut Peekable<slice::Iter<'_, &'a str>>,
    prefix: &[&'a str],
    found: &mut Vec<Vec<&'a str>>,
) {
    let mut path = prefix.to_vec();
    while let Some(token) = tokens.next() {
        if *token == "{" && !path.is_empty() {
            while tokens.next_if(|&&token| token == "}").is_none() && tokens.peek().is_some() {
                branch(tokens, &path, found);
                // `as name` or a comma.
                while tokens.next_if(|&&token| token != "}" && token != ",").is_some() {}
                tokens.next_if(|&&token| token == ",");
            }
            return;
        }
        path.push(token);
        if tokens.next_if(|&&token| token == "::").is_none() {
            break;
        }
        if tokens.peek().is_some_and(|&&token| token == "<") {
            break;
        }
    }
    found.push(path);
}

/// The module of the crate that `path`, written in `module`, leads to.
fn resolve(module: &[String], path: &[&str], modules: &BTreeSet<Vec<String>>) -> Option<Vec<String>> {
    let child = |parent: &[String], name: &str| [parent, &[name.to_owned()]].concat();
    let mut names = path.iter().copied().peekable();
    let mut target = match names.next()? {
        "crate" => Vec::new(),
        "self" => module.to_vec(),
        "super" => module.split_last()?.1.to_vec(),
        name => Some(child(module, name)).filter(|child| modules.contains(child))?,
    };
    while names.next_if_eq(&"super").is_some() {
        target.pop()?;
    }
    for name in names {
        let next = child(&target, name);
        if !modules.contains(&next) {
            break;
        }
        target = next;
    }
    Some(target)
}

/// The shortest circle through each file, each once.
fn circles(imports: &Imports) -> BTreeSet<String> {
    imports.keys().filter_map(|file| circle(file, imports)).collect()
}

/// The shortest circle through `file`, beginning with its first file in order.
fn circle(file: &str, imports: &Imports) -> Option<String> {
    let mut importers = BTreeMap::new();
    let mut queue = VecDeque::from([file]);
    while let Some(importer) = queue.pop_front() {
        for imported in imports.get(importer).into_iter().flatten() {
            if !importers.contains_key(imported.as_str()) {
                importers.insert(imported.as_str(), importer);
                queue.push_back(imported);
            }
        }
    }
    let mut circle = vec![*importers.get(file)?];
    while *circle.last()? != file {
        circle.push(importers[circle.last()?]);
    }
    circle.reverse();
    let first = (0..circle.len()).min_by_key(|&at| circle[at])?;
    circle.rotate_left(first);
    circle.push(circle[0]);
    Some(circle.join(" -> "))
}

/// The compiler denies unsafe code (`[workspace.lints]`) where it is not allowed.
#[test]
fn unsafe_code_has_one_room_in_a_crate() {
    let allows = |source: &Source| {
        let mut attributes = source.text.lines().filter(|line| line.trim_start().starts_with('#'));
        attributes.any(|line| line.contains("unsafe_code") && !line.contains("forbid("))
    };
    let found: BTreeSet<_> = all().into_iter().filter(allows).map(|source| source.path).collect();
    let rooms = ["common/src", "local/src", "sidecar/src", "tests/lab/src", "tests/xtask/src"];
    let rooms = rooms.map(|source| format!("{source}/sys.rs"));
    // Its allocator counts.
    let test = "local/engine/tests/memory.rs".to_owned();
    assert_eq!(found, rooms.into_iter().chain([test]).collect());
}

#[test]
fn every_crate_has_the_lints_of_the_workspace() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("the workspace's manifest");
    let members = manifest.lines().find_map(|line| line.strip_prefix("members = ")).expect("its members");
    for member in members.split('"').skip(1).step_by(2) {
        let manifest = fs::read_to_string(root().join(member).join("Cargo.toml")).expect("a manifest");
        assert!(manifest.contains("[lints]\nworkspace = true"), "{member}");
    }
}
