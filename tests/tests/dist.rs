//! The files of a release, as built by `cargo xtask dist`, in the folder that `GH_NET_TEST_DIST` names.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gh_net_tests::lab::{Lab, Options, skip_because, skip_without};
use gh_net_tests::release::{self, sidecar};
use gh_net_tests::root;

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Each architecture by its names of `uname -m` and of GitHub.
const ARCHITECTURES: [(&str, &str); 2] = [("x86_64", "amd64"), ("aarch64", "arm64")];
const MANUAL: [&str; 2] = ["gh-net.1", "gh-net-sidecar.1"];
const PATIENCE: Duration = Duration::from_secs(60);

/// The release's folder. `None` skips the test, after a message, if there is no release or one of `programs` is missing.
fn dist(programs: &[&str]) -> Option<PathBuf> {
    let Some(dist) = env::var_os("GH_NET_TEST_DIST") else {
        skip_because("GH_NET_TEST_DIST, the folder of a release's files, is not set");
        return None;
    };
    (!skip_without(programs)).then(|| dist.into())
}

fn programs(dist: &Path) -> Vec<PathBuf> {
    let names = ARCHITECTURES.iter().flat_map(|(name, forge)| [sidecar(name), release::program(forge)]);
    names.map(|name| dist.join(name)).collect()
}

fn archive(forge: &str) -> String {
    release::archive(VERSION, forge)
}

/// The emulator for programs of another architecture.
fn emulator(architecture: &str) -> Option<String> {
    (architecture != env::consts::ARCH).then(|| format!("qemu-{architecture}-static"))
}

fn run(program: &str, arguments: &[&str], directory: &Path) -> Result<Output> {
    let output = Command::new(program).args(arguments).current_dir(directory).output();
    let output = output.with_context(|| format!("starting {program}"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {arguments:?} ended with {}: {errors}", output.status);
    Ok(output)
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn the_assets_are_complete_and_the_checksums_correct() -> Result<()> {
    let Some(dist) = dist(&[]) else { return Ok(()) };
    let assets: BTreeSet<_> = release::assets(VERSION).into_iter().collect();
    let sums = fs::read_to_string(dist.join("SHA256SUMS"))?;
    let summed: BTreeSet<_> =
        sums.lines().filter_map(|line| Some(line.split_once("  ")?.1.to_owned())).collect();
    let is_summed = |name: &&String| *name != "SHA256SUMS";
    assert_eq!(summed, assets.iter().filter(is_summed).cloned().collect());
    run("sha256sum", &["--check", "--strict", "SHA256SUMS"], &dist)?;
    let there: Result<BTreeSet<_>> =
        fs::read_dir(&dist)?.map(|entry| Ok(entry?.file_name().display().to_string())).collect();
    assert_eq!(there?, assets);
    Ok(())
}

/// The Feature is published with the hashes of the sidecars that are published beside it.
#[test]
fn the_feature_knows_the_hashes_of_its_sidecars() -> Result<()> {
    let Some(dist) = dist(&[]) else { return Ok(()) };
    let feature = dist.with_file_name("feature").join("gh-net");
    let sums = fs::read_to_string(feature.join("SHA256SUMS"))?;
    let named: Vec<_> = sums.lines().filter_map(|line| Some(line.split_once("  ")?.1)).collect();
    assert_eq!(named, ARCHITECTURES.map(|(name, _)| sidecar(name)));
    let sums = feature.join("SHA256SUMS");
    run("sha256sum", &["--check", "--strict", sums.to_str().context("ASCII")?], &dist)?;
    for file in ["install.sh", "devcontainer-feature.json"] {
        let ours = root().join("devcontainer-feature/src/gh-net").join(file);
        assert_eq!(fs::read(feature.join(file))?, fs::read(ours)?, "{file}");
    }
    Ok(())
}

#[test]
fn programs_are_static() -> Result<()> {
    let Some(dist) = dist(&["readelf"]) else { return Ok(()) };
    for (program, machine) in programs(&dist).iter().zip(["X86-64", "X86-64", "AArch64", "AArch64"]) {
        let path = program.to_str().context("an ASCII path")?;
        let printed =
            text(&run("readelf", &["--wide", "--file-header", "--segments", "--dynamic", path], &dist)?);
        assert!(printed.contains(machine), "{path} is for another machine:\n{printed}");
        for word in ["INTERP", "NEEDED"] {
            assert!(!printed.contains(word), "{path} needs a dynamic loader:\n{printed}");
        }
        // The stack is not executable.
        let stack = printed.lines().find(|line| line.contains("GNU_STACK")).context("it has no GNU_STACK")?;
        assert!(stack.contains("RW ") && !stack.contains("RWE"), "{stack}");
    }
    Ok(())
}

#[test]
fn programs_contain_no_paths_of_the_build_machine() -> Result<()> {
    let Some(dist) = dist(&[]) else { return Ok(()) };
    let workspace = root().display().to_string();
    let home = env::home_dir().context("HOME is set")?.join(".cargo").display().to_string();
    let cargo_home = env::var("CARGO_HOME").unwrap_or(home);
    for program in programs(&dist) {
        let bytes = fs::read(&program)?;
        for path in [&workspace, &cargo_home] {
            let shows = bytes.windows(path.len()).any(|window| window == path.as_bytes());
            assert!(!shows, "{} contains {path}", program.display());
        }
    }
    Ok(())
}

#[test]
fn archives_contain_what_an_installation_needs() -> Result<()> {
    let Some(dist) = dist(&[]) else { return Ok(()) };
    for (_, forge) in ARCHITECTURES {
        let name = archive(forge);
        let printed = text(&run("tar", &["-tvzf", &format!("{name}.tar.gz"), "--numeric-owner"], &dist)?);
        let mut entries: Vec<_> = printed
            .lines()
            .map(|line| {
                let words: Vec<_> = line.split_whitespace().collect();
                format!("{} {} {}", words[0], words[1], words[5])
            })
            .collect();
        entries.retain(|entry| !entry.starts_with('d'));
        let wanted = [
            ("-rw-r--r--", "LICENSE"),
            ("-rw-r--r--", "README.md"),
            ("-rwxr-xr-x", "bin/gh-net"),
            ("-rwxr-xr-x", "libexec/gh-net/gh-net-sidecar-aarch64"),
            ("-rwxr-xr-x", "libexec/gh-net/gh-net-sidecar-x86_64"),
            ("-rw-r--r--", "share/bash-completion/completions/gh-net"),
            ("-rw-r--r--", "share/fish/vendor_completions.d/gh-net.fish"),
            ("-rw-r--r--", "share/man/man1/gh-net-sidecar.1"),
            ("-rw-r--r--", "share/man/man1/gh-net.1"),
            ("-rw-r--r--", "share/zsh/site-functions/_gh-net"),
        ];
        assert_eq!(entries, wanted.map(|(mode, file)| format!("{mode} 0/0 {name}/{file}")));

        let folder = Unpacked::new(&dist, &name)?;
        assert_eq!(folder.read("bin/gh-net")?, fs::read(dist.join(release::program(forge)))?);
        for (architecture, _) in ARCHITECTURES {
            let file = sidecar(architecture);
            assert_eq!(folder.read(&format!("libexec/gh-net/{file}"))?, fs::read(dist.join(file))?);
        }
    }
    Ok(())
}

#[test]
fn the_manual_is_readable() -> Result<()> {
    let Some(dist) = dist(&["groff"]) else { return Ok(()) };
    let folder = Unpacked::new(&dist, &archive("amd64"))?;
    for page in MANUAL {
        let path = folder.0.join("share/man/man1").join(page);
        let output =
            run("groff", &["-man", "-ww", "-Tutf8", "-P-cbou", path.to_str().context("ASCII")?], &dist)?;
        assert!(output.stderr.is_empty(), "{page}: {}", String::from_utf8_lossy(&output.stderr));
        let printed = text(&output);
        let words = match page {
            "gh-net.1" => ["--route", "config.toml", "ended at once by a second Ctrl-C", "start"],
            _ => ["attach", "cleanup", "not enough privilege", "status"],
        };
        for word in words {
            assert!(printed.contains(word), "{page} does not contain {word}:\n{printed}");
        }
    }
    Ok(())
}

#[test]
fn bash_completes_flags_and_their_values() -> Result<()> {
    let Some(dist) = dist(&["bash"]) else { return Ok(()) };
    let folder = Unpacked::new(&dist, &archive("amd64"))?;
    let complete = |words: &str| -> Result<BTreeSet<String>> {
        // What bash does when Tab is pressed after these words.
        let script = format!(
            ". share/bash-completion/completions/gh-net
            COMP_WORDS=(gh-net {words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
            _gh__net gh-net \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD - 1]}}\"
            printf '%s\\n' \"${{COMPREPLY[@]}}\""
        );
        Ok(text(&run("bash", &["-uc", &script], &folder.0)?).lines().map(str::to_owned).collect())
    };
    let set = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(complete("--ro")?, set(&["--route"]));
    assert_eq!(complete("--dns ''")?, set(&["false", "local", "split", "split-strict", "true"]));
    assert_eq!(complete("start --trace de")?, set(&["debug"]));
    assert_eq!(complete("--config READ")?, set(&["README.md"]));
    Ok(())
}

#[test]
fn programs_run_in_an_empty_root_directory() -> Result<()> {
    let Some(dist) = dist(&["qemu-aarch64-static"]) else { return Ok(()) };
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    let host = &lab.lan;
    for (architecture, forge) in ARCHITECTURES {
        host.install(&dist.join(sidecar(architecture)), "/run/lab/empty/gh-net-sidecar")?;
        host.install(&dist.join(release::program(forge)), "/run/lab/empty/gh-net")?;
        let emulator = emulator(architecture);
        if let Some(emulator) = &emulator {
            host.install(&Path::new("/usr/bin").join(emulator), "/run/lab/empty/emulator")?;
        }
        let start = emulator.map_or("chroot /run/lab/empty", |_| "chroot /run/lab/empty /emulator");
        for program in ["gh-net", "gh-net-sidecar"] {
            assert_eq!(host.shell(&format!("{start} /{program} --version"))?, format!("{program} {VERSION}"));
            assert!(host.shell(&format!("{start} /{program} --help"))?.contains("Exit codes:"));
        }
        assert_eq!(host.shell(&format!("{start} /gh-net-sidecar cleanup"))?, "nothing to undo");
        let status = host.shell(&format!("{start} /gh-net-sidecar status --json"))?;
        assert!(serde_json::from_str::<serde_json::Value>(&status).is_ok(), "{status}");
        let refused = host.run(&format!("{start} /gh-net --exec /missing --gui false"))?;
        assert!(refused.errors().contains("/missing"), "{}", refused.errors());
    }
    Ok(())
}

#[test]
fn gh_net_alone_is_enough_on_the_laptop() -> Result<()> {
    let Some(dist) = dist(&["cc", "getent"]) else { return Ok(()) };
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    // A module that only the laptop's own glibc can load, like those of VPN clients and directory services.
    let module = compile_nss_module()?;
    lab.laptop.install(&module, "/run/lab/nss/libnss_lab.so.2")?;
    lab.laptop.write("/etc/nsswitch.conf", 0o644, "hosts: files lab dns\n")?;

    let (_, forge) =
        ARCHITECTURES.into_iter().find(|(name, _)| *name == env::consts::ARCH).context("a known one")?;
    let program = dist.join(release::program(forge));
    let gh_net = lab.gh_net_alone(&program, None)?.env("LD_LIBRARY_PATH", "/run/lab/nss");
    let bridge = gh_net.args(&["--ssh", "codespace"]).ready()?;
    assert!(bridge.log().contains("copying the sidecar"), "{}", bridge.log());
    for name in ["10.20.0.10", "www.corp.internal", "nas.corp.internal"] {
        assert_eq!(lab.codespace.shell(&format!("curl -sS http://{name}/"))?, "hello from corp", "{name}");
    }
    let unknown = lab.codespace.shell("dig +noall +comments none.corp.internal")?;
    assert!(unknown.contains("NXDOMAIN"), "{unknown}");
    bridge.stop().map(drop)
}

fn compile_nss_module() -> Result<PathBuf> {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/dist/nss_lab.c");
    let module = Path::new(env!("CARGO_TARGET_TMPDIR")).join("libnss_lab.so.2");
    let to = module.to_str().context("ASCII")?;
    run("cc", &["-Wall", "-Werror", "-O", "-shared", "-fPIC", "-o", to, source], Path::new("/"))?;
    Ok(module)
}

/// The other architecture's gh-net, with its sockets and netlink, in an emulator of system calls.
#[test]
fn gh_net_of_the_other_architecture_works() -> Result<()> {
    let other = if env::consts::ARCH == "aarch64" { 0 } else { 1 };
    let (architecture, forge) = ARCHITECTURES[other];
    let emulator = format!("qemu-{architecture}-static");
    let Some(dist) = dist(&[&emulator]) else { return Ok(()) };
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    lab.codespace.install(&dist.join(sidecar(env::consts::ARCH)), "/run/lab/gh-net-sidecar")?;
    let program = dist.join(release::program(forge));
    let carried =
        ["--exec", "ssh codespace-root '/run/lab/gh-net-sidecar' attach", "--route", "10.20.0.0/16"];
    let bridge = lab.gh_net_alone(&program, Some(&emulator))?.args(&carried).ready()?;
    assert_eq!(lab.codespace.shell("curl -sS http://www.corp.internal/")?, "hello from corp");
    bridge.stop().map(drop)
}

/// The other architecture's sidecar, as far as the emulator supports it: it reports to gh-net why it can't work.
#[test]
fn a_sidecar_of_the_other_architecture_answers() -> Result<()> {
    let other = if env::consts::ARCH == "aarch64" { 0 } else { 1 };
    let (architecture, _) = ARCHITECTURES[other];
    let emulator = format!("qemu-{architecture}-static");
    let Some(dist) = dist(&[&emulator]) else { return Ok(()) };
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    lab.laptop.install(&dist.join(sidecar(architecture)), "/run/lab/gh-net-sidecar")?;
    let mine = dist.join(format!("gh-net-linux-{}", ARCHITECTURES[1 - other].1));
    let carried = ["--exec", &format!("{emulator} /run/lab/gh-net-sidecar attach")];
    let ended = lab.gh_net_alone(&mine, None)?.args(&carried).start()?.finish(PATIENCE)?;
    assert_eq!(ended.code(), 5, "{}", ended.errors());
    assert!(ended.errors().contains("NET_ADMIN"), "{}", ended.errors());
    Ok(())
}

/// An unpacked archive. The folder is removed when this is dropped.
struct Unpacked(PathBuf);

impl Unpacked {
    fn new(dist: &Path, name: &str) -> Result<Self> {
        static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let folder =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("dist-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let unpacked = Self(folder);
        let archive = dist.join(format!("{name}.tar.gz"));
        run("tar", &["-xzf", archive.to_str().context("ASCII")?, "--strip-components=1"], &unpacked.0)?;
        Ok(unpacked)
    }

    fn read(&self, file: &str) -> Result<Vec<u8>> {
        fs::read(self.0.join(file)).with_context(|| format!("reading {file} of an archive"))
    }
}

impl Drop for Unpacked {
    fn drop(&mut self) {
        // If this fails, files are left in the target folder, which is harmless.
        let _ = fs::remove_dir_all(&self.0);
    }
}
