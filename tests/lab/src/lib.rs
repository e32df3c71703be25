//! The lab: a codespace, a laptop, and the networks around them, each a set of Linux namespaces.
//!
//! ```text
//!   nested 172.17.0.2                                   lan 192.168.1.50
//!      │ docker0 (masquerade)                              │ br-lan 192.168.1.1
//!   codespace ── 172.16.5.4 ── internet ── 198.51.100.2 ── home ── 192.168.1.20 wlan0 ── laptop
//!   sshd :2222      eth0       203.0.113.10     (NAT)                                      │ corp0 10.8.0.2
//!                              counts leaks                                                │
//!                              public DNS                 corp 10.20.0.10 ── 10.20.0.1 ── vpn 10.8.0.1
//! ```
//!
//! Only the laptop reaches the corporate network (10.20.0.0/16, fd20:20::/48). [`Lab::make_laptop`] turns another host
//! into a second laptop. [`Lab::wan`] makes the way between internet and home a distant line. The programs are real: OpenSSH's sshd, dnsmasq, iperf3, nftables, sudo. [`servers`] has the
//! servers for which there is no tool.
//!
//! A lab needs root, or a user namespace with a range of user ids, which `cargo xtask` creates where that is allowed. In
//! a user namespace sudo does not work (the namespace's root does not own the machine's sudo), so there gh-net logs in to
//! the codespace as root.
//!
//! Several labs may run concurrently, because none of their resources has a machine-wide name. All processes of a lab
//! are in a PID namespace of its own, so they end with the [`Lab`] or with the process that owns it, however that
//! ends.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};

mod binaries;
mod bridge;
mod container;
mod dns;
mod docker;
pub mod executable;
mod faults;
pub mod floods;
mod github;
mod host;
mod login;
mod privilege;
mod process;
pub mod release;
pub mod servers;
mod state;
mod sys;
pub mod traffic;
pub mod wan;
mod wiring;

pub use binaries::{Binaries, DEVELOPMENT};
pub use bridge::{Bridge, BridgeCommand, Bridged};
pub use dns::question;
pub use docker::{DOCKER_HOST, Docker, SHARED, remove_groups};
pub use faults::{Direction, Terminal};
pub use github::{Account, CODESPACE, CODESPACE_WITHOUT_SSHD};
pub use host::Host;
pub use login::{LAPTOP_HOME, LAPTOP_USER};
pub use privilege::{
    find_program, missing_lab_tools, missing_of, missing_tools, obstacle, privileged, skip_because,
    skip_without,
};
pub use process::{Output, Process, peak_memory};
pub use servers::{Event, EventKind, Servers};
pub use state::State;
pub use wan::Wan;

use container::PidNamespace;

/// The workspace's directory.
pub fn root() -> &'static Path {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    folder.expect("the crate is two folders below the workspace")
}

/// Whether this runs in CI, where a missing privilege or tool is a failure and not a skip.
pub fn in_ci() -> bool {
    std::env::var_os("CI").is_some_and(|ci| ci == "true")
}

/// Deviations from the default lab.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Whether the codespace has its own IPv6 and a default route for it. Most codespaces have not.
    pub codespace_ipv6: bool,
    /// Whether the home router translates addresses. Otherwise the codespace sees 192.168.1.20 itself.
    pub home_nat: bool,
    /// Whether the codespace's shell prints a banner on stdout before it runs a command.
    pub noisy_login: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { codespace_ipv6: false, home_nat: true, noisy_login: false }
    }
}

/// A running lab. See the [module's documentation](self).
#[derive(Debug)]
pub struct Lab {
    /// The codespace, whose programs use the bridge.
    pub codespace: Host,
    /// A container on the codespace's docker-like network, 172.17.0.2.
    pub nested: Host,
    /// The router between the uplinks, with a public web server (203.0.113.10) and public DNS (172.16.5.1).
    pub internet: Host,
    /// The laptop's router.
    pub home: Host,
    /// Another host of the laptop's LAN, 192.168.1.50.
    pub lan: Host,
    /// The laptop, where gh-net runs as an ordinary user.
    pub laptop: Host,
    /// The gateway between the laptop and the corporate network.
    pub vpn: Host,
    /// The corporate server: 10.20.0.10, its DNS 10.20.0.53, and 10.20.0.66, which drops everything.
    pub corp: Host,
    options: Options,
    servers: Vec<Arc<Servers>>,
    daemons: Vec<Process>,
    // Declared last, because dropping it ends all processes of the fields above.
    _pids: PidNamespace,
}

impl Lab {
    /// Builds a lab and starts its servers.
    ///
    /// # Errors
    /// A tool is missing, a namespace was refused, or a server did not start; the message says which.
    pub fn start(options: Options) -> Result<Self> {
        let pids = PidNamespace::new().context("making a PID namespace")?;
        let host = |name| Host::new(name, &pids).with_context(|| format!("making the host {name}"));
        let mut lab = Self {
            codespace: host("codespace")?,
            nested: host("nested")?,
            internet: host("internet")?,
            home: host("home")?,
            lan: host("lan")?,
            laptop: host("laptop")?,
            vpn: host("vpn")?,
            corp: host("corp")?,
            options,
            servers: Vec::new(),
            daemons: Vec::new(),
            _pids: pids,
        };
        lab.wire().context("wiring the lab")?;
        lab.start_dns().context("starting DNS")?;
        lab.start_servers().context("starting servers")?;
        lab.start_logins().context("starting sshd")?;
        lab.start_container().context("starting the nested container")?;
        Ok(lab)
    }

    /// For tests: a lab, or `None` after a message if the privilege for it is missing.
    ///
    /// # Panics
    /// With `CI=true` in the environment a missing privilege is a failure.
    ///
    /// # Errors
    /// See [`Self::start`].
    pub fn for_test(options: Options) -> Result<Option<Self>> {
        if privilege::skip() { Ok(None) } else { Self::start(options).map(Some) }
    }

    /// The options that this lab was started with.
    pub fn options(&self) -> Options {
        self.options
    }

    /// All hosts.
    pub fn hosts(&self) -> [&Host; 8] {
        let Self { codespace, nested, internet, home, lan, laptop, vpn, corp, .. } = self;
        [codespace, nested, internet, home, lan, laptop, vpn, corp]
    }

    /// The servers of the corporate network and the events they recorded.
    pub fn corp_servers(&self) -> &Servers {
        &self.servers[0]
    }

    fn start_servers(&mut self) -> Result<()> {
        self.servers.push(Servers::corporate(&self.corp)?);
        for (host, port) in [(&self.internet, 80), (&self.lan, 80), (&self.laptop, 8000), (&self.nested, 80)]
        {
            self.servers.push(Servers::web(host, port)?);
        }
        let iperf = self.corp.spawn("iperf3 --server --forceflush")?;
        iperf.wait_for("Server listening", Duration::from_secs(10))?;
        self.daemons.push(iperf);
        Ok(())
    }
}
