//! GitHub, as far as `gh codespace` needs it: the real gh runs against a fake API, and a shim in front of it replaces the
//! relay into a codespace.

use std::io::{self, Write};
use std::net::{Shutdown, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use crate::release;

use super::servers::{Servers, read_path};
use super::{Binaries, BridgeCommand, LAPTOP_USER, Lab};
use crate::root;

/// The codespace that the shim connects to.
pub const CODESPACE: &str = "big-fish-x7";
/// A codespace without an ssh server.
pub const CODESPACE_WITHOUT_SSHD: &str = "mute-crab-q2";

const PORT: u16 = 8100;
const SHIM_DIR: &str = "/run/lab/gh";
const CHECKOUT: &str = "/home/dev/src/gh-net";

/// The account that the fake API serves, selected by the first part of the URL's path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Account {
    /// Two codespaces.
    Two,
    /// One codespace.
    One,
    /// No codespace.
    None,
    /// The token lacks the scope.
    Forbidden,
    /// Not logged in.
    LoggedOut,
}

impl Account {
    fn path(self) -> &'static str {
        match self {
            Self::Two => "two",
            Self::One => "one",
            Self::None | Self::LoggedOut => "none",
            Self::Forbidden => "forbidden",
        }
    }
}

/// Prints the output of `gh codespace ssh --config`, and is the relay for `gh cs ssh --stdio`.
const SHIM: &str = r#"#!/bin/sh
name= config= stdio=
case "$1 $2" in "codespace ssh" | "cs ssh") ;; *) exec /usr/bin/gh "$@" ;; esac
all="$*"
while [ $# -gt 0 ]; do
    case "$1" in
        -c | --codespace) name=$2; shift ;;
        --config) config=1 ;;
        --stdio) stdio=1 ;;
    esac
    shift
done
case "$name" in
big-fish-x7)
    if [ "$stdio" ]; then exec nc 172.16.5.4 2222; fi
    echo config >> "$HOME/gh-config-calls"
    if [ -z "$config" ]; then echo "the shim does not support: $all" >&2; exit 1; fi
    cat <<END
Host cs.big-fish-x7.main
	User $USER_THERE
	ProxyCommand $0 cs ssh -c big-fish-x7 --stdio -- -i $HOME/.ssh/codespaces.auto
	UserKnownHostsFile=/dev/null
	StrictHostKeyChecking no
	LogLevel quiet
	ControlMaster auto
	IdentityFile $HOME/.ssh/codespaces.auto
END
    ;;
mute-crab-q2)
    cat >&2 <<END
error getting ssh server details: failed to start SSH server:
Please check if an SSH server is installed in the container.
If the docker image being used for the codespace does not have an SSH server,
install it in your Dockerfile or, for codespaces that use Debian-based images,
you can add the following to your devcontainer.json:

	"features": {
		"ghcr.io/devcontainers/features/sshd:1": {
			"version": "latest"
		}
	}
END
    exit 1 ;;
*) exec /usr/bin/gh $all ;;
esac
"#;

/// Whether the API says that the codespaces are stopped: for all labs of the process.
static STOPPED: AtomicBool = AtomicBool::new(false);

impl Lab {
    /// Lets the API say that the codespaces run or are stopped. It applies to all labs of the process.
    pub fn set_codespaces_running(running: bool) {
        STOPPED.store(!running, Ordering::Relaxed);
    }

    /// How often gh was asked for the ssh configuration of the codespace, which starts it.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn codespace_starts(&self) -> Result<usize> {
        Ok(self.laptop.read("/home/dev/gh-config-calls")?.lines().count())
    }

    /// Installs gh on the laptop: the shim, the key that gh would have created, and the fake API.
    ///
    /// # Errors
    /// Files can't be written, or the API's port can't be opened.
    pub fn start_github(&mut self) -> Result<()> {
        let shim = SHIM.replace("$USER_THERE", self.codespace_user());
        self.laptop.write(format!("{SHIM_DIR}/gh"), 0o755, shim)?;
        self.laptop.script(
            "cd /home/dev/.ssh; cp -p id_ed25519 codespaces.auto; cp -p id_ed25519.pub codespaces.auto.pub",
        )?;
        self.servers.push(Servers::custom(&self.laptop, PORT, serve)?);
        Ok(())
    }

    /// Lets gh install its extension from a checkout that contains the script and a released program. Needs
    /// [`Self::start_github`].
    ///
    /// # Errors
    /// The programs can't be built, or gh does not install the extension.
    pub fn install_extension(&self) -> Result<()> {
        let program = release::program(if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" });
        self.laptop.install(&root().join("gh-net"), &format!("{CHECKOUT}/gh-net"))?;
        self.laptop.install(&Binaries::get()?.gh_net, &format!("{CHECKOUT}/{program}"))?;
        self.laptop.script("chown -R 1000:1000 /home/dev")?;
        let mut install = self.gh(Account::None);
        install.args(["extension", "install", "."]).current_dir(CHECKOUT);
        self.laptop.start(install)?.finish(Duration::from_secs(60))?.ok().map(drop)
    }

    /// gh-net as run by gh: `gh net`. Needs [`Self::install_extension`].
    ///
    /// # Errors
    /// The programs can't be built.
    pub fn gh_net_by_gh(&self, account: Account, args: &[&str]) -> Result<BridgeCommand<'_>> {
        let mut command = self.gh(account);
        command.arg("net");
        Ok(BridgeCommand::of(self, &self.laptop, command)?.args(args))
    }

    fn gh(&self, account: Account) -> Command {
        let mut command = self.laptop.command_as(LAPTOP_USER, 1000, format!("{SHIM_DIR}/gh"));
        command.envs(environment(account));
        command
    }
}

impl BridgeCommand<'_> {
    /// Lets gh-net find gh, with this account.
    #[must_use]
    pub fn with_gh(self, account: Account) -> Self {
        environment(account).into_iter().fold(self, |command, (name, value)| command.env(name, &value))
    }
}

/// The environment in which the shim is found as gh, and gh uses the fake API.
fn environment(account: Account) -> [(&'static str, String); 5] {
    let api = format!("http://127.0.0.1:{PORT}/{}", account.path());
    let token = if account == Account::LoggedOut { "" } else { "stand-in" };
    [
        ("PATH", format!("{SHIM_DIR}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")),
        ("GITHUB_API_URL", api.clone()),
        ("GITHUB_SERVER_URL", api),
        ("GH_CONFIG_DIR", "/home/dev/.config/gh".to_owned()),
        ("GH_TOKEN", token.to_owned()),
    ]
}

fn serve(mut stream: TcpStream) -> io::Result<()> {
    let path = read_path(&mut stream)?;
    let (account, path) = path.trim_start_matches('/').split_once('/').unwrap_or_default();
    let path = path.split('?').next().unwrap_or_default();
    let (status, body) = match (account, path) {
        ("forbidden", _) => ("403 Forbidden", json!({"message": "Must have admin rights to Repository."})),
        ("two", "user/codespaces") => list(&[CODESPACE, CODESPACE_WITHOUT_SSHD]),
        ("one", "user/codespaces") => list(&[CODESPACE]),
        ("none", "user/codespaces") => list(&[]),
        _ => ("404 Not Found", json!({"message": "Not Found"})),
    };
    let scopes = if account == "forbidden" { "repo" } else { "codespace, repo" };
    let body = body.to_string();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nX-Oauth-Scopes: {scopes}\r\n\
         X-Accepted-Oauth-Scopes: codespace\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes())?;
    stream.shutdown(Shutdown::Write)
}

fn list(names: &[&str]) -> (&'static str, Value) {
    let codespaces: Vec<_> = names
        .iter()
        .map(|name| {
            json!({
                "name": name,
                "display_name": name.replace('-', " "),
                "created_at": "2024-05-01T10:00:00Z",
                "last_used_at": "2024-05-02T10:00:00Z",
                "state": if STOPPED.load(Ordering::Relaxed) { "Shutdown" } else { "Available" },
                "owner": {"login": "octocat"},
                "repository": {"full_name": "octocat/ocean"},
                "git_status": {"ref": "main", "has_uncommitted_changes": false},
                "machine": {"name": "basicLinux32gb"},
            })
        })
        .collect();
    ("200 OK", json!({"total_count": codespaces.len(), "codespaces": codespaces}))
}
