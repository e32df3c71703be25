//! The scripts of GitHub's workflows, as far as they can be tested here: they are extracted from the workflows and run
//! with a fake gh that records its arguments.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use gh_net_tests::executable;
use gh_net_tests::lab::skip_without;
use gh_net_tests::root;
use tempfile::TempDir;

fn workflow(name: &str) -> String {
    fs::read_to_string(root().join(".github/workflows").join(name)).unwrap()
}

fn workflows() -> Vec<(PathBuf, String)> {
    let files = fs::read_dir(root().join(".github/workflows")).unwrap().map(|entry| entry.unwrap().path());
    files.map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

/// The scripts of a workflow, each with the name of its step.
fn scripts(workflow: &str) -> Vec<(String, String)> {
    let indentation = |line: &str| line.len() - line.trim_start().len();
    let mut found = Vec::new();
    let mut name = "";
    let mut lines = workflow.lines().peekable();
    while let Some(line) = lines.next() {
        let Some((key, value)) = line.trim_start_matches([' ', '-']).split_once(": ") else { continue };
        match (key, value) {
            ("name", value) => name = value,
            ("run", "|") => {
                let mut script = String::new();
                while let Some(next) =
                    lines.next_if(|next| next.is_empty() || indentation(next) > indentation(line))
                {
                    script.push_str(next.get(indentation(line) + 2..).unwrap_or_default());
                    script.push('\n');
                }
                found.push((name.to_owned(), script));
            }
            ("run", value) => found.push((name.to_owned(), format!("{value}\n"))),
            _ => {}
        }
    }
    found
}

/// A tag can be moved to other code; a commit can't.
#[test]
fn actions_are_pinned_by_commit() {
    for (path, text) in workflows() {
        for line in text.lines().filter_map(|line| line.trim_start_matches([' ', '-']).strip_prefix("uses: "))
        {
            let (action, version) = line.split_once(" # v").unwrap_or((line, ""));
            let commit = action.split_once('@').map_or("", |(_, commit)| commit);
            let pinned = commit.len() == 40 && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
            assert!(line.starts_with("./") || pinned && !version.is_empty(), "{}: {line}", path.display());
        }
    }
}

/// Values must not be pasted into a script, because a branch or tag may be named `$(…)`.
#[test]
fn scripts_take_values_from_the_environment_only() {
    for (path, text) in workflows() {
        let scripts = scripts(&text);
        assert!(!scripts.is_empty(), "{} has no scripts", path.display());
        for (name, script) in scripts {
            assert!(!script.contains("${{"), "{}: {name}: {script}", path.display());
        }
    }
}

#[test]
fn scripts_pass_shellcheck() {
    if skip_without(&["shellcheck"]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("script");
    for (name, script) in workflows().iter().flat_map(|(_, text)| scripts(text)) {
        // GitHub runs them with `bash -e`.
        fs::write(&file, format!("set -e\n{script}")).unwrap();
        let checked = Command::new("shellcheck").args(["--shell", "bash"]).arg(&file).output().unwrap();
        assert!(checked.status.success(), "{name}: {}", String::from_utf8_lossy(&checked.stdout));
    }
    let notes = Command::new("shellcheck").arg(root().join(".github/release-notes")).output().unwrap();
    assert!(notes.status.success(), "{}", String::from_utf8_lossy(&notes.stdout));
}

/// The jobs of a workflow: name and text of each.
fn jobs(workflow: &str) -> Vec<(String, String)> {
    let mut jobs: Vec<(String, String)> = Vec::new();
    for line in workflow.split_once("\njobs:\n").expect("a workflow has jobs").1.lines() {
        let name = line.strip_prefix("  ").and_then(|line| line.strip_suffix(':'));
        match (name.filter(|name| !name.starts_with([' ', '#'])), jobs.last_mut()) {
            (Some(name), _) => jobs.push((name.to_owned(), String::new())),
            (None, Some((_, text))) => text.push_str(&format!("{line}\n")),
            (None, None) => {}
        }
    }
    assert!(!jobs.is_empty());
    jobs
}

/// Each job says what it may do, on which machine it runs, and for how long.
#[test]
fn jobs_have_what_they_need_and_no_more() {
    for (path, text) in workflows() {
        for (name, job) in jobs(&text) {
            let place = format!("{}: {name}", path.display());
            assert!(job.contains("\n    permissions:\n") || job.starts_with("    permissions:\n"), "{place}");
            assert!(!job.contains("-latest\n"), "{place}: a runner of no fixed release");
            let elsewhere = job.contains("\n    uses: ./");
            assert!(
                elsewhere || job.contains("    runs-on: ") && job.contains("    timeout-minutes: "),
                "{place}"
            );
            let checkouts = job.matches("uses: actions/checkout@").count();
            assert_eq!(
                job.matches("persist-credentials: false").count(),
                checkouts,
                "{place}: the token stays"
            );
        }
    }
}

/// What a workflow runs is named by its content or comes with the runner: nothing is asked for by a name that can be moved.
#[test]
fn nothing_is_fetched_by_a_name_that_moves() {
    for (path, text) in workflows() {
        for (name, script) in scripts(&text) {
            let place = format!("{}: {name}: {script}", path.display());
            for word in
                ["npx", "npm install", "npm i ", "npm exec", "pip install", "curl ", "wget ", "go install"]
            {
                assert!(!script.contains(word), "{place}");
            }
            // Our own Feature is fetched to be compared with what was built, and nothing in it is run.
            let compared = "skopeo copy --preserve-digests \"docker://$FEATURE:";
            let is_compared = script.contains("diff -r unpacked target/feature/gh-net");
            let script = if is_compared { script.replace(compared, "") } else { script };
            // Each would pull an image by its tag. BuildKit's container is such an image.
            for word in
                ["buildx", "docker run", "docker pull", "docker build", "podman ", "skopeo ", "--pull"]
            {
                assert!(!script.contains(word), "{place}");
            }
            for install in script.lines().filter(|line| line.contains("npm ci")) {
                assert!(install.contains("--ignore-scripts"), "{place}");
            }
        }
        for line in text.lines().map(str::trim) {
            let image = ["image:", "container:", "- image:", "uses: docker://"];
            let is_image =
                image.iter().any(|key| line.strip_prefix(key).is_some_and(|name| !name.is_empty()));
            assert!(!is_image || line.contains("@sha256:"), "{}: {line}", path.display());
        }
    }
}

/// The Dockerfile's image with cargo is for people who build by themselves; what a release builds of it pulls nothing.
#[test]
fn the_image_of_a_release_is_built_from_nothing() {
    let dockerfile = fs::read_to_string(root().join("Dockerfile")).unwrap();
    let bases = dockerfile.lines().filter_map(|line| line.strip_prefix("FROM "));
    let bases: Vec<_> = bases.filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(bases, ["${BUILDER}", "scratch", "scratch", "${SIDECAR}", "scratch"]);
    let release = workflow("release.yml");
    let built = "for architecture in amd64 arm64; do\n            buildah build";
    assert!(release.contains(built) && release.contains("SIDECAR=prebuilt-$architecture"), "{release}");
    for architecture in ["amd64", "arm64"] {
        assert!(dockerfile.contains(&format!("FROM scratch AS prebuilt-{architecture}\n")));
    }
    assert!(!dockerfile.contains("# syntax="), "a frontend of its own would be pulled by its tag");
}

/// npm installs what the lock file names, if its hash is that of the lock file.
#[test]
fn the_dev_container_cli_is_locked() {
    let folder = root().join(".github/devcontainer-cli");
    let read = |name: &str| -> serde_json::Value {
        serde_json::from_str(&fs::read_to_string(folder.join(name)).unwrap()).unwrap()
    };
    let (manifest, lock) = (read("package.json"), read("package-lock.json"));
    let packages = lock["packages"].as_object().unwrap();
    assert_eq!(packages[""]["dependencies"], manifest["dependencies"]);
    for (name, version) in manifest["dependencies"].as_object().unwrap() {
        assert_eq!(&packages[&format!("node_modules/{name}")]["version"], version, "an exact version");
    }
    for (name, package) in packages.iter().filter(|(name, _)| !name.is_empty()) {
        let integrity = package["integrity"].as_str().unwrap_or_default();
        assert!(integrity.starts_with("sha512-"), "{name}: {package}");
        let from = package["resolved"].as_str().unwrap_or("https://registry.npmjs.org/");
        assert!(from.starts_with("https://registry.npmjs.org/"), "{name}: {from}");
    }
    assert!(workflow("release.yml").contains("npm ci --ignore-scripts --prefix .github/devcontainer-cli\n"));
}

/// The same sources become the same bytes only by the same compiler.
#[test]
fn one_rust_builds_releases() {
    let release = workflow("release.yml");
    let version = release.lines().find_map(|line| line.strip_prefix("  RUST: ")).unwrap();
    let numbers = |version: &str| version.split('.').map(|it| it.parse().unwrap()).collect::<Vec<u32>>();
    assert_eq!(numbers(version).len(), 3, "an exact version: {version}");
    assert!(numbers(version) >= numbers(env!("CARGO_PKG_RUST_VERSION")), "{version}");
    for (path, text) in workflows() {
        assert!(text.contains(&format!("\n  RUST: {version}\n")), "{}", path.display());
        for line in text.lines().filter(|line| {
            ["rustup toolchain", "rustup default"].iter().any(|command| line.contains(command))
        }) {
            assert!(line.contains("\"$RUST\"") && !line.contains("stable"), "{}: {line}", path.display());
        }
    }
    let dockerfile = fs::read_to_string(root().join("Dockerfile")).unwrap();
    assert!(dockerfile.contains(&format!("\nARG BUILDER=docker.io/library/rust:{version}-alpine\n")));
}

/// Everything that is published can be verified to come from this workflow.
#[test]
fn every_product_is_attested() {
    let release = workflow("release.yml");
    for (job, subject) in [
        ("release", "subject-path: target/dist/*"),
        ("image", "subject-digest: ${{ steps.push.outputs.digest }}"),
        ("feature", "subject-digest: ${{ steps.publish.outputs.digest }}"),
    ] {
        let (_, text) = jobs(&release).into_iter().find(|(name, _)| name == job).unwrap();
        assert!(text.contains("uses: actions/attest-build-provenance@") && text.contains(subject), "{job}");
        assert!(!text.contains("\n        if: steps."), "{job}: a second attempt must not skip it");
        for right in ["id-token: write", "attestations: write"] {
            assert!(text.contains(right), "{job}");
        }
    }
}

/// Jobs have no permissions by default, and jobs that build third-party code can't publish.
#[test]
fn only_the_jobs_that_publish_may_write() {
    for (path, text) in workflows() {
        assert!(text.contains("\npermissions: {}\n"), "{}", path.display());
    }
    let release = workflow("release.yml");
    let may_write = jobs(&release).into_iter().filter(|(_, job)| job.contains(": write"));
    assert_eq!(may_write.map(|(name, _)| name).collect::<Vec<_>>(), ["release", "image", "feature"]);
    assert!(!release.contains("write-all") && !workflow("ci.yml").contains("write"));
}

/// A checkout with a fake gh and docker, which record their arguments. `state` is gh's answer to `release view`.
fn checkout(state: &str) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        executable::write(&path, text.as_bytes()).unwrap();
    };
    for file in [".github/release-notes", "Cargo.toml"] {
        write(file, &fs::read_to_string(root().join(file)).unwrap());
    }
    let version = env!("CARGO_PKG_VERSION");
    write(
        "CHANGELOG.md",
        &format!(
            "# Changelog\n\n## Unreleased\n\n- later\n\n## {version} - 2026-01-31\n\n- this\n\n## 0.0.9 - 2025-01-31\n\n- before\n"
        ),
    );
    for asset in gh_net_tests::release::assets(version) {
        write(&format!("target/dist/{asset}"), &format!("{asset}\n"));
    }
    write(
        "bin/gh",
        &format!(
            "#!/bin/sh
            echo \"$*\" >> asked
            case \"$*\" in
            'release view '*) {state} ;;
            'release download '*) echo \"${{PUBLISHED-SHA256SUMS}}\" ;;
            esac\n"
        ),
    );
    write("bin/docker", "#!/bin/sh\necho \"docker $*\" >> asked\n");
    write("bin/buildah", "#!/bin/sh\necho \"$*\" >> asked\nprintf sha256:1 > digest\n");
    write(
        "bin/skopeo",
        "#!/bin/sh
            mkdir there layer && echo \"$THERE  gh-net-sidecar-x86_64\" > layer/SHA256SUMS
            tar -cf there/ab -C layer . && echo '{\"layers\":[{\"digest\":\"sha256:ab\"}]}' > there/manifest.json\n",
    );
    write("bin/git", "#!/bin/sh\necho 1700000000\n");
    write(
        ".github/devcontainer-cli/node_modules/.bin/devcontainer",
        "#!/bin/sh\necho \"$*\" >> asked\necho \"$CLI_PRINTS\"\n",
    );
    directory
}

/// Runs a step as GitHub does, for this tag. Returns its output and the recorded arguments of gh and docker.
fn run(checkout: &TempDir, step: &str, tag: &str, environment: &[(&str, &str)]) -> (Output, String) {
    let release = workflow("release.yml");
    let (_, script) = scripts(&release).into_iter().find(|(name, _)| name == step).unwrap();
    let mut command = Command::new("bash");
    command.args(["-e", "-c", &script]).current_dir(checkout.path()).env("TAG", tag);
    command.env("PATH", format!("{}:/usr/bin:/bin", checkout.path().join("bin").display()));
    let output = command.envs(environment.iter().copied()).output().unwrap();
    (output, fs::read_to_string(checkout.path().join("asked")).unwrap_or_default())
}

const PUBLISH: &str = "Publish the release";
const TAG: &str = concat!("v", env!("CARGO_PKG_VERSION"));

#[test]
fn a_release_is_a_draft_until_every_asset_is_there() {
    let checkout = checkout("exit 1");
    let (output, asked) = run(&checkout, PUBLISH, TAG, &[]);
    assert!(output.status.success(), "{output:?}");
    let asked: Vec<_> = asked.lines().collect();
    let [view, create, upload, edit] = asked[..] else { panic!("{asked:?}") };
    assert!(view.starts_with("release view"));
    assert!(create.starts_with(&format!("release create {TAG} --verify-tag --draft")), "{create}");
    for asset in gh_net_tests::release::assets(env!("CARGO_PKG_VERSION")) {
        assert!(upload.contains(&format!(" target/dist/{asset} ")), "{upload}");
    }
    assert_eq!(edit, format!("release edit {TAG} --draft=false --latest"));
    assert_eq!(fs::read_to_string(checkout.path().join("notes.md")).unwrap(), "\n- this\n");
}

#[test]
fn a_draft_of_an_earlier_run_is_continued() {
    let (output, asked) = run(&checkout("echo true"), PUBLISH, TAG, &[]);
    assert!(output.status.success(), "{output:?}");
    assert!(!asked.contains("release create") && asked.contains("--draft=false"), "{asked}");
}

#[test]
fn a_published_release_is_never_replaced() {
    let published = checkout("echo false");
    let (output, asked) = run(&published, PUBLISH, TAG, &[]);
    assert!(output.status.success(), "{output:?}");
    assert!(!asked.contains("upload") && !asked.contains("edit"), "{asked}");
    let (output, asked) = run(&published, PUBLISH, TAG, &[("PUBLISHED", "other sums")]);
    assert!(!output.status.success(), "other bytes under the same version are an error");
    assert!(!asked.contains("upload") && !asked.contains("edit"), "{asked}");
}

#[test]
fn a_prerelease_does_not_become_the_latest() {
    if skip_without(&["jq"]) {
        return;
    }
    for (tag, latest) in [("v1.2.3", true), ("v1.2.3-rc.1", false)] {
        let (output, asked) = run(&checkout("echo true"), PUBLISH, tag, &[]);
        assert!(output.status.success(), "{output:?}");
        assert!(asked.ends_with(if latest { "--latest\n" } else { "--prerelease\n" }), "{asked}");

        let environment = [
            ("IMAGE", "example.org/image"),
            ("GITHUB_OUTPUT", "output"),
            ("GITHUB_ACTOR", "me"),
            ("GITHUB_SHA", "1"),
            ("TOKEN", "secret"),
        ];
        let checkout = checkout("");
        let (output, asked) = run(&checkout, "Build and push the image", tag, &environment);
        assert!(output.status.success(), "{output:?}");
        let image = format!("example.org/image:{}", &tag[1..]);
        for architecture in ["amd64", "arm64"] {
            let built = format!("build --platform linux/{architecture} --manifest {image} ");
            let built = asked.lines().find(|line| line.starts_with(&built)).unwrap();
            assert!(built.contains(&format!("--build-arg SIDECAR=prebuilt-{architecture} ")), "{built}");
        }
        let to = |tag: &str| format!("--digestfile digest {image} docker://example.org/image:{tag}\n");
        assert!(asked.contains(&to(&tag[1..])), "{asked}");
        assert_eq!(asked.contains(&to("latest")), latest, "{asked}");
        assert!(!asked.contains("secret"), "a token must not be in the process list: {asked}");
        let digest = fs::read_to_string(checkout.path().join("output")).unwrap();
        assert_eq!(digest, "digest=sha256:1\n");
    }
}

#[test]
fn the_feature_is_published_with_its_hashes_and_what_is_there_already_must_be_the_same() {
    if skip_without(&["jq", "tar", "diff"]) {
        return;
    }
    let step = "Publish the Feature";
    let published =
        r#"{"gh-net":{"publishedTags":["0","0.1","0.1.0","latest"],"digest":"sha256:2","version":"0.1.0"}}"#;
    // What another attempt has published, and the digest of its manifest.
    let there = "sha256:49d259d389afa1fdee74052c89f1ce06404061d07694412624165c03c5aba964";
    for (printed, hash, digest) in [
        (published, "none", Some("sha256:2")),
        (r#"{"gh-net":{}}"#, "1", Some(there)),
        (r#"{"gh-net":{}}"#, "2", None),
    ] {
        let environment = [
            ("FEATURE", "ghcr.io/gh-net/gh-net/gh-net"),
            ("THERE", hash),
            ("GITHUB_OUTPUT", "output"),
            ("GITHUB_ACTOR", "me"),
            ("TOKEN", "secret"),
            ("CLI_PRINTS", printed),
        ];
        let checkout = checkout("");
        let (output, asked) = run(&checkout, step, TAG, &environment);
        assert!(!output.status.success() && asked.is_empty(), "it has no hashes: {output:?}");

        let folder = checkout.path().join("target/feature/gh-net");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("SHA256SUMS"), "1  gh-net-sidecar-x86_64\n").unwrap();
        let (output, asked) = run(&checkout, step, TAG, &environment);
        assert_eq!(output.status.success(), digest.is_some(), "{output:?}");
        assert!(
            asked.contains("features publish target/feature --registry ghcr.io --namespace gh-net/gh-net\n")
        );
        assert!(!asked.contains("secret"), "a token must not be in the process list: {asked}");
        let told = fs::read_to_string(checkout.path().join("output")).unwrap_or_default();
        assert_eq!(told, digest.map_or_else(String::new, |digest| format!("digest={digest}\n")));
    }
}

#[test]
fn a_tag_that_is_not_the_version_or_not_in_the_changelog_is_refused() {
    let checkout = checkout("exit 1");
    let check = |tag| {
        let mut command = Command::new(checkout.path().join(".github/release-notes"));
        let output = command.arg(tag).output().unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(check(TAG), (true, String::new()));
    let (passed, errors) = check("v99.0.0");
    assert!(
        !passed && errors.contains(&format!("v99.0.0 is not the version of Cargo.toml: {TAG}")),
        "{errors}"
    );
    fs::write(checkout.path().join("CHANGELOG.md"), "## Unreleased\n\n- this\n").unwrap();
    let (passed, errors) = check(TAG);
    assert!(!passed && errors.contains("CHANGELOG.md says nothing about"), "{errors}");
}

/// gh installs the asset whose name ends with the machine's type, so exactly one name may end with each.
#[test]
fn each_machine_has_exactly_one_asset_that_gh_selects() {
    let assets = gh_net_tests::release::assets("1.2.3");
    for architecture in ["amd64", "arm64"] {
        let ending = format!("linux-{architecture}");
        let fitting: Vec<_> = assets.iter().filter(|name| name.ends_with(&ending)).collect();
        assert_eq!(fitting, [&gh_net_tests::release::program(architecture)]);
    }
}
