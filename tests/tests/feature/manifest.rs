//! devcontainer-feature.json follows the specification, and agrees with the files around it.
//!
//! The types are those of <https://containers.dev/implementors/features/> for the properties that we use; `devcontainer
//! features package` silently accepts others. With network access, `.github/workflows/ci.yml` validates the manifest with
//! the specification's own schema. We don't use `keywords`: the page names it, but the schema does not contain it.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::{feature, read, root};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Manifest {
    id: String,
    version: String,
    name: String,
    description: String,
    #[serde(rename = "documentationURL")]
    documentation_url: String,
    #[serde(rename = "licenseURL")]
    license_url: String,
    options: BTreeMap<String, FeatureOption>,
    cap_add: Vec<String>,
    installs_after: Vec<String>,
}

/// An option. Boolean ones are not supported here, because there are none.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FeatureOption {
    #[serde(rename = "type")]
    kind: String,
    #[serde(rename = "enum", default)]
    allowed: Option<Vec<String>>,
    #[serde(default)]
    proposals: Option<Vec<String>>,
    default: String,
    description: String,
}

fn manifest() -> Manifest {
    serde_json::from_str(&read(feature("devcontainer-feature.json"))).unwrap()
}

#[test]
fn the_manifest_has_only_specified_properties() {
    let manifest = manifest();
    // Must be the name of its directory, and is part of the image's name.
    assert_eq!(manifest.id, "gh-net");
    assert!(!manifest.name.is_empty());
    assert!(
        !manifest.description.contains(['`', '*', '<']),
        "tools show the description without rendering Markdown"
    );
    for url in [&manifest.documentation_url, &manifest.license_url] {
        assert!(url.starts_with("https://github.com/gh-net/gh-net/"), "{url}");
    }
    for (name, option) in &manifest.options {
        assert_eq!(option.kind, "string", "{name}");
        assert!(
            option.allowed.is_none() || option.proposals.is_none(),
            "{name}: enum and proposals exclude each other"
        );
        assert!(option.allowed.as_ref().is_none_or(|allowed| allowed.contains(&option.default)), "{name}");
        assert!(!option.description.is_empty(), "{name}");
    }
    for other in &manifest.installs_after {
        assert!(!other.contains(':'), "{other}: installsAfter takes no versions");
    }
}

#[test]
fn the_feature_requests_only_the_capability_for_a_tunnel() {
    assert_eq!(manifest().cap_add, ["NET_ADMIN"]);
}

#[test]
fn versions_of_all_parts_agree() {
    let version = env!("CARGO_PKG_VERSION");
    let manifest = manifest();
    assert_eq!(manifest.version, version);
    assert_eq!(manifest.options["version"].default, version);
    assert!(read(feature("install.sh")).contains(&format!("\nRELEASE={version}\n")));
    let example = read(root().join("docs/examples/compose.yaml"));
    assert!(example.contains(&format!("image: ghcr.io/gh-net/gh-net-sidecar:{version}\n")), "{example}");
    let major = version.split('.').next().unwrap();
    let notes = read(feature("NOTES.md"));
    assert!(notes.contains(&format!("\"ghcr.io/gh-net/gh-net/gh-net:{major}\"")));
    assert!(notes.contains(&format!("`ghcr.io/gh-net/gh-net/gh-net:{version}`")));
    assert!(notes.contains(&format!("oci://ghcr.io/gh-net/gh-net/gh-net:{version} ")));
}

/// `cargo xtask test-containers`, which has the generator, compares the whole text.
#[test]
fn the_readme_contains_the_notes_and_all_options() {
    let readme = read(feature("README.md"));
    assert!(readme.contains(&read(feature("NOTES.md"))), "the notes; see `cargo xtask test-containers`");
    for (name, option) in manifest().options {
        let default = if option.default.is_empty() { "-" } else { &option.default };
        let row = format!("| {name} | {} | {} | {default} |", option.description, option.kind);
        assert!(readme.contains(&row), "{row}");
    }
}

/// The notes agree with what the script writes.
#[test]
fn the_notes_show_every_option_and_the_entry_for_sudo() {
    let notes = read(feature("NOTES.md"));
    let script = read(feature("install.sh"));
    let privileges = &manifest().options["privileges"];
    for allowed in privileges.allowed.as_ref().unwrap() {
        assert!(notes.contains(&format!("| `{allowed}` |")), "{allowed}");
        assert!(script.contains(allowed.as_str()), "{allowed}");
    }
    assert!(script.contains("for command in probe attach status 'status --json' cleanup;"));
    for command in ["probe", "attach", "status", "status --json", "cleanup"] {
        let line = format!("    vscode ALL=(root) NOPASSWD: /usr/local/bin/gh-net-sidecar {command}\n");
        assert!(notes.contains(&line), "{line}");
    }
}
