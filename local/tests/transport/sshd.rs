//! A real sshd on loopback, run by the user of the tests, with its own keys and home directory.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};

use tempfile::TempDir;

/// The passphrase of the key "locked".
pub(crate) const PASSPHRASE: &str = "open sesame";

/// A running sshd. It ends when this is dropped.
pub(crate) struct Sshd {
    child: Child,
    log: BufReader<ChildStderr>,
    port: u16,
    directory: TempDir,
}

impl Sshd {
    /// An sshd whose sessions have `home()` as home directory and only the system's programs in PATH.
    pub(crate) fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::create_dir(directory.path().join("home")).unwrap();
        for (key, passphrase) in [("host", ""), ("user", ""), ("stranger", ""), ("locked", PASSPHRASE)] {
            keygen(&directory.path().join(key), passphrase);
        }
        let public = |key| std::fs::read_to_string(directory.path().join(key)).unwrap();
        let authorized = public("user.pub") + &public("locked.pub");
        std::fs::write(directory.path().join("authorized_keys"), authorized).unwrap();
        if nix::unistd::geteuid().is_root() {
            // Required by sshd's privilege separation.
            std::fs::create_dir_all("/run/sshd").unwrap();
        }
        // Another process may take the free port before sshd binds it.
        let started = (0..10).find_map(|_| try_start(directory.path()));
        let (child, log, port) = started.expect("sshd finds a port");
        let known = std::fs::read_to_string(directory.path().join("host.pub")).unwrap();
        std::fs::write(directory.path().join("known_hosts"), format!("[127.0.0.1]:{port} {known}")).unwrap();
        Self { child, log, port, directory }
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.directory.path().join("home")
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// `user@host` for ssh.
    pub(crate) fn destination(&self) -> String {
        format!("{}@127.0.0.1", user())
    }

    /// Options for a login without the user's own keys and without questions.
    pub(crate) fn options(&self) -> Vec<String> {
        self.options_with("user", "known_hosts")
    }

    /// The same with another key, or another file of known hosts.
    pub(crate) fn options_with(&self, key: &str, known_hosts: &str) -> Vec<String> {
        let path = |name: &str| self.directory.path().join(name).display().to_string();
        vec![
            format!("Port={}", self.port),
            format!("IdentityFile={}", path(key)),
            "IdentitiesOnly=yes".into(),
            "IdentityAgent=none".into(),
            format!("UserKnownHostsFile={}", path(known_hosts)),
            "GlobalKnownHostsFile=/dev/null".into(),
            "StrictHostKeyChecking=yes".into(),
            "PasswordAuthentication=no".into(),
            "KbdInteractiveAuthentication=no".into(),
        ]
    }

    /// An entry such as `gh codespace ssh --config` prints, for this sshd.
    pub(crate) fn entry(&self, alias: &str) -> String {
        let port = self.port;
        let key = self.directory.path().join("user").display().to_string();
        let proxy = r#"bash -c "exec 3<>/dev/tcp/127.0.0.1/PORT; cat <&3 & cat >&3""#;
        format!(
            "Host {alias}\n\tUser {}\n\tProxyCommand {}\n\tUserKnownHostsFile=/dev/null\n\
             \tStrictHostKeyChecking no\n\tLogLevel quiet\n\tControlMaster auto\n\tIdentityFile {key}\n\n",
            user(),
            proxy.replace("PORT", &port.to_string()),
        )
    }

    /// Waits until sshd logs a line that contains `words`.
    pub(crate) fn wait_for(&mut self, words: &str) {
        let mut line = String::new();
        while self.log.read_line(&mut line).unwrap() > 0 {
            if line.contains(words) {
                return;
            }
            line.clear();
        }
        panic!("sshd ended without logging {words:?}");
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn try_start(directory: &Path) -> Option<(Child, BufReader<ChildStderr>, u16)> {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let at = |name: &str| directory.join(name).display().to_string();
    let config = format!(
        "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nStrictModes no\n\
         PasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\nPidFile none\n\
         SetEnv HOME={} PATH=/usr/bin:/bin\n",
        at("host"),
        at("authorized_keys"),
        at("home"),
    );
    std::fs::write(directory.join("sshd_config"), config).unwrap();
    let mut child = Command::new("/usr/sbin/sshd")
        .args(["-D", "-e", "-f"])
        .arg(directory.join("sshd_config"))
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("sshd is installed");
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while log.read_line(&mut line).unwrap() > 0 {
        if line.contains("Server listening") {
            return Some((child, log, port));
        }
        line.clear();
    }
    child.wait().unwrap();
    None
}

fn keygen(path: &Path, passphrase: &str) {
    let status = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", passphrase, "-f"])
        .arg(path)
        .status()
        .expect("ssh-keygen is installed");
    assert!(status.success());
}

fn user() -> String {
    nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap().unwrap().name
}
