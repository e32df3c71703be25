//! The documents agree with the programs.

use std::fs;
use std::path::Path;

use gh_net::cli;
use gh_net_tests::{docs, root};

const DOCUMENTS: [&str; 11] = [
    "README.md",
    "SECURITY.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "docs/how-it-works.md",
    "docs/sessions.md",
    "docs/configuration.md",
    "docs/audit.md",
    "docs/policy.md",
    "docs/comparison.md",
    "docs/migration.md",
];

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn the_reference_of_the_configuration_is_up_to_date() {
    assert!(
        read(docs::CONFIGURATION) == docs::configuration(),
        "{} is out of date: run `cargo xtask docs` and commit",
        docs::CONFIGURATION
    );
}

/// The program's parser accepts each command line in a document, in blocks and within sentences.
#[test]
fn the_commands_in_the_documents_are_valid() {
    let mut seen = 0;
    for path in DOCUMENTS {
        let text = read(path);
        let blocks = text.lines().filter(|line| line.starts_with("    "));
        let within = text
            .lines()
            .filter(|line| !line.starts_with("    "))
            .flat_map(|line| line.split('`').skip(1).step_by(2));
        for line in blocks.chain(within) {
            let line = line.trim().trim_start_matches("$ ");
            let starts = ["gh-net ", "gh net ", "nix run .#local -- "];
            let Some(rest) = starts.into_iter().find_map(|start| line.strip_prefix(start)) else { continue };
            let mut words = shlex::split(rest).unwrap_or_else(|| panic!("{path}: {line}"));
            words.retain(|word| word != "&");
            let parsed = cli::parse_from(["gh-net".to_owned()].into_iter().chain(words), "gh-net");
            if let Err(error) = parsed {
                // For clap, `--help` and `--version` are errors that are printed to stdout.
                assert!(!error.use_stderr(), "{path}: {line}\n{error}");
            }
            seen += 1;
        }
    }
    assert!(seen >= 10, "{seen} command lines");
}

/// The targets of a document's links within the repository exist.
#[test]
fn the_links_in_the_documents_have_targets() {
    for path in DOCUMENTS {
        let text = read(path);
        for (_, rest) in text.match_indices("](").map(|(at, _)| text.split_at(at + 2)) {
            let target = rest.split([')', '#']).next().unwrap_or_default();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            let folder = Path::new(path).parent().expect("a path of a file");
            assert!(
                root().join(folder).join(target).exists(),
                "{path} links to {target}, which does not exist"
            );
        }
    }
}
