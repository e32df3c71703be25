//! install.sh, run by dash and by busybox, with a directory in place of / and a PATH that contains only what a test
//! provides.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use gh_net_tests::executable;
use gh_net_tests::lab::servers::hex;
use gh_net_tests::lab::{skip_because, skip_without};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::feature;

const VERSION: &str = env!("CARGO_PKG_VERSION");
const SUDOERS: &str = "etc/sudoers.d/gh-net";
const PROGRAM: &str = "usr/local/bin/gh-net-sidecar";
/// Tools that every distribution has.
const COREUTILS: &str =
    "cat chmod chown cp cut dirname find head id mkdir mktemp mv rm sha256sum sleep touch uname";

/// The sidecar of the other architecture.
const OTHER: &str = "#!/bin/sh\necho gh-net-sidecar of another machine\n";

/// A shell and its tools.
#[derive(Clone, Copy, PartialEq)]
enum Shell {
    /// dash and GNU coreutils, as on Debian and Ubuntu.
    Dash,
    /// Only busybox, as on Alpine.
    Busybox,
}

/// A machine to install on.
struct Machine {
    shell: Shell,
    directory: TempDir,
}

/// The result of install.sh, with stdout and stderr in one text.
struct Outcome {
    success: bool,
    output: String,
}

/// A machine for each shell. None, after a message, if a program or root is missing.
fn machines() -> Vec<Machine> {
    let is_user = || !nix::unistd::geteuid().is_root() && skip_because("installing needs root");
    if skip_without(&["dash", "busybox", "curl", "visudo"]) || is_user() {
        return vec![];
    }
    [Shell::Dash, Shell::Busybox].map(Machine::new).into()
}

/// Machines for tests that replace uname or need a machine without wget: Debian's busybox always runs its own ones.
fn machines_of_dash() -> impl Iterator<Item = Machine> {
    machines().into_iter().filter(|machine| machine.shell == Shell::Dash)
}

/// A fake sidecar.
fn program(version: &str) -> String {
    format!("#!/bin/sh\necho gh-net-sidecar {version}\n")
}

impl Machine {
    fn new(shell: Shell) -> Self {
        let machine = Self { shell, directory: tempfile::tempdir().unwrap() };
        for folder in ["bin", "feature", "root/etc/sudoers.d"] {
            fs::create_dir_all(machine.path(folder)).unwrap();
        }
        for tool in COREUTILS.split(' ') {
            match shell {
                Shell::Dash => machine.has(tool),
                Shell::Busybox => symlink("/bin/busybox", machine.path("bin").join(tool)).unwrap(),
            }
        }
        fs::copy(feature("install.sh"), machine.path("feature/install.sh")).unwrap();
        machine
    }

    fn path(&self, below: &str) -> PathBuf {
        self.directory.path().join(below)
    }

    fn installed(&self) -> PathBuf {
        self.path("root").join(PROGRAM)
    }

    /// Adds a program of this machine.
    fn has(&self, program: &str) {
        let places = ["/usr/bin", "/usr/sbin", "/bin", "/sbin"];
        let there = places.iter().map(|place| Path::new(place).join(program)).find(|path| path.exists());
        symlink(there.unwrap_or_else(|| panic!("no {program}")), self.path("bin").join(program)).unwrap();
    }

    /// Adds a fake program that runs `lines`.
    fn fakes(&self, program: &str, lines: &str) {
        write_program(&self.path("bin").join(program), &format!("#!/bin/sh\n{lines}\n"));
    }

    /// Adds a file to the Feature's folder.
    fn comes_with(&self, name: &str, text: &str) {
        write_program(&self.path("feature").join(name), text);
    }

    /// Makes the Feature one that was published with a release of this sidecar.
    fn is_published_with(&self, program: &str) {
        let other = if asset().ends_with("x86_64") { "aarch64" } else { "x86_64" };
        let lines = [(sha256(OTHER), format!("gh-net-sidecar-{other}")), (sha256(program), asset())];
        let text: String = lines.iter().map(|(hash, name)| format!("{hash}  {name}\n")).collect();
        fs::write(self.path("feature/SHA256SUMS"), text).unwrap();
    }

    fn install(&self, options: &[(&str, &str)]) -> Outcome {
        let mut command = match self.shell {
            Shell::Dash => Command::new("/bin/dash"),
            Shell::Busybox => Command::new("/bin/busybox"),
        };
        if self.shell == Shell::Busybox {
            command.arg("sh");
        }
        command.arg(self.path("feature/install.sh")).env_clear().envs(options.iter().copied());
        command.env("PATH", self.path("bin")).env("GH_NET_INSTALL_ROOT", self.path("root"));
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        Outcome { success: output.status.success(), output: text.into_owned() }
    }

    /// The names of the files in the program's directory.
    fn left(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.installed().parent().unwrap()) else { return vec![] };
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

fn write_program(path: &Path, text: &str) {
    executable::write(path, text.as_bytes()).unwrap();
}

fn asset() -> String {
    format!("gh-net-sidecar-{}", std::env::consts::ARCH)
}

/// Starts a mirror of releases with these files, by path. Returns its URL.
fn mirror(files: Vec<(String, String)>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // The thread ends with the test process.
    thread::spawn(move || listener.incoming().for_each(|stream| answer(stream.unwrap(), &files)));
    format!("http://{address}/releases/")
}

fn answer(mut stream: TcpStream, files: &[(String, String)]) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let request = lines.next().unwrap_or_default();
    lines.take_while(|line| !line.is_empty()).for_each(drop);
    let path = request.split(' ').nth(1).unwrap_or_default().trim_start_matches("/releases/");
    let (status, body) = match files.iter().find(|(name, _)| name == path) {
        Some((_, body)) => ("200 OK", body.as_str()),
        None => ("404 Not Found", ""),
    };
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    let _ = stream.write_all((head + body).as_bytes());
}

/// A release's files: the program, and a checksum beside it in the format of sha256sum, which says nothing about the
/// server that has both.
fn release(folder: &str, program: &str) -> Vec<(String, String)> {
    let name = asset();
    let checksum = format!("{}  {name}\n", sha256(program));
    vec![(format!("{folder}/{name}"), program.to_owned()), (format!("{folder}/{name}.sha256"), checksum)]
}

fn sha256(text: &str) -> String {
    hex(Sha256::new_with_prefix(text))
}

#[test]
fn the_features_sidecar_is_installed_and_a_second_run_changes_nothing() {
    for machine in machines() {
        machine.comes_with(&asset(), &program(VERSION));
        for _ in 0..2 {
            let Outcome { success, output } = machine.install(&[]);
            assert!(success, "{output}");
            assert!(output.contains(&format!("installed gh-net-sidecar {VERSION}")), "{output}");
            let found = fs::metadata(machine.installed()).unwrap();
            assert_eq!((found.mode() & 0o7777, found.uid(), found.gid()), (0o755, 0, 0));
            assert_eq!(fs::read_to_string(machine.installed()).unwrap(), program(VERSION));
            assert_eq!(machine.left(), ["gh-net-sidecar"]);
            assert!(!machine.path("root").join(SUDOERS).exists(), "root needs no entry for sudo");
        }
    }
}

#[test]
fn a_running_sidecar_is_replaced_and_keeps_running() {
    for machine in machines() {
        fs::create_dir_all(machine.installed().parent().unwrap()).unwrap();
        executable::write(&machine.installed(), &fs::read("/bin/sleep").unwrap()).unwrap();
        let mut running = Command::new(machine.installed()).arg("600").stdin(Stdio::null()).spawn().unwrap();
        machine.comes_with("gh-net-sidecar", &program(VERSION));
        let Outcome { success, output } = machine.install(&[]);
        let goes_on = running.try_wait().unwrap().is_none();
        running.kill().unwrap();
        running.wait().unwrap();
        assert!(success && goes_on, "{output}");
        assert_eq!(fs::read_to_string(machine.installed()).unwrap(), program(VERSION));
    }
}

/// A machine of each shell that can download.
fn machines_with_curl() -> impl Iterator<Item = Machine> {
    // busybox has its own wget.
    machines().into_iter().inspect(|machine| {
        if machine.shell == Shell::Dash {
            machine.has("curl");
        }
    })
}

#[test]
fn the_features_own_release_is_downloaded_and_has_the_hash_that_the_feature_carries() {
    for machine in machines_with_curl() {
        machine.is_published_with(&program(VERSION));
        let mirror = mirror(release(&format!("download/v{VERSION}"), &program(VERSION)));
        for options in
            [vec![], vec![("VERSION", VERSION)], vec![("VERSION", concat!("v", env!("CARGO_PKG_VERSION")))]]
        {
            let Outcome { success, output } = machine.install(&[options, vec![("MIRROR", &mirror)]].concat());
            assert!(success, "{output}");
            assert_eq!(fs::read_to_string(machine.installed()).unwrap(), program(VERSION));
            assert_eq!(machine.left(), ["gh-net-sidecar"]);
        }
    }
}

/// Whoever can replace the file on the server can replace the checksum beside it, too.
#[test]
fn a_download_whose_hash_the_feature_does_not_know_is_refused_and_the_old_program_kept() {
    for machine in machines_with_curl() {
        machine.comes_with(&asset(), &program(VERSION));
        assert!(machine.install(&[]).success);
        fs::remove_file(machine.path("feature").join(asset())).unwrap();
        machine.is_published_with(&program(VERSION));
        let evil = format!("{}# and something else\n", program(VERSION));
        let folder = format!("download/v{VERSION}");
        for (files, why) in [
            (release(&folder, &evil), "has the SHA-256 hash"),
            (release(&folder, OTHER), "has the SHA-256 hash"),
            (release("download/v3.0.0", ""), "downloading http://127.0.0.1"),
        ] {
            let mirror = mirror(files);
            let Outcome { success, output } = machine.install(&[("MIRROR", &mirror)]);
            assert!(!success && output.contains(why), "{why}: {output}");
            assert_eq!(fs::read_to_string(machine.installed()).unwrap(), program(VERSION));
            assert_eq!(machine.left(), ["gh-net-sidecar"], "{why}");
        }
    }
}

#[test]
fn another_release_is_installed_only_by_a_hash_that_the_user_names() {
    for machine in machines_with_curl() {
        // Its own program is of no use, nor are its own hashes.
        machine.comes_with(&asset(), &program(VERSION));
        machine.is_published_with(&program("9.8.7"));
        let files = release("download/v9.8.7", &program("9.8.7"));
        let (right, other) = (sha256(&program("9.8.7")), sha256(OTHER));
        let mirror = mirror(files);
        for version in ["9.8.7", "v9.8.7"] {
            for hashes in [right.clone(), format!("{other} {right}"), format!("{other}, {right}")] {
                let options = [("VERSION", version), ("SHA256", &hashes), ("MIRROR", &mirror)];
                let Outcome { success, output } = machine.install(&options);
                assert!(success, "{output}");
                assert_eq!(fs::read_to_string(machine.installed()).unwrap(), program("9.8.7"));
                assert_eq!(machine.left(), ["gh-net-sidecar"]);
            }
        }
        for (version, hashes, why) in [
            ("9.8.7", "", "set the option sha256"),
            ("latest", "", "name a version"),
            ("latest", right.as_str(), "name a version"),
            ("9.8.7", other.as_str(), "has the SHA-256 hash"),
            ("9.8.7", "abc", "64 hexadecimal digits"),
            ("9.8.7", &right.to_uppercase(), "in lower case"),
            ("9.8.8", &right, "downloading http://127.0.0.1"),
        ] {
            let options = [("VERSION", version), ("SHA256", hashes), ("MIRROR", &mirror)];
            let Outcome { success, output } = machine.install(&options);
            assert!(!success && output.contains(why), "{why}: {output}");
            assert_eq!(machine.left(), ["gh-net-sidecar"], "{why}");
        }
    }
}

#[test]
fn a_program_that_is_not_what_it_should_be_is_refused() {
    for machine in machines_with_curl() {
        for (text, why) in [
            (program("1.9.9"), "this is gh-net-sidecar 1.9.9, and not version 2.0.0"),
            ("#!/nonexistent\n".to_owned(), "does not run here"),
        ] {
            let mirror = mirror(release("download/v2.0.0", &text));
            let options = [("VERSION", "2.0.0"), ("SHA256", &sha256(&text)), ("MIRROR", &mirror)];
            let Outcome { success, output } = machine.install(&options);
            assert!(!success && output.contains(why), "{why}: {output}");
            assert!(machine.left().is_empty(), "{why}");
        }
    }
}

/// As in a checkout, which no release has given hashes.
#[test]
fn a_feature_without_hashes_downloads_nothing() {
    for machine in machines_with_curl() {
        let mirror = mirror(release(&format!("download/v{VERSION}"), &program(VERSION)));
        let Outcome { success, output } = machine.install(&[("MIRROR", &mirror)]);
        assert!(!success && output.contains("carries no hash"), "{output}");
        assert!(machine.left().is_empty());
    }
}

/// A sidecar that was put beside the script is checked as well, where there is a hash.
#[test]
fn a_local_sidecar_of_another_build_is_refused_if_the_hash_is_known() {
    for machine in machines() {
        machine.comes_with(&asset(), &program(VERSION));
        machine.is_published_with(&format!("{}#\n", program(VERSION)));
        let Outcome { success, output } = machine.install(&[]);
        assert!(!success && output.contains("has the SHA-256 hash"), "{output}");
        machine.is_published_with(&program(VERSION));
        assert!(machine.install(&[]).success);
    }
}

#[test]
fn curl_is_installed_if_there_is_no_downloader() {
    let managers = [
        ("apt-get", "apt-get install -q -y --no-install-recommends curl ca-certificates"),
        ("apk", "apk add --no-cache curl ca-certificates"),
        ("dnf", "dnf install -y curl ca-certificates"),
        ("microdnf", "microdnf install -y curl ca-certificates"),
        ("yum", "yum install -y curl ca-certificates"),
        ("zypper", "zypper --non-interactive install curl ca-certificates"),
    ];
    for (manager, wanted) in managers {
        for machine in machines_of_dash() {
            let bin = machine.path("bin").display().to_string();
            let log = machine.path("log").display().to_string();
            let curl = "/usr/bin/curl";
            // Each of its commands installs curl.
            machine.fakes(manager, &format!("echo {manager} \"$@\" >> {log}; cp {curl} {bin}/curl"));
            machine.is_published_with(&program(VERSION));
            let mirror = mirror(release(&format!("download/v{VERSION}"), &program(VERSION)));
            let Outcome { success, output } = machine.install(&[("MIRROR", &mirror)]);
            assert!(success, "{manager}: {output}");
            let ran = fs::read_to_string(log).unwrap();
            assert!(ran.lines().any(|line| line == wanted), "{manager}: {ran}");
        }
    }
    for machine in machines_of_dash() {
        machine.is_published_with(&program(VERSION));
        let Outcome { success, output } = machine.install(&[]);
        assert!(
            !success && output.contains("no package manager") && output.contains("curl or wget"),
            "{output}"
        );
    }
}

#[test]
fn unsupported_architectures_are_named_in_the_message() {
    for machine in machines_of_dash() {
        for (name, works) in [("amd64", true), ("arm64", true), ("riscv64", false), ("armv7l", false)] {
            fs::remove_file(machine.path("bin/uname")).unwrap();
            machine.fakes("uname", &format!("echo {name}"));
            machine.comes_with("gh-net-sidecar", &program(VERSION));
            let Outcome { success, output } = machine.install(&[]);
            assert_eq!(success, works, "{output}");
            assert!(works || output.contains(&format!("architecture {name}")), "{output}");
        }
    }
}

#[test]
fn a_user_gets_a_sudoers_entry_for_the_sidecar_only() {
    for machine in machines() {
        machine.comes_with(&asset(), &program(VERSION));
        machine.fakes("sudo", "exit 1");
        machine.has("visudo");
        let entry = machine.path("root").join(SUDOERS);
        let Outcome { success, output } = machine.install(&[("_REMOTE_USER", "vscode")]);
        assert!(success, "{output}");
        let text = fs::read_to_string(&entry).unwrap();
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        let commands = ["probe", "attach", "status", "status --json", "cleanup"];
        let allowed = commands
            .map(|command| format!("vscode ALL=(root) NOPASSWD: /usr/local/bin/gh-net-sidecar {command}"));
        assert_eq!(lines[0], "Defaults!/usr/local/bin/gh-net-sidecar env_keep += \"SSH_CONNECTION\"");
        assert_eq!(lines[1..], allowed);
        let found = fs::metadata(&entry).unwrap();
        assert_eq!((found.mode() & 0o7777, found.uid()), (0o440, 0));

        // remoteUser may also be a number.
        assert!(machine.install(&[("_REMOTE_USER", "1000")]).success);
        assert!(
            fs::read_to_string(&entry).unwrap().contains("\n#1000 ALL=(root) NOPASSWD: /usr/local/bin/gh")
        );
        // The last run applies.
        assert!(machine.install(&[("_REMOTE_USER", "vscode"), ("PRIVILEGES", "none")]).success);
        assert!(!entry.exists());
    }
}

#[test]
fn an_invalid_sudoers_entry_is_never_installed() {
    for machine in machines() {
        machine.comes_with(&asset(), &program(VERSION));
        machine.fakes("sudo", "exit 1");
        machine.fakes("visudo", "echo 'syntax error near line 2' >&2; exit 1");
        for (user, why) in
            [("vscode", "syntax error near line 2"), ("ALL, root", "can't be written into sudoers")]
        {
            let Outcome { success, output } = machine.install(&[("_REMOTE_USER", user)]);
            assert!(!success && output.contains(why), "{output}");
            assert_eq!(fs::read_dir(machine.path("root/etc/sudoers.d")).unwrap().count(), 0, "{user}");
        }
    }
}

#[test]
fn without_sudo_the_program_gets_capabilities() {
    for machine in machines() {
        machine.comes_with(&asset(), &program(VERSION));
        let user = ("_REMOTE_USER", "node");
        let Outcome { success, output } = machine.install(&[user]);
        assert!(
            success && output.contains("warning") && output.contains("node can't use gh-net"),
            "{output}"
        );
        let Outcome { success, output } = machine.install(&[user, ("PRIVILEGES", "capabilities")]);
        assert!(!success && output.contains("can't be set"), "{output}");

        let log = machine.path("log").display().to_string();
        machine.fakes("setcap", &format!("echo \"$@\" > {log}"));
        let Outcome { success, output } = machine.install(&[user]);
        assert!(success && !output.contains("warning"), "{output}");
        let installed = machine.installed().display().to_string();
        let wanted = "cap_net_admin,cap_net_bind_service,cap_dac_override,cap_mknod+p";
        assert_eq!(fs::read_to_string(log).unwrap(), format!("{wanted} {installed}\n"));
    }
}

#[test]
fn unknown_options_and_a_missing_sudo_are_reported() {
    for machine in machines() {
        machine.comes_with(&asset(), &program(VERSION));
        for (value, why) in [
            ("all", "possible values are auto, sudoers, capabilities and none"),
            ("sudoers", "sudo is not installed"),
        ] {
            let Outcome { success, output } =
                machine.install(&[("PRIVILEGES", value), ("_REMOTE_USER", "node")]);
            assert!(!success && output.contains(why), "{output}");
        }
    }
}
