//! `cargo xtask dist`: builds a release's assets in target/dist. The programs are static, for x86_64 and aarch64, and
//! reproducible with the same rustc: `--check` builds them a second time, at other paths, and compares.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use gh_net_lab::release::{self, sidecar};

use crate::documents;
use crate::shell::{self, PLAIN, root};
pub(crate) use toolchain::Toolchain;
use toolchain::target;

mod archive;
mod toolchain;

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// As printed by `uname -m`.
const ARCHITECTURES: [&str; 2] = ["x86_64", "aarch64"];
const SIDECAR: &str = "gh-net-sidecar";

/// What is built a second time to check that it is reproducible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Again {
    Nothing,
    /// One sidecar: it contains everything that could differ, and takes only a minute or two.
    Sidecar,
    Everything,
}

/// The paths of a build. None of them may appear in the programs.
struct Place {
    workspace: PathBuf,
    target: PathBuf,
    cargo_home: PathBuf,
}

/// Builds target/dist, and returns its path.
pub(crate) fn run(toolchain: &Toolchain, again: Again) -> Result<PathBuf> {
    let here = Place::here()?;
    here.fetch(toolchain)?;
    let dist = root().join("target/dist");
    programs(&here, toolchain, &dist)?;
    match again {
        Again::Nothing => {}
        Again::Sidecar => same(&[sidecar(ARCHITECTURES[0])], &dist, |place, dist| {
            place.build(toolchain, SIDECAR, &ARCHITECTURES[..1], None)?;
            place.collect(SIDECAR, ARCHITECTURES[0], &dist.join(sidecar(ARCHITECTURES[0])))
        })?,
        Again::Everything => {
            let names: Vec<_> =
                ARCHITECTURES.into_iter().flat_map(|name| [sidecar(name), gh_net(name)]).collect();
            same(&names, &dist, |place, dist| programs(place, toolchain, dist))?;
        }
    }
    finish(&dist)?;
    Ok(dist)
}

/// An architecture's name at GitHub.
fn forge_name(architecture: &str) -> &'static str {
    if architecture == "aarch64" { "arm64" } else { "amd64" }
}

/// The name of gh-net for an architecture.
pub(crate) fn gh_net(architecture: &str) -> String {
    release::program(forge_name(architecture))
}

/// Builds the sidecars, and gh-net with them inside.
fn programs(place: &Place, toolchain: &Toolchain, dist: &Path) -> Result<()> {
    empty(dist)?;
    place.build(toolchain, SIDECAR, &ARCHITECTURES, None)?;
    for architecture in ARCHITECTURES {
        place.collect(SIDECAR, architecture, &dist.join(sidecar(architecture)))?;
    }
    place.build(toolchain, "gh-net", &ARCHITECTURES, Some(dist))?;
    for architecture in ARCHITECTURES {
        place.collect("gh-net", architecture, &dist.join(gh_net(architecture)))?;
    }
    Ok(())
}

/// Archives and checksums of the programs in `dist`.
fn finish(dist: &Path) -> Result<()> {
    let mut assets: Vec<String> =
        ARCHITECTURES.into_iter().flat_map(|name| [gh_net(name), sidecar(name)]).collect();
    let staging = root().join("target/dist-staging");
    for architecture in ARCHITECTURES {
        let name = release::archive(VERSION, forge_name(architecture));
        stage(dist, architecture, &staging.join(&name))?;
        archive::pack(&staging, &name, dist)?;
        assets.push(format!("{name}.tar.gz"));
    }
    assets.sort();
    let sums = assets.iter().map(|name| archive::checksum(&dist.join(name))).collect::<Result<String>>()?;
    fs::write(dist.join("SHA256SUMS"), sums)?;
    feature(dist, &root().join("target/feature/gh-net"))
}

/// Lays out the dev container Feature to be published: with the hashes of the sidecars in `dist`, so that it need not trust
/// the server that it downloads them from.
fn feature(dist: &Path, folder: &Path) -> Result<()> {
    empty(folder)?;
    let source = root().join("devcontainer-feature/src/gh-net");
    for entry in fs::read_dir(&source).with_context(|| format!("reading {}", source.display()))? {
        let file = entry?;
        fs::copy(file.path(), folder.join(file.file_name()))
            .with_context(|| format!("copying {}", file.path().display()))?;
    }
    let sums = ARCHITECTURES.map(|name| archive::checksum(&dist.join(sidecar(name))));
    let sums = sums.into_iter().collect::<Result<String>>()?;
    fs::write(folder.join("SHA256SUMS"), sums).context("writing the Feature's hashes")
}

/// Lays out the content of an archive, to be unpacked into /usr/local or ~/.local.
fn stage(dist: &Path, architecture: &str, folder: &Path) -> Result<()> {
    empty(folder)?;
    let copy = |from: &Path, to: &str| {
        let to = folder.join(to);
        fs::create_dir_all(to.parent().expect("it is in a folder"))?;
        fs::copy(from, &to).with_context(|| format!("copying {}", from.display()))
    };
    copy(&dist.join(gh_net(architecture)), "bin/gh-net")?;
    for architecture in ARCHITECTURES {
        let name = sidecar(architecture);
        copy(&dist.join(&name), &format!("libexec/gh-net/{name}"))?;
    }
    for document in ["README.md", "LICENSE"] {
        copy(&root().join(document), document)?;
    }
    documents::manual(&folder.join("share"))
}

/// Builds `names` again from a copy of the sources, with everything at other paths, and compares them with those in
/// `dist`.
fn same(names: &[String], dist: &Path, build: impl Fn(&Place, &Path) -> Result<()>) -> Result<()> {
    let elsewhere = std::env::temp_dir().join(format!("gh-net-again-{}", std::process::id()));
    let place = Place::elsewhere(&elsewhere)?;
    let again = elsewhere.join("dist");
    empty(&again)?;
    build(&place, &again)?;
    for name in names {
        let (first, second) = (dist.join(name), again.join(name));
        ensure!(
            fs::read(&first)? == fs::read(&second)?,
            "the build is not reproducible: {} and {} differ",
            first.display(),
            second.display()
        );
        println!("reproducible: {name}");
    }
    fs::remove_dir_all(elsewhere)?;
    Ok(())
}

impl Place {
    fn here() -> Result<Self> {
        let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
        let home = home
            .or_else(|| Some(std::env::home_dir()?.join(".cargo")))
            .context("neither CARGO_HOME nor HOME is set")?;
        Ok(Self { workspace: root().to_owned(), target: root().join("target/musl"), cargo_home: home })
    }

    /// A copy of the sources in its own folder. cargo's downloads are shared, at another path.
    fn elsewhere(folder: &Path) -> Result<Self> {
        let place = Self {
            workspace: folder.join("sources"),
            target: folder.join("target"),
            cargo_home: folder.join("cargo"),
        };
        empty(&place.cargo_home)?;
        std::os::unix::fs::symlink(
            Self::here()?.cargo_home.join("registry"),
            place.cargo_home.join("registry"),
        )?;
        empty(&place.workspace)?;
        // Only the manifests of the tests, because cargo reads those of all members.
        let manifests =
            "tests/Cargo.toml tests/lab/Cargo.toml tests/support/Cargo.toml tests/xtask/Cargo.toml";
        let sources = format!("Cargo.toml Cargo.lock common sidecar local {manifests}");
        shell::run(&format!("cp --recursive --parents {sources} {}", place.workspace.display()), PLAIN)?;
        Ok(place)
    }

    /// Downloads all dependencies, so that their paths are known.
    fn fetch(&self, toolchain: &Toolchain) -> Result<()> {
        let mut cargo = toolchain.cargo("fetch");
        cargo.args(["--quiet", "--locked"]).current_dir(&self.workspace);
        shell::run_command(&mut cargo)
    }

    fn build(
        &self,
        toolchain: &Toolchain,
        package: &str,
        architectures: &[&str],
        embedded: Option<&Path>,
    ) -> Result<()> {
        let mut cargo = toolchain.cargo("zigbuild");
        cargo.args(["--profile", "shipped", "--locked"]);
        // Selecting both packages gives shared dependencies the same features, so they are compiled once.
        cargo.args(["--package", SIDECAR, "--package", "gh-net", "--bin", package]);
        for architecture in architectures {
            cargo.args(["--target", &target(architecture)]);
        }
        cargo.current_dir(&self.workspace);
        cargo.env("CARGO_HOME", &self.cargo_home).env("CARGO_TARGET_DIR", &self.target);
        // Cargo's separator between flags, which does not occur in our paths.
        cargo.env("CARGO_ENCODED_RUSTFLAGS", self.flags()?.join("\x1f"));
        cargo.env("GH_NET_EMBED_SIDECARS", embedded.unwrap_or(Path::new("")));
        shell::run_command(&mut cargo)
    }

    fn flags(&self) -> Result<Vec<String>> {
        // musl comes from zig.
        let mut flags = vec!["-Clink-self-contained=no".to_owned()];
        // If several prefixes match, the last one applies.
        let mut remap =
            |from: &Path, to: &str| flags.push(format!("--remap-path-prefix={}={to}", from.display()));
        remap(&self.workspace, "/gh-net");
        remap(&self.target, "/target");
        for registry in
            fs::read_dir(self.cargo_home.join("registry/src")).context("cargo has fetched sources")?
        {
            remap(&registry?.path(), "/crates");
        }
        Ok(flags)
    }

    fn collect(&self, program: &str, architecture: &str, to: &Path) -> Result<()> {
        let built = self.target.join(target(architecture)).join("shipped").join(program);
        fs::copy(&built, to).with_context(|| format!("copying {} to {}", built.display(), to.display()))?;
        Ok(())
    }
}

/// Creates an empty folder, after removing an existing one.
fn empty(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("removing {}", folder.display()))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_feature_gets_the_hashes_of_the_sidecars() {
        let work = tempfile::tempdir().unwrap();
        let (dist, to) = (work.path().join("dist"), work.path().join("feature/gh-net"));
        fs::create_dir(&dist).unwrap();
        assert!(feature(&dist, &to).is_err(), "without sidecars there is nothing to publish");
        for name in ARCHITECTURES {
            fs::write(dist.join(sidecar(name)), "abc").unwrap();
        }
        feature(&dist, &to).unwrap();
        // FIPS 180-2, appendix B.1.
        let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(
            fs::read_to_string(to.join("SHA256SUMS")).unwrap(),
            format!("{hash}  gh-net-sidecar-x86_64\n{hash}  gh-net-sidecar-aarch64\n")
        );
        for file in ["install.sh", "devcontainer-feature.json", "NOTES.md", "README.md"] {
            assert!(to.join(file).exists(), "{file}");
        }
    }
}
