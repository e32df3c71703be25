//! A toolchain that compiles for musl, for both architectures.
//!
//! It uses the rustc of PATH if that has the standard library for the musl targets, as rustup installs it. On Debian, where
//! only Debian's packages may be available, Debian's rustc is unpacked into target/tools together with the source of its
//! standard library, which is compiled for musl once.
//!
//! In both cases zig links, and provides musl in a fixed version. gh-net contains no C, so zig compiles nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::ARCHITECTURES;
use crate::shell::{self, PLAIN};
use crate::tools;

/// The programs that compile and link.
pub(crate) struct Toolchain {
    /// The folder with zig and cargo-zigbuild.
    zig: PathBuf,
    /// The folder that Debian's rustc was unpacked into, if that one is used.
    debian: Option<PathBuf>,
}

/// The target triple of an architecture.
pub(super) fn target(architecture: &str) -> String {
    format!("{architecture}-unknown-linux-musl")
}

impl Toolchain {
    /// Finds the programs, and installs those that are missing.
    pub(crate) fn ready() -> Result<Self> {
        let debian = if rustc_has_musl()? { None } else { Some(debian_rustc()?) };
        Ok(Self { zig: zig()?, debian })
    }

    /// `cargo` with a subcommand, such as `zigbuild`, set up to use this toolchain.
    pub(super) fn cargo(&self, subcommand: &str) -> Command {
        let program = match subcommand {
            "zigbuild" => self.zig.join("bin/cargo-zigbuild"),
            _ => cargo_program(),
        };
        let mut command = Command::new(program);
        command.arg(subcommand).env("CARGO_ZIGBUILD_ZIG_PATH", self.zig.join("ziglang/zig"));
        if let Some(debian) = &self.debian {
            use_rustc(&mut command, debian);
        }
        command
    }
}

fn rustc_has_musl() -> Result<bool> {
    let output = Command::new("rustc").args(["--print", "sysroot"]).output().context("starting rustc")?;
    let sysroot = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    Ok(ARCHITECTURES.iter().all(|name| sysroot.join("lib/rustlib").join(target(name)).exists()))
}

/// zig and cargo-zigbuild, from PyPI.
fn zig() -> Result<PathBuf> {
    tools::unpacked("zig-0.17.1", |folder| {
        tools::pip_install("linking for musl", "tests/xtask/src/dist/zig.txt", folder)
    })
}

/// Debian's rustc and the source of its standard library.
fn debian_rustc() -> Result<PathBuf> {
    ensure!(
        Path::new("/usr/bin/apt-get").exists(),
        "rustc lacks the standard library of musl: rustup target add {}",
        ARCHITECTURES.map(target).join(" ")
    );
    // The name contains the required Rust version: when that rises, an older unpacked rustc is not used.
    tools::unpacked(concat!("rustc-with-musl-", env!("CARGO_PKG_RUST_VERSION")), |folder| {
        let mut packages = vec!["rustc-web".to_owned(), "rust-web-src".to_owned()];
        if tools::is_apt_ours() {
            shell::run("apt-get update -q", PLAIN)?;
        }
        packages.extend(dependencies("rustc-web", "libstd-rust-")?);
        packages.extend(dependencies("libstd-rust-web-dev", "libstd-rust-")?);
        // LLVM depends on further libraries, so it is installed by apt; without root, it must be installed already.
        let llvm = dependencies(packages.last().expect("two were added above"), "libllvm")?.join(" ");
        if tools::is_apt_ours() {
            tools::apt_install(&llvm)?;
        }
        shell::run_in(folder, &format!("apt-get download -q {}", packages.join(" ")), PLAIN)?;
        for entry in fs::read_dir(folder)? {
            let package = entry?.path();
            shell::run(&format!("dpkg-deb --extract {} {}", package.display(), folder.display()), PLAIN)?;
            fs::remove_file(package)?;
        }
        standard_library(folder)
    })
}

/// Compiles the standard library for musl like rustup's, and puts it where rustc looks for it. cargo builds it as a
/// dependency of an empty crate.
fn standard_library(debian: &Path) -> Result<()> {
    const MANIFEST: &str = "[package]\nname = \"nothing\"\nedition = \"2024\"\n\n[lib]\npath = \"nothing.rs\"\n\n\
        [profile.release]\ncodegen-units = 1\n\n[workspace]\n";
    let work = debian.join("work");
    fs::create_dir_all(&work)?;
    fs::write(work.join("Cargo.toml"), MANIFEST)?;
    fs::write(work.join("nothing.rs"), "")?;
    let mut cargo = Command::new(cargo_program());
    cargo.args(["build", "--release", "-Zbuild-std=std"]).current_dir(&work).env("RUSTC_BOOTSTRAP", "1");
    for name in ARCHITECTURES {
        cargo.args(["--target", &target(name)]);
    }
    use_rustc(&mut cargo, debian);
    // All sources are in this folder, whose path is remapped. LTO needs the bitcode.
    cargo.env("CARGO_HOME", work.join("cargo")).env("CARGO_TARGET_DIR", work.join("target"));
    let remap = format!("--remap-path-prefix={}=/rustc", debian.display());
    cargo.env("CARGO_ENCODED_RUSTFLAGS", format!("-Cembed-bitcode=yes\x1f{remap}"));
    shell::run_command(&mut cargo)
        .context("compiling the standard library; is rustc's libllvm installed?")?;
    for name in ARCHITECTURES {
        let sysroot = debian.join("usr/lib/rustlib").join(target(name)).join("lib");
        fs::create_dir_all(&sysroot)?;
        for entry in fs::read_dir(work.join("target").join(target(name)).join("release/deps"))? {
            let library = entry?.path();
            if library.extension().is_some_and(|extension| extension == "rlib") {
                let file = library.file_name().expect("an entry has a name");
                fs::copy(&library, sysroot.join(file))?;
            }
        }
    }
    fs::remove_dir_all(work)?;
    Ok(())
}

fn cargo_program() -> PathBuf {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()).into()
}

fn use_rustc(command: &mut Command, debian: &Path) {
    let libraries = debian.join(format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH));
    command.env("RUSTC", debian.join("usr/bin/rustc")).env("LD_LIBRARY_PATH", libraries);
}

/// The dependencies of a package whose names begin with `prefix`.
fn dependencies(package: &str, prefix: &str) -> Result<Vec<String>> {
    let output =
        Command::new("apt-cache").args(["depends", package]).output().context("starting apt-cache")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let names = text.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    let names: Vec<_> = names.filter(|name| name.starts_with(prefix)).map(str::to_owned).collect();
    ensure!(
        !names.is_empty(),
        "apt knows no {package}; rustup target add {}",
        ARCHITECTURES.map(target).join(" ")
    );
    Ok(names)
}
