//! `cargo xtask nix`: evaluates, builds and runs all outputs of the flake, without the network, with a stub in place of
//! nixpkgs. `tests/nix/README.md` states what this proves and what it does not.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::shell::{self, PLAIN, root};
use crate::tools;

/// The programs that this needs, and their Debian packages.
const TOOLS: [(&str, &str); 3] = [("nix", "nix-bin"), ("git", "git"), ("readelf", "binutils")];

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A Nix function that evaluates all outputs of a kind and maps each to the name of its package or program.
const DESCRIBE: &str = "
    let
      describe = output:
        if output.type or null == \"derivation\" then builtins.seq output.drvPath output.pname
        else if output.type or null == \"app\" then baseNameOf output.program
        else builtins.mapAttrs (_: describe) output;
    in describe";

/// Installs the programs that [`run`] needs.
pub(crate) fn ensure_tools() -> Result<()> {
    tools::ensure_programs("the flake's check", &TOOLS)
}

pub(crate) fn run() -> Result<()> {
    ensure_tools()?;
    let nix = Nix::new()?;
    let system = format!("{}-linux", env::consts::ARCH);
    nix.run("flake show")?;
    outputs(&nix)?;
    nix.run("flake check --no-build")?;
    let output = nix.run("fmt")?;
    ensure!(output.contains("nixfmt-tree would format"), "`nix fmt` started something else: {output:?}");
    nix.run(&format!("build --no-link .#checks.{system}.fmt"))?;
    nix.run("build --no-link .#sidecar-static-x86_64 .#sidecar-static-aarch64")?;
    for (app, program) in [(".#local", "gh-net"), (".", "gh-net"), (".#sidecar", "gh-net-sidecar")] {
        let output = nix.run(&format!("run {app} -- --version"))?;
        ensure!(output.trim() == format!("{program} {VERSION}"), "not the version of {program}: {output:?}");
    }
    bridges(&nix)?;
    println!("\n✓ the flake passed, with a stub in place of nixpkgs");
    Ok(())
}

/// Checks that the flake has exactly these outputs, and that each evaluates for both systems.
fn outputs(nix: &Nix) -> Result<()> {
    let local = "gh-net";
    let sidecar = "gh-net-sidecar";
    let wanted = json!({
        "apps": { "default": local, "local": local, "sidecar": sidecar },
        "checks": {
            "clippy": "gh-net-clippy",
            "fmt": "gh-net-fmt",
            "local": local,
            "sidecar": sidecar,
            "tests": "gh-net-tests",
        },
        "devShells": { "default": "nix-shell" },
        "formatter": "treefmt",
        "packages": {
            "default": local,
            "local": local,
            "sidecar": sidecar,
            "sidecar-static": sidecar,
            "sidecar-static-aarch64": sidecar,
            "sidecar-static-x86_64": sidecar,
        },
    });
    let wanted = wanted.as_object().context("an object")?;
    let shown: Value = serde_json::from_str(&nix.run("flake show --json")?)?;
    let kinds: Vec<_> = shown.as_object().context("an object")?.keys().collect();
    ensure!(kinds == Vec::from_iter(wanted.keys()), "the flake's outputs are {kinds:?}");
    for (kind, wanted) in wanted {
        let described = nix.command(&["eval", "--json", &format!(".#{kind}"), "--apply", DESCRIBE])?;
        let described: Value = serde_json::from_str(&described)?;
        let wanted = json!({ "aarch64-linux": wanted, "x86_64-linux": wanted });
        ensure!(described == wanted, "the flake's {kind} are {described:#}\nexpected: {wanted:#}");
    }
    Ok(())
}

/// Checks that the package in the store bridges the lab's codespace with the package's own sidecar.
fn bridges(nix: &Nix) -> Result<()> {
    let built: Value = serde_json::from_str(&nix.run("build --no-link --json .#local")?)?;
    let package = built.pointer("/0/outputs/out").and_then(Value::as_str).context("the package's path")?;
    let program = format!("{package}/bin/gh-net");
    shell::run("cargo test --locked --workspace --test package", &[("GH_NET_TEST_PACKAGE", program.as_str())])
}

/// Nix with its own store and settings. Those of the machine, if any, are not touched.
struct Nix {
    /// Store, state and stub. It must be in a directory that the lab's hosts share with the machine.
    folder: PathBuf,
    environment: Vec<(&'static str, String)>,
}

impl Nix {
    fn new() -> Result<Self> {
        let folder = PathBuf::from(format!("/var/tmp/gh-net-nix-{}", std::process::id()));
        fs::create_dir(&folder).with_context(|| format!("making {}", folder.display()))?;
        let mut nix = Self { folder, environment: Vec::new() };
        let machine = Machine::prepare()?;
        machine.write_stub(&nix.folder.join("nixpkgs"))?;
        let within = |name: &str| nix.folder.join(name).display().to_string();
        nix.environment = vec![
            // A real store path, not a chroot store in place of /nix/store: programs run from where they are built.
            ("NIX_STORE_DIR", within("store")),
            ("NIX_STATE_DIR", within("state")),
            ("NIX_LOG_DIR", within("log")),
            ("NIX_CONF_DIR", within("conf")),
            ("NIX_USER_CONF_FILES", String::new()),
            ("XDG_CACHE_HOME", within("cache")),
            ("NIX_CONFIG", machine.settings()),
            // The checkout may belong to another user.
            ("GIT_CONFIG_COUNT", "1".to_owned()),
            ("GIT_CONFIG_KEY_0", "safe.directory".to_owned()),
            ("GIT_CONFIG_VALUE_0", root().display().to_string()),
        ];
        Ok(nix)
    }

    /// Runs `nix` with these words and returns its stdout.
    fn run(&self, line: &str) -> Result<String> {
        self.command(&line.split(' ').collect::<Vec<_>>())
    }

    fn command(&self, arguments: &[&str]) -> Result<String> {
        let shown =
            arguments.iter().map(|argument| argument.split_whitespace().collect::<Vec<_>>().join(" "));
        let shown = shown.collect::<Vec<_>>().join(" ");
        println!("\n$ nix {shown}");
        let started = Instant::now();
        let stub = format!("path:{}", self.folder.join("nixpkgs").display());
        // Arguments after `--` are for the program that nix runs.
        let end = arguments.iter().position(|argument| *argument == "--").unwrap_or(arguments.len());
        let (own, program) = arguments.split_at(end);
        let mut command = Command::new("nix");
        command.current_dir(root()).env_remove("NIX_REMOTE").envs(self.environment.iter().cloned());
        command.args(own).args(["--offline", "--no-write-lock-file", "--override-input", "nixpkgs", &stub]);
        let output = command.args(program).stderr(Stdio::inherit()).output().context("starting nix")?;
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        println!("{}\n({:.0} s)", stdout.trim_end(), started.elapsed().as_secs_f64());
        ensure!(output.status.success(), "`nix {shown}` failed");
        Ok(stdout)
    }
}

impl Drop for Nix {
    fn drop(&mut self) {
        // Files in a store are read-only, even for their owner.
        let chmod = Command::new("chmod").args(["-R", "u+w"]).arg(&self.folder).status();
        if let Err(error) = chmod.and_then(|_| fs::remove_dir_all(&self.folder)) {
            println!("removing {}: {error}", self.folder.display());
        }
    }
}

/// The machine's compiler and crates, which builds with the stub use.
struct Machine {
    sysroot: String,
    /// `rustc`'s version.
    version: String,
    vendor: PathBuf,
    /// Cargo's target directory. It is kept, because compiling dependencies takes long.
    target: PathBuf,
}

impl Machine {
    fn prepare() -> Result<Self> {
        let rustc = |arguments: &[&str]| -> Result<String> {
            let output = Command::new("rustc").args(arguments).output().context("starting rustc")?;
            ensure!(output.status.success(), "rustc {arguments:?} failed");
            Ok(String::from_utf8(output.stdout)?.trim().to_owned())
        };
        let version = rustc(&["--version"])?.split(' ').nth(1).context("rustc's version")?.to_owned();
        let sysroot = rustc(&["--print", "sysroot"])?;
        let (vendor, target) = (root().join("target/nix/vendor"), root().join("target/nix/cargo"));
        fs::create_dir_all(&target)?;
        shell::run("cargo vendor --quiet --locked --versioned-dirs target/nix/vendor", PLAIN)?;
        Ok(Self { sysroot, version, vendor, target })
    }

    /// Nix's settings; builds see the machine's compiler and crates.
    fn settings(&self) -> String {
        let fixed = ["/bin", "/usr", "/lib", "/lib64", "/etc/alternatives"].map(Path::new);
        let own = [Path::new(&self.sysroot), &self.vendor, &self.target];
        let paths = fixed.into_iter().chain(own).filter(|path| path.exists());
        let paths = paths.map(|path| path.display().to_string()).collect::<Vec<_>>().join(" ");
        format!(
            "experimental-features = nix-command flakes\n\
             substituters =\n\
             build-users-group =\n\
             flake-registry =\n\
             warn-dirty = false\n\
             log-lines = 50\n\
             extra-sandbox-paths = {paths}\n"
        )
    }

    /// Writes a copy of the stub with this machine's paths.
    fn write_stub(&self, folder: &Path) -> Result<()> {
        fs::create_dir(folder)?;
        for entry in fs::read_dir(root().join("tests/nix/nixpkgs"))? {
            let file = entry?.path();
            fs::copy(&file, folder.join(file.file_name().context("a file")?))?;
        }
        let Self { sysroot, version, vendor, target } = self;
        let machine = format!(
            "{{\n  path = \"{sysroot}/bin:/usr/bin:/bin\";\n  rustc = \"{version}\";\n  vendor = \"{}\";\n  target = \
             \"{}\";\n}}\n",
            vendor.display(),
            target.display()
        );
        fs::write(folder.join("machine.nix"), machine).context("writing the stub")
    }
}
