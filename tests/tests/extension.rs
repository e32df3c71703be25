//! The gh extension, with the real gh and real shells. Test programs in place of gh-net show which program the script
//! finds. In the lab, the real gh-net bridges a codespace.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant, SystemTime};

use gh_net_tests::executable;
use gh_net_tests::lab::{Account, Binaries, CODESPACE, Lab, Options, find_program, skip_without};
use gh_net_tests::{release, root};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use tempfile::TempDir;

/// The shells that are used as sh: Debian's, Alpine's, and bash on other systems.
const SHELLS: [&[&str]; 3] = [&["dash"], &["busybox", "sh"], &["bash", "--posix"]];

/// The only tools of the machine that the script may use. Tests provide gh-net, cargo or nix themselves.
const TOOLS: [&str; 8] = ["uname", "readlink", "dirname", "find", "dd", "grep", "chmod", "sh"];

/// Prints how it was started, one fact per line. Line breaks in arguments are printed as `~`.
const PROGRAM: &str = r#"#!/bin/sh
PATH=/usr/bin:/bin
printf '%s\n' "program=$0" "pid=$$" "extension=${GH_NET_EXTENSION-}" "sidecars=${GH_NET_SIDECAR_DIR-}" "directory=$PWD"
for argument; do printf 'argument=%s.\n' "$argument" | tr '\n' '~'; echo; done
exit 7
"#;

/// The released program for this machine.
fn release_asset() -> String {
    release::program(if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" })
}

fn path_of_script() -> PathBuf {
    root().join("gh-net")
}

fn script() -> Vec<u8> {
    fs::read(path_of_script()).unwrap()
}

fn write_program(path: &Path, text: &str) {
    executable::write(path, text.as_bytes()).unwrap();
}

/// A checkout with the files that the script uses, and directories for PATH.
struct Checkout {
    directory: TempDir,
    shell: &'static [&'static str],
}

impl Checkout {
    fn new(shell: &'static [&'static str]) -> Self {
        let checkout = Self { directory: tempfile::tempdir().unwrap(), shell };
        fs::create_dir_all(checkout.path("tools")).unwrap();
        for tool in TOOLS {
            // busybox implements all of them.
            let from = if shell[0] == "busybox" { which("busybox") } else { which(tool) };
            symlink(from, checkout.path("tools").join(tool)).unwrap();
        }
        fs::create_dir_all(checkout.path("gh-net/local/src")).unwrap();
        executable::write(&checkout.path("gh-net/gh-net"), &script()).unwrap();
        for source in ["Cargo.toml", "local/src/main.rs", "flake.nix"] {
            checkout.file(&format!("gh-net/{source}"), "");
        }
        checkout
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn file(&self, name: &str, text: &str) {
        write_program(&self.path(name), text);
    }

    /// Adds a [`PROGRAM`].
    fn program(&self, name: &str) {
        self.file(name, PROGRAM);
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.path(name)).unwrap();
    }

    /// Sets a file's modification time some hours back.
    fn age(&self, name: &str, hours: u64) {
        let then = SystemTime::now() - Duration::from_secs(hours * 3600);
        File::options().append(true).open(self.path(name)).unwrap().set_modified(then).unwrap();
    }

    /// The script at `path`, with `tools` and the directories `places` on PATH.
    fn command(&self, path: &str, places: &[&str]) -> Command {
        let mut command = Command::new(which(self.shell[0]));
        let places = places.iter().chain(&["tools"]).map(|place| self.path(place));
        command.env_clear().env("PATH", std::env::join_paths(places).unwrap());
        command.args(&self.shell[1..]).arg(self.path(path)).current_dir(self.directory.path());
        command
    }

    /// Runs the script. Returns the path of the program that it ran, relative to this directory, and the output.
    fn run(&self, places: &[&str]) -> (String, Ran) {
        let ran = run(&mut self.command("gh-net/gh-net", places));
        let here = self.directory.path().to_str().unwrap().to_owned() + "/";
        (ran.value("program").replace(&here, ""), ran)
    }
}

/// The result of a command.
struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Ran {
    fn value(&self, name: &str) -> &str {
        let line = self.stdout.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.unwrap_or_default()
    }
}

fn run(command: &mut Command) -> Ran {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
}

fn which(program: &str) -> PathBuf {
    find_program(program).unwrap_or_else(|| panic!("{program} is not installed"))
}

fn in_each_shell(test: impl Fn(Checkout)) {
    for shell in SHELLS {
        if !skip_without(&shell[..1]) {
            test(Checkout::new(shell));
        }
    }
}

/// A fake cargo whose `xtask build` creates a bundle. It prints its directory on stdout.
const CARGO: &str = "#!/bin/sh
echo \"cargo $* in $PWD\"
mkdir -p target/bundle && cat > target/bundle/gh-net < \"${0%/*}/built\" && chmod 755 target/bundle/gh-net
";

fn with_cargo(checkout: &Checkout) {
    checkout.file("cargo/cargo", CARGO);
    checkout.program("cargo/built");
    symlink(which("cat"), checkout.path("tools/cat")).unwrap();
    symlink(which("mkdir"), checkout.path("tools/mkdir")).unwrap();
}

#[test]
fn the_script_is_posix_sh() {
    if skip_without(&["shellcheck"]) {
        return;
    }
    let ran = run(Command::new("shellcheck").args(["--shell", "sh"]).arg(path_of_script()));
    assert_eq!(ran.code, Some(0), "{}", ran.stdout);
}

/// Starts with all programs that the script may find. After each run, the program that was run is removed.
#[test]
fn programs_are_found_in_the_documented_order() {
    in_each_shell(|checkout| {
        with_cargo(&checkout);
        let asset = format!("gh-net/{}", release_asset());
        let files = [&asset, "gh-net/bin/gh-net", "path/gh-net", "gh-net/target/bundle/gh-net"];
        files.iter().for_each(|file| checkout.program(file));
        checkout.program("gh-net/target/release/gh-net");
        checkout.program("nix/nix");
        checkout.age("gh-net/target/release/gh-net", 1);
        for source in ["Cargo.toml", "local/src/main.rs", "flake.nix"] {
            checkout.age(&format!("gh-net/{source}"), 2);
        }
        let places = ["path", "nix", "cargo"];
        for file in files.into_iter().chain(["gh-net/target/release/gh-net"]) {
            let (program, ran) = checkout.run(&places);
            assert_eq!(program, file, "{:?}: {}", checkout.shell, ran.stderr);
            assert_eq!(ran.code, Some(7), "{:?}: {}", checkout.shell, ran.stderr);
            assert_eq!(ran.value("extension"), "0", "gh did not run it");
            assert_eq!(ran.stderr, "");
            checkout.remove(file);
        }

        let (program, ran) = checkout.run(&places);
        assert_eq!(program, "nix/nix", "{}", ran.stderr);
        assert!(ran.stdout.contains("argument=run.~"), "{}", ran.stdout);
        assert!(ran.stdout.contains("/gh-net#local.~\nargument=--.~"), "{}", ran.stdout);
        assert!(ran.stderr.contains("nix run"), "{}", ran.stderr);

        checkout.remove("nix/nix");
        let (program, ran) = checkout.run(&places);
        assert_eq!(program, "gh-net/target/bundle/gh-net", "{}", ran.stderr);
        assert_eq!(ran.code, Some(7), "{}", ran.stderr);
        let built = format!("cargo xtask build in {}", checkout.path("gh-net").display());
        assert!(ran.stderr.contains(&built), "cargo's output must go to stderr: {}", ran.stderr);
        assert!(ran.stderr.contains("building it by 'cargo xtask build'"), "{}", ran.stderr);
        assert!(!ran.stdout.contains("cargo"), "{}", ran.stdout);

        checkout.remove("gh-net/target/bundle/gh-net");
        let (program, ran) = checkout.run(&[]);
        assert_eq!((program.as_str(), ran.code), ("", Some(1)));
        for words in ["gh extension install gh-net/gh-net", "/releases into", "https://rustup.rs"] {
            assert!(ran.stderr.contains(words), "{}", ran.stderr);
        }
    });
}

#[test]
fn a_downloaded_program_is_made_executable() {
    in_each_shell(|checkout| {
        let asset = format!("gh-net/{}", release_asset());
        checkout.program(&asset);
        fs::set_permissions(checkout.path(&asset), PermissionsExt::from_mode(0o644)).unwrap();
        assert_eq!(checkout.run(&[]).0, asset);
    });
}

/// A symlink, a hard link and a copy of the script on PATH are skipped in favour of the program behind them.
#[test]
fn the_script_never_runs_itself() {
    in_each_shell(|checkout| {
        for place in ["symlink", "hardlink", "copy", "directory/gh-net"] {
            fs::create_dir_all(checkout.path(place)).unwrap();
        }
        symlink("../gh-net/gh-net", checkout.path("symlink/gh-net")).unwrap();
        fs::hard_link(checkout.path("gh-net/gh-net"), checkout.path("hardlink/gh-net")).unwrap();
        executable::write(&checkout.path("copy/gh-net"), &script()).unwrap();
        checkout.program("odd * place/gh-net");
        let places = ["symlink", "hardlink", "copy", "directory", "odd * place"];
        let (program, ran) = checkout.run(&places);
        assert_eq!(program, "odd * place/gh-net", "{:?}: {}", checkout.shell, ran.stderr);
        for path in ["symlink/gh-net", "copy/gh-net"] {
            let started = run(&mut checkout.command(path, &places));
            assert!(started.value("program").ends_with("odd * place/gh-net"), "{}", started.stderr);
        }
    });
}

/// A user's own `gh-net` on PATH that runs `gh net` must not cause an endless loop.
#[test]
fn a_wrapper_on_path_that_runs_the_script_is_not_run_again() {
    in_each_shell(|checkout| {
        let back = format!("#!/bin/sh\nexec {} \"$@\"\n", checkout.path("gh-net/gh-net").display());
        checkout.file("path/gh-net", &back);
        let (_, ran) = checkout.run(&["path"]);
        assert_eq!(ran.code, Some(1), "{}", ran.stderr);
        checkout.program("gh-net/target/bundle/gh-net");
        assert_eq!(checkout.run(&["path"]).0, "gh-net/target/bundle/gh-net");
    });
}

/// As after `gh extension upgrade`, which pulls newer sources.
#[test]
fn a_program_older_than_its_sources_is_built_again() {
    in_each_shell(|checkout| {
        checkout.program("gh-net/target/bundle/gh-net");
        checkout.age("gh-net/target/bundle/gh-net", 1);
        let (program, ran) = checkout.run(&[]);
        assert_eq!(program, "gh-net/target/bundle/gh-net", "{}", ran.stderr);
        assert!(ran.stderr.contains("older than its sources, and there is no cargo"), "{}", ran.stderr);

        with_cargo(&checkout);
        let (program, ran) = checkout.run(&["cargo"]);
        assert_eq!(program, "gh-net/target/bundle/gh-net", "{}", ran.stderr);
        assert!(ran.stderr.contains("older than its sources; building it"), "{}", ran.stderr);
        let (_, ran) = checkout.run(&["cargo"]);
        assert_eq!(ran.stderr, "", "it was built twice");

        checkout.age("gh-net/target/bundle/gh-net", 1);
        checkout.file("cargo/cargo", "#!/bin/sh\necho 'error: no linker' >&2\nexit 101\n");
        let (program, ran) = checkout.run(&["cargo"]);
        assert_eq!(
            (program.as_str(), ran.code),
            ("", Some(1)),
            "the old program was run after a failed build"
        );
        assert!(ran.stderr.contains("error: no linker"), "{}", ran.stderr);
        assert!(ran.stderr.contains("gh extension install gh-net/gh-net"), "{}", ran.stderr);
    });
}

/// After a plain `cargo build --release`, its program is newer than the bundle, which still has the sidecars to copy.
#[test]
fn the_newest_program_is_run_with_the_bundles_sidecars() {
    in_each_shell(|checkout| {
        checkout.program("gh-net/target/bundle/gh-net");
        checkout.program("gh-net/target/release/gh-net");
        for file in ["Cargo.toml", "local/src/main.rs", "target/bundle/gh-net"] {
            checkout.age(&format!("gh-net/{file}"), 1);
        }
        let (program, ran) = checkout.run(&[]);
        assert_eq!(program, "gh-net/target/release/gh-net", "{}", ran.stderr);
        assert_eq!(Path::new(ran.value("sidecars")), checkout.path("gh-net/target/bundle"));
        let named =
            checkout.command("gh-net/gh-net", &[]).env("GH_NET_SIDECAR_DIR", "/mine").output().unwrap();
        assert!(String::from_utf8(named.stdout).unwrap().contains("sidecars=/mine\n"));
    });
}

/// The script executes the program in its own process, so that signals reach the program.
#[test]
fn the_script_becomes_the_program() {
    in_each_shell(|checkout| {
        checkout.program("path/gh-net");
        let mut command = checkout.command("gh-net/gh-net", &["path"]);
        let child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
        let pid = child.id();
        let output = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
        assert!(output.contains(&format!("pid={pid}\n")), "not {pid}: {output}");
    });
}

#[test]
fn on_another_system_the_message_names_the_supported_ones() {
    in_each_shell(|checkout| {
        // busybox's shell uses its own uname.
        if checkout.shell[0] == "busybox" {
            return;
        }
        checkout.program("path/gh-net");
        checkout.file("mac/uname", "#!/bin/sh\necho Darwin\n");
        let (program, ran) = checkout.run(&["mac", "path"]);
        assert_eq!((program.as_str(), ran.code), ("", Some(1)));
        assert!(ran.stderr.contains("Linux only"), "{}", ran.stderr);
        assert!(ran.stderr.contains("Darwin"), "{}", ran.stderr);
    });
}

/// The real gh, with its own home directory.
fn gh(home: &Path) -> Command {
    let mut command = Command::new(which("gh"));
    command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", home).current_dir(home);
    command.env("GH_TOKEN", "x").env("GH_CONFIG_DIR", home.join("config"));
    command.env("XDG_DATA_HOME", home.join("data")).env("XDG_STATE_HOME", home.join("state"));
    command
}

/// A home with the extension installed by `gh extension install .` in a checkout whose program is `program`.
fn installed(program: &Path) -> TempDir {
    let home = tempfile::tempdir().unwrap();
    let checkout = home.path().join("src/gh-net");
    executable::write(&checkout.join("gh-net"), &script()).unwrap();
    executable::write(&checkout.join(release_asset()), &fs::read(program).unwrap()).unwrap();
    let install = run(gh(home.path()).args(["extension", "install", "."]).current_dir(checkout));
    assert_eq!(install.code, Some(0), "{}", install.stderr);
    home
}

#[test]
fn gh_passes_odd_arguments_the_directory_and_the_exit_code() {
    if skip_without(&["gh"]) {
        return;
    }
    let program = tempfile::tempdir().unwrap();
    write_program(&program.path().join("program"), PROGRAM);
    let home = installed(&program.path().join("program"));
    let list = run(gh(home.path()).args(["extension", "list"]));
    assert!(list.stdout.contains("gh net"), "{}", list.stdout);

    let elsewhere = home.path().join("some where");
    fs::create_dir(&elsewhere).unwrap();
    let odd = ["", " two  words ", "line\nbreak", "*", "$HOME", "-c", "--", "--version", "'\"\\"];
    let ran = run(gh(home.path()).arg("net").args(odd).current_dir(&elsewhere));
    assert_eq!(ran.code, Some(7), "{}", ran.stderr);
    assert_eq!(Path::new(ran.value("directory")), elsewhere);
    assert_eq!(ran.value("extension"), "1");
    let arguments: Vec<_> =
        ran.stdout.lines().filter_map(|l| l.strip_prefix("argument=")?.strip_suffix(".~")).collect();
    assert_eq!(arguments, odd.map(|argument| argument.replace('\n', "~")));
    assert_eq!(run(gh(home.path()).arg("net")).code, Some(7), "without arguments");
}

#[test]
fn under_gh_messages_name_the_program_gh_net() {
    if skip_without(&["gh"]) {
        return;
    }
    let home = installed(&Binaries::get().unwrap().gh_net);
    let net = |args: &[&str]| run(gh(home.path()).arg("net").args(args));
    let version = net(&["--version"]);
    assert_eq!(version.stdout, format!("gh-net {}\n", env!("CARGO_PKG_VERSION")), "{}", version.stderr);
    let help = net(&["--help"]);
    assert!(help.stdout.contains("Usage: gh net [OPTIONS] [CODESPACE]"), "{}", help.stdout);
    let wrong = net(&["--no-such-flag"]);
    assert_eq!(wrong.code, Some(2));
    assert!(wrong.stderr.contains("Usage: gh net "), "{}", wrong.stderr);
    // Without gh on its PATH. The remedy must name the command as the user typed it.
    let lost = run(gh(home.path()).args(["net", "-c", "big-fish"]).env("GH_PATH", "/nowhere/gh"));
    assert!(lost.stderr.contains("gh net --ssh user@host"), "{}", lost.stderr);
}

/// A fake api.github.com, used as a proxy: it has a latest release whose assets are programs that print their own name.
fn releases(assets: Vec<String>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map(Result::unwrap);
            let request = lines.next().unwrap_or_default();
            lines.take_while(|line| !line.is_empty()).for_each(drop);
            let path = request.split(' ').nth(1).unwrap_or_default();
            let url = "http://api.github.localhost/assets/";
            let (status, body) = if path.ends_with("/repos/gh-net/gh-net/releases/latest") {
                let assets: Vec<_> =
                    assets.iter().map(|name| format!(r#"{{"name":"{name}","url":"{url}{name}"}}"#)).collect();
                ("200 OK", format!(r#"{{"tag_name":"v9.9.9","assets":[{}]}}"#, assets.join(",")))
            } else if let Some(name) = path.strip_prefix(url) {
                ("200 OK", format!("#!/bin/sh\necho \"{name}\" \"$0\" \"$@\"\nexit 7\n"))
            } else {
                ("404 Not Found", String::new())
            };
            let length = body.len();
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
            stream.write_all((head + &body).as_bytes()).unwrap();
        }
    });
    address
}

/// gh selects the asset of a release only by its name.
#[test]
fn gh_installs_the_program_for_this_machine_from_a_release() {
    if skip_without(&["gh"]) {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let api = releases(release::assets("9.9.9"));
    // With this host name gh uses a server without TLS.
    let gh = |args: &[&str]| {
        let mut command = gh(home.path());
        command.args(args).env("GH_HOST", "github.localhost").env("http_proxy", &api);
        run(&mut command)
    };
    let install = gh(&["extension", "install", "gh-net/gh-net"]);
    assert_eq!(install.code, Some(0), "{}", install.stderr);
    let list = gh(&["extension", "list"]);
    assert!(list.stdout.contains("gh-net/gh-net\tv9.9.9"), "{}", list.stdout);
    let ran = gh(&["net", "-c", "big-fish"]);
    assert_eq!(ran.code, Some(7), "{}", ran.stderr);
    let words: Vec<_> = ran.stdout.split_whitespace().collect();
    let [name, program, "-c", "big-fish"] = words[..] else { panic!("{words:?}") };
    assert_eq!(name, release_asset());
    // The program recognizes by this path that gh runs it.
    assert!(Path::new(program).ends_with("gh/extensions/gh-net/gh-net"), "{program}");
}

fn lab() -> anyhow::Result<Option<Lab>> {
    let Some(mut lab) = Lab::for_test(Options::default())? else { return Ok(None) };
    lab.start_github()?;
    lab.install_extension()?;
    Ok(Some(lab))
}

#[test]
fn gh_net_bridges_a_codespace_and_ends_with_gh() -> anyhow::Result<()> {
    let Some(lab) = lab()? else { return Ok(()) };
    let before = lab.codespace.state()?;
    for args in [&["-c", CODESPACE][..], &["start", "-c", CODESPACE], &[CODESPACE]] {
        let net = lab.gh_net_by_gh(Account::Two, args)?.start()?;
        net.wait_for("ready", Duration::from_secs(40))?;
        assert_eq!(lab.codespace.shell("curl -sS http://www.corp.internal/")?, "hello from corp", "{args:?}");
        // Only gh receives the signal, and dies of it.
        net.signal(Signal::SIGTERM)?;
        let output = net.finish(Duration::from_secs(20))?;
        assert_eq!(output.code(), 128 + Signal::SIGTERM as i32);
        lab.wait_for_sidecars_end()?;
        assert_eq!(before.diff(&lab.codespace.state()?), "", "{args:?}: {}", output.errors());
        // As long as the old process is there, the next start would be refused.
        let deadline = Instant::now() + Duration::from_secs(20);
        while !lab.laptop.processes("gh-net")?.is_empty() {
            anyhow::ensure!(Instant::now() < deadline, "gh-net goes on after gh has ended");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    Ok(())
}

#[test]
fn gh_net_without_a_name_takes_the_only_codespace_until_ctrl_c() -> anyhow::Result<()> {
    let Some(lab) = lab()? else { return Ok(()) };
    let before = lab.codespace.state()?;
    let net = lab.gh_net_by_gh(Account::One, &[])?.start()?;
    net.wait_for("ready", Duration::from_secs(40))?;
    assert_eq!(lab.codespace.shell("curl -sS http://www.corp.internal/")?, "hello from corp");
    // A terminal sends SIGINT to both. gh's end must not count as a second Ctrl-C, which would skip the goodbye.
    net.signal(Signal::SIGINT)?;
    for program in lab.laptop.processes("gh-net")? {
        match kill(program, Signal::SIGINT) {
            // It may have ended together with gh.
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    let output = net.finish(Duration::from_secs(20))?;
    assert!(!output.errors().contains("ended at once"), "{}", output.errors());
    lab.wait_for_sidecars_end()?;
    assert_eq!(before.diff(&lab.codespace.state()?), "", "{}", output.errors());
    Ok(())
}
