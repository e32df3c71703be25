//! The documents say what the programs do.

use std::fs;
use std::path::Path;

use gh_net::cli;
use gh_net_tests::{docs, root};

const DOCUMENTS: [&str; 7] = [
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "docs/how-it-works.md",
    "docs/configuration.md",
    "docs/comparison.md",
    "docs/migration.md",
];

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn the_reference_of_the_configuration_is_that_of_the_types() {
    assert!(
        read(docs::CONFIGURATION) == docs::configuration(),
        "{} is not what `cargo xtask docs` writes: run it and commit",
        docs::CONFIGURATION
    );
}

/// Each command line that a document shows, as a block or within a sentence, is one the program understands.
#[test]
fn the_commands_in_the_documents_are_understood() {
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
            let understood = cli::parse_from(["gh-net".to_owned()].into_iter().chain(words), "gh-net");
            if let Err(error) = understood {
                // `--help` and `--version` are errors to clap, of a kind that goes to stdout.
                assert!(!error.use_stderr(), "{path}: {line}\n{error}");
            }
            seen += 1;
        }
    }
    assert!(seen >= 10, "{seen} command lines");
}

/// What a document points to inside the repository is there.
#[test]
fn the_links_in_the_documents_lead_somewhere() {
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
                "{path} links to {target}, which is not there"
            );
        }
    }
}
