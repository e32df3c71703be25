//! `cargo xtask test-containers`: the Feature, the image and the compose example with a real Docker engine and the real
//! dev container CLI.
//!
//! Public images are not available everywhere, but Debian's packages are. So debootstrap builds one image, which the tests
//! tag with the names of the images it replaces. The tests themselves are in `tests/tests/containers.rs`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use gh_net_lab::{Binaries, missing_of, remove_groups};

use crate::shell::{self, PLAIN, root};
use crate::{sys, tools};

/// Programs needed in addition to the lab's.
const TOOLS: [(&str, &str); 7] = [
    ("busybox", "busybox-static"),
    ("dockerd", "docker.io"),
    ("docker", "docker.io"),
    ("docker-compose", "docker-compose"),
    ("debootstrap", "debootstrap"),
    ("node", "nodejs"),
    ("npm", "npm"),
];

const SUITE: &str = "bookworm";
const MIRROR: &str = "http://deb.debian.org/debian";
/// The packages of a base image for dev containers that the tests need.
const PACKAGES: &str = "ca-certificates,curl,iproute2,iputils-ping,libcap2-bin,openssh-server,sudo";
/// To be increased when the image's recipe below changes.
const REVISION: u32 = 2;

/// Runs all of them.
pub(crate) fn run() -> Result<()> {
    ensure!(tools::is_root(), "test-containers starts a Docker engine, which needs root");
    // It can clean up then, and ends with that command's failure.
    sys::outlive_interrupts()?;
    tools::ensure_lab()?;
    tools::install("the test of containers", || missing_of(&TOOLS))?;
    let tools = devcontainer_cli()?;
    let base = base_image()?;
    let binaries = Binaries::release()?;
    let places = [
        ("GH_NET_TEST_BIN", &binaries.gh_net),
        ("GH_NET_TEST_SIDECAR", &binaries.sidecar),
        ("GH_NET_TEST_TOOLS", &tools),
        ("GH_NET_TEST_BASE_IMAGE", &base),
    ];
    let tests = "cargo test --locked --workspace --test containers -- --ignored --test-threads=1";
    let done = shell::run(tests, &places);
    remove_groups();
    done?;
    println!("\n✓ Feature, image and compose example passed");
    Ok(())
}

/// Installs the dev container CLI that the release publishes the Feature with, by its lock file.
fn devcontainer_cli() -> Result<PathBuf> {
    const FILES: [&str; 2] = ["package.json", "package-lock.json"];
    let folder = root().join("target/tools/devcontainers");
    let locked = root().join(".github/devcontainer-cli");
    let is_current = |name: &str| {
        fs::read(folder.join(name)).is_ok_and(|ours| fs::read(locked.join(name)).is_ok_and(|now| now == ours))
    };
    if !FILES.iter().all(|name| is_current(name)) || !folder.join("node_modules").exists() {
        fs::create_dir_all(&folder)?;
        for name in FILES {
            fs::copy(locked.join(name), folder.join(name)).with_context(|| format!("copying {name}"))?;
        }
        let prefix = folder.display();
        shell::run(&format!("npm ci --ignore-scripts --no-audit --no-fund --prefix {prefix}"), PLAIN)?;
    }
    Ok(folder)
}

/// A tarball of a small Debian with the user vscode, which may use sudo.
fn base_image() -> Result<PathBuf> {
    let folder = root().join("target/containers");
    let image = folder.join(format!("{SUITE}-{REVISION}.tar"));
    if image.exists() {
        return Ok(image);
    }
    fs::create_dir_all(&folder)?;
    // It contains root's files and devices, so it must not be in a directory that others may write to.
    let tree = tempfile::Builder::new().prefix("base-").tempdir_in(&folder)?;
    fill(tree.path(), &image)?;
    Ok(image)
}

/// Builds the image in an empty directory, and packs it.
fn fill(tree: &Path, image: &Path) -> Result<()> {
    let path = tree.display();
    // In its own mount namespace its mounts end with it, even if it is interrupted.
    let debootstrap = "unshare --mount debootstrap --variant=minbase";
    shell::run(&format!("{debootstrap} --include={PACKAGES} {SUITE} {path} {MIRROR}"), PLAIN)?;
    add_user(tree).context("adding the user vscode")?;
    let unfinished = image.with_added_extension("unfinished");
    let to = unfinished.display();
    let excluded = "--exclude=./var/cache/apt/archives/*.deb --exclude=./var/lib/apt/lists/*";
    shell::run(&format!("tar {excluded} --directory {path} --create --file {to} ."), PLAIN)?;
    Ok(fs::rename(&unfinished, image)?)
}

fn add_user(tree: &Path) -> Result<()> {
    let path = tree.display();
    // Without a password, but not locked: sshd refuses locked accounts.
    let user = "--create-home --uid 1000 --shell /bin/bash --password * vscode";
    shell::run(&format!("chroot {path} useradd {user}"), PLAIN)?;
    let entry = tree.join("etc/sudoers.d/vscode");
    fs::write(&entry, "vscode ALL=(root) NOPASSWD:ALL\n")?;
    // sshd's directory is otherwise created only when it starts as a service.
    fs::create_dir_all(tree.join("run/sshd"))?;
    Ok(())
}
