//! devcontainer-feature.json is what the specification says it may be, and agrees with what lies around it.
//!
//! The types are those of <https://containers.dev/implementors/features/>, of the properties we use; `devcontainer
//! features package` takes others without a word. Where the network is, `.github/workflows/ci.yml` holds it against the
//! specification's own schema. That knows no `keywords`, which the page names: we have none.

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

/// We have none that are boolean.
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
fn it_has_the_properties_of_the_specification_and_no_others() {
    let manifest = manifest();
    // It must be the name of its directory, and is a part of the image's.
    assert_eq!(manifest.id, "gh-net");
    assert!(!manifest.name.is_empty());
    assert!(!manifest.description.contains(['`', '*', '<']), "tools show it as it is");
    for url in [&manifest.documentation_url, &manifest.license_url] {
        assert!(url.starts_with("https://github.com/gh-net/gh-net/"), "{url}");
    }
    for (name, option) in &manifest.options {
        assert_eq!(option.kind, "string", "{name}");
        assert!(option.allowed.is_none() || option.proposals.is_none(), "{name}: one of the two");
        assert!(option.allowed.as_ref().is_none_or(|allowed| allowed.contains(&option.default)), "{name}");
        assert!(!option.description.is_empty(), "{name}");
    }
    for other in &manifest.installs_after {
        assert!(!other.contains(':'), "{other}: what it is installed after is named without a version");
    }
}

#[test]
fn it_asks_for_the_least_that_makes_a_tunnel() {
    assert_eq!(manifest().cap_add, ["NET_ADMIN"]);
}

#[test]
fn one_release_has_one_version() {
    let version = env!("CARGO_PKG_VERSION");
    let manifest = manifest();
    assert_eq!(manifest.version, version);
    assert_eq!(manifest.options["version"].default, version);
    assert!(read(feature("install.sh")).contains(&format!("\nRELEASE={version}\n")));
    let example = read(root().join("docs/examples/compose.yaml"));
    assert!(example.contains(&format!("image: ghcr.io/gh-net/gh-net-sidecar:{version}\n")), "{example}");
    let major = version.split('.').next().unwrap();
    assert!(read(feature("NOTES.md")).contains(&format!("\"ghcr.io/gh-net/gh-net/gh-net:{major}\"")));
}

/// The very text is compared where the tool is that makes it.
#[test]
fn the_readme_is_of_this_manifest_and_these_notes() {
    let readme = read(feature("README.md"));
    assert!(readme.contains(&read(feature("NOTES.md"))), "the notes; see `cargo xtask test-containers`");
    for (name, option) in manifest().options {
        let row = format!("| {name} | {} | {} | {} |", option.description, option.kind, option.default);
        assert!(readme.contains(&row), "{row}");
    }
}

/// The notes show what the script writes.
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
