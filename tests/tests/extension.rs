//! The gh extension: gh is the real one, and so are the shells. Which program the script finds is told by
//! programs of the tests' own; that it bridges a codespace, by gh-net itself in the lab.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

use gh_net_tests::executable;
use gh_net_tests::lab::{Account, Binaries, CODESPACE, Lab, Options, find_program, skip_without};
use gh_net_tests::{release, root};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use tempfile::TempDir;

/// The shells that are sh where gh-net is used: Debian's, Alpine's, and where bash is sh.
const SHELLS: [&[&str]; 3] = [&["dash"], &["busybox", "sh"], &["bash", "--posix"]];

/// All that the script may take from a machine. What finds gh-net, cargo or nix is each test's own.
const TOOLS: [&str; 8] = ["uname", "readlink", "dirname", "find", "dd", "grep", "chmod", "sh"];

/// Says what it was started as and with, in lines; an argument's own line breaks are shown.
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

/// A checkout of the project, as far as the script looks at it, and a machine around it.
struct Checkout {
    directory: TempDir,
    shell: &'static [&'static str],
}

impl Checkout {
    fn new(shell: &'static [&'static str]) -> Self {
        let checkout = Self { directory: tempfile::tempdir().unwrap(), shell };
        fs::create_dir_all(checkout.path("tools")).unwrap();
        for tool in TOOLS {
            // busybox is all of them.
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

    /// Makes a file older than everything else here.
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

    /// What the script ran, relative to here, and all it said.
    fn run(&self, places: &[&str]) -> (String, Said) {
        let said = said(&mut self.command("gh-net/gh-net", places));
        let here = self.directory.path().to_str().unwrap().to_owned() + "/";
        (said.value("program").replace(&here, ""), said)
    }
}

struct Said {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Said {
    fn value(&self, name: &str) -> &str {
        let line = self.stdout.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.unwrap_or_default()
    }
}

fn said(command: &mut Command) -> Said {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Said { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
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

/// cargo, as far as `cargo xtask build` makes a bundle; it says where it ran, on stdout.
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
    let said = said(Command::new("shellcheck").args(["--shell", "sh"]).arg(path_of_script()));
    assert_eq!(said.code, Some(0), "{}", said.stdout);
}

/// All there is; then, one after the other, what was run is taken away.
#[test]
fn each_way_of_finding_is_tried_in_turn() {
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
            let (program, said) = checkout.run(&places);
            assert_eq!(program, file, "{:?}: {}", checkout.shell, said.stderr);
            assert_eq!(said.code, Some(7), "{:?}: {}", checkout.shell, said.stderr);
            assert_eq!(said.value("extension"), "0", "it was not gh that ran it");
            assert_eq!(said.stderr, "");
            checkout.remove(file);
        }

        let (program, said) = checkout.run(&places);
        assert_eq!(program, "nix/nix", "{}", said.stderr);
        assert!(said.stdout.contains("argument=run.~"), "{}", said.stdout);
        assert!(said.stdout.contains("/gh-net#local.~\nargument=--.~"), "{}", said.stdout);
        assert!(said.stderr.contains("nix run"), "{}", said.stderr);

        checkout.remove("nix/nix");
        let (program, said) = checkout.run(&places);
        assert_eq!(program, "gh-net/target/bundle/gh-net", "{}", said.stderr);
        assert_eq!(said.code, Some(7), "{}", said.stderr);
        let ran = format!("cargo xtask build in {}", checkout.path("gh-net").display());
        assert!(said.stderr.contains(&ran), "what cargo says belongs on stderr: {}", said.stderr);
        assert!(said.stderr.contains("building it by 'cargo xtask build'"), "{}", said.stderr);
        assert!(!said.stdout.contains("cargo"), "{}", said.stdout);

        checkout.remove("gh-net/target/bundle/gh-net");
        let (program, said) = checkout.run(&[]);
        assert_eq!((program.as_str(), said.code), ("", Some(1)));
        for words in ["gh extension install gh-net/gh-net", "/releases into", "https://rustup.rs"] {
            assert!(said.stderr.contains(words), "{}", said.stderr);
        }
    });
}

#[test]
fn what_a_browser_saved_is_made_executable() {
    in_each_shell(|checkout| {
        let asset = format!("gh-net/{}", release_asset());
        checkout.program(&asset);
        fs::set_permissions(checkout.path(&asset), PermissionsExt::from_mode(0o644)).unwrap();
        assert_eq!(checkout.run(&[]).0, asset);
    });
}

/// A symlink, a hard link and a copy on PATH are passed by, for the program behind them.
#[test]
fn it_never_takes_itself_for_the_program() {
    in_each_shell(|checkout| {
        for place in ["symlink", "hardlink", "copy", "directory/gh-net"] {
            fs::create_dir_all(checkout.path(place)).unwrap();
        }
        symlink("../gh-net/gh-net", checkout.path("symlink/gh-net")).unwrap();
        fs::hard_link(checkout.path("gh-net/gh-net"), checkout.path("hardlink/gh-net")).unwrap();
        executable::write(&checkout.path("copy/gh-net"), &script()).unwrap();
        checkout.program("odd * place/gh-net");
        let places = ["symlink", "hardlink", "copy", "directory", "odd * place"];
        let (program, said) = checkout.run(&places);
        assert_eq!(program, "odd * place/gh-net", "{:?}: {}", checkout.shell, said.stderr);
        for path in ["symlink/gh-net", "copy/gh-net"] {
            let started = said_by(&checkout, path, &places);
            assert!(started.value("program").ends_with("odd * place/gh-net"), "{}", started.stderr);
        }
    });
}

fn said_by(checkout: &Checkout, path: &str, places: &[&str]) -> Said {
    said(&mut checkout.command(path, places))
}

/// A `gh-net` of the user's that runs `gh net` must not run for ever.
#[test]
fn a_wrapper_on_path_that_leads_back_does_not_go_round_in_circles() {
    in_each_shell(|checkout| {
        let back = format!("#!/bin/sh\nexec {} \"$@\"\n", checkout.path("gh-net/gh-net").display());
        checkout.file("path/gh-net", &back);
        let (_, said) = checkout.run(&["path"]);
        assert_eq!(said.code, Some(1), "{}", said.stderr);
        checkout.program("gh-net/target/bundle/gh-net");
        assert_eq!(checkout.run(&["path"]).0, "gh-net/target/bundle/gh-net");
    });
}

/// As after `gh extension upgrade`, which pulls.
#[test]
fn what_is_older_than_its_sources_is_built_again() {
    in_each_shell(|checkout| {
        checkout.program("gh-net/target/bundle/gh-net");
        checkout.age("gh-net/target/bundle/gh-net", 1);
        let (program, said) = checkout.run(&[]);
        assert_eq!(program, "gh-net/target/bundle/gh-net", "{}", said.stderr);
        assert!(said.stderr.contains("older than its sources, and there is no cargo"), "{}", said.stderr);

        with_cargo(&checkout);
        let (program, said) = checkout.run(&["cargo"]);
        assert_eq!(program, "gh-net/target/bundle/gh-net", "{}", said.stderr);
        assert!(said.stderr.contains("older than its sources; building it"), "{}", said.stderr);
        let (_, said) = checkout.run(&["cargo"]);
        assert_eq!(said.stderr, "", "built once is enough");

        checkout.age("gh-net/target/bundle/gh-net", 1);
        checkout.file("cargo/cargo", "#!/bin/sh\necho 'error: no linker' >&2\nexit 101\n");
        let (program, said) = checkout.run(&["cargo"]);
        assert_eq!((program.as_str(), said.code), ("", Some(1)), "an old program is not run unasked");
        assert!(said.stderr.contains("error: no linker"), "{}", said.stderr);
        assert!(said.stderr.contains("gh extension install gh-net/gh-net"), "{}", said.stderr);
    });
}

/// A plain `cargo build --release` is newer than the bundle, whose sidecars still are the ones to copy.
#[test]
fn the_newest_of_what_was_built_is_run_with_the_sidecars_there_are() {
    in_each_shell(|checkout| {
        checkout.program("gh-net/target/bundle/gh-net");
        checkout.program("gh-net/target/release/gh-net");
        for file in ["Cargo.toml", "local/src/main.rs", "target/bundle/gh-net"] {
            checkout.age(&format!("gh-net/{file}"), 1);
        }
        let (program, said) = checkout.run(&[]);
        assert_eq!(program, "gh-net/target/release/gh-net", "{}", said.stderr);
        assert_eq!(Path::new(said.value("sidecars")), checkout.path("gh-net/target/bundle"));
        let named =
            checkout.command("gh-net/gh-net", &[]).env("GH_NET_SIDECAR_DIR", "/mine").output().unwrap();
        assert!(String::from_utf8(named.stdout).unwrap().contains("sidecars=/mine\n"));
    });
}

/// So a signal to it is a signal to the program.
#[test]
fn it_becomes_the_program() {
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
fn on_another_system_it_says_where_gh_net_runs() {
    in_each_shell(|checkout| {
        // Its uname is within the shell.
        if checkout.shell[0] == "busybox" {
            return;
        }
        checkout.program("path/gh-net");
        checkout.file("mac/uname", "#!/bin/sh\necho Darwin\n");
        let (program, said) = checkout.run(&["mac", "path"]);
        assert_eq!((program.as_str(), said.code), ("", Some(1)));
        assert!(said.stderr.contains("Linux only"), "{}", said.stderr);
        assert!(said.stderr.contains("Darwin"), "{}", said.stderr);
    });
}

/// The real gh, with a home of its own.
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
    let install = said(gh(home.path()).args(["extension", "install", "."]).current_dir(checkout));
    assert_eq!(install.code, Some(0), "{}", install.stderr);
    home
}

#[test]
fn gh_passes_odd_arguments_the_directory_and_the_exit_code_through() {
    if skip_without(&["gh"]) {
        return;
    }
    let program = tempfile::tempdir().unwrap();
    write_program(&program.path().join("program"), PROGRAM);
    let home = installed(&program.path().join("program"));
    let list = said(gh(home.path()).args(["extension", "list"]));
    assert!(list.stdout.contains("gh net"), "{}", list.stdout);

    let elsewhere = home.path().join("some where");
    fs::create_dir(&elsewhere).unwrap();
    let odd = ["", " two  words ", "line\nbreak", "*", "$HOME", "-c", "--", "--version", "'\"\\"];
    let ran = said(gh(home.path()).arg("net").args(odd).current_dir(&elsewhere));
    assert_eq!(ran.code, Some(7), "{}", ran.stderr);
    assert_eq!(Path::new(ran.value("directory")), elsewhere);
    assert_eq!(ran.value("extension"), "1");
    let arguments: Vec<_> =
        ran.stdout.lines().filter_map(|l| l.strip_prefix("argument=")?.strip_suffix(".~")).collect();
    assert_eq!(arguments, odd.map(|argument| argument.replace('\n', "~")));
    assert_eq!(said(gh(home.path()).arg("net")).code, Some(7), "and none at all");
}

#[test]
fn the_program_speaks_as_gh_net_under_gh() {
    if skip_without(&["gh"]) {
        return;
    }
    let home = installed(&Binaries::get().unwrap().gh_net);
    let net = |args: &[&str]| said(gh(home.path()).arg("net").args(args));
    let version = net(&["--version"]);
    assert_eq!(version.stdout, format!("gh-net {}\n", env!("CARGO_PKG_VERSION")), "{}", version.stderr);
    let help = net(&["--help"]);
    assert!(help.stdout.contains("Usage: gh net [OPTIONS] [CODESPACE]"), "{}", help.stdout);
    let wrong = net(&["--no-such-flag"]);
    assert_eq!(wrong.code, Some(2));
    assert!(wrong.stderr.contains("Usage: gh net "), "{}", wrong.stderr);
    // Without gh on its PATH: the remedy is to be typed as the program was.
    let lost = said(gh(home.path()).args(["net", "-c", "big-fish"]).env("GH_PATH", "/nowhere/gh"));
    assert!(lost.stderr.contains("gh net --ssh user@host"), "{}", lost.stderr);
}

/// A stand-in for api.github.com, reached as a proxy: a latest release whose assets are programs that say their
/// own name.
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

/// What gh downloads from a release is chosen by the names of its assets alone.
#[test]
fn gh_installs_the_program_for_this_machine_from_a_release() {
    if skip_without(&["gh"]) {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let api = releases(release::assets("9.9.9"));
    // gh's own way to be pointed at a server without TLS.
    let gh = |args: &[&str]| {
        let mut command = gh(home.path());
        command.args(args).env("GH_HOST", "github.localhost").env("http_proxy", &api);
        said(&mut command)
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
    // By this path the program knows that gh runs it.
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
        // gh alone gets it, and dies of it.
        net.signal(Signal::SIGTERM)?;
        let output = net.finish(Duration::from_secs(20))?;
        assert_eq!(output.code(), 128 + Signal::SIGTERM as i32);
        lab.wait_for_sidecars_end()?;
        assert_eq!(before.diff(&lab.codespace.state()?), "", "{args:?}: {}", output.errors());
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
    // A terminal sends it to both. That gh has ended is no second Ctrl-C, which would skip the goodbye.
    net.signal(Signal::SIGINT)?;
    for program in lab.laptop.processes("gh-net")? {
        match kill(program, Signal::SIGINT) {
            // With gh it may have ended already.
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
