//! The tunnels from the codespace to the corporate network, each started as its users would start it.
//!
//! None of them undoes its changes, because the lab that it runs in ends with it.

use anyhow::{Result, ensure};
use gh_net_lab::{Bridge, Host, Lab, Process};

use super::measures::Carrier;
use super::network::Dial;

mod ssh;
mod sshuttle;
mod tun2proxy;

/// The corporate network.
const NETWORK: &str = "10.20.0.0/16";

/// A tunnel that is compared.
pub(super) struct Tunnel {
    pub(super) name: &'static str,
    /// Whether it is measured with `--rivals` only.
    pub(super) rival: bool,
    /// What a reader must know to judge its figures.
    pub(super) note: &'static str,
    pub(super) start: for<'lab> fn(&'lab Lab) -> Result<Running<'lab>>,
}

/// The tunnel that the others are compared with.
pub(super) const BASE: &str = "raw ssh pipe";
const GCM: &str = "Ciphers=aes128-gcm@openssh.com";

pub(super) const TUNNELS: [Tunnel; 9] = [
    Tunnel {
        name: "the laptop itself",
        rival: false,
        note: "no tunnel: the upper bound",
        start: |lab| Ok(Running::on(Carrier::Network(&lab.laptop, Dial::Direct))),
    },
    Tunnel {
        name: BASE,
        rival: false,
        note: "`ssh codespace cat`, default cipher: what ssh alone carries through a pipe",
        start: |lab| Ok(Running::on(Carrier::Pipe(&lab.laptop, &[]))),
    },
    Tunnel {
        name: "raw ssh pipe, aes128-gcm",
        rival: false,
        note: "the same with `-o Ciphers=aes128-gcm@openssh.com`",
        start: |lab| Ok(Running::on(Carrier::Pipe(&lab.laptop, &["-o", GCM]))),
    },
    Tunnel {
        name: "gh-net",
        rival: false,
        note: "`gh-net --ssh codespace`, without root on the laptop",
        start: |lab| gh_net(lab, &[]),
    },
    Tunnel {
        name: "gh-net, aes128-gcm",
        rival: true,
        note: "the same with `--ssh-option Ciphers=aes128-gcm@openssh.com`",
        start: |lab| gh_net(lab, &["--ssh-option", GCM]),
    },
    Tunnel {
        name: "ssh -w",
        rival: true,
        note: "root on both sides, `PermitTunnel yes`, forwarding and masquerade on the laptop",
        start: ssh::tunnel,
    },
    Tunnel {
        name: "ssh -R (SOCKS)",
        rival: true,
        note: "only for programs that speak SOCKS, and TCP only; iperf3 does not, so it runs under proxychains4",
        start: ssh::socks,
    },
    Tunnel {
        name: "ssh -R + tun2proxy",
        rival: true,
        note: "the same, and tun2proxy as root in the codespace for all programs; its `--max-sessions` is raised, as \
               by default it stops at 200 connections, those that have ended included",
        start: tun2proxy::start,
    },
    Tunnel {
        name: "sshuttle",
        rival: true,
        note: "as root in the codespace; the laptop needs an ssh server, Python, and a port forwarded to it; TCP only",
        start: sshuttle::start,
    },
];

/// A running tunnel.
pub(super) struct Running<'lab> {
    pub(super) carrier: Carrier<'lab>,
    processes: Vec<Process>,
    _bridge: Option<Bridge<'lab>>,
}

impl<'lab> Running<'lab> {
    fn on(carrier: Carrier<'lab>) -> Self {
        Self { carrier, processes: Vec::new(), _bridge: None }
    }

    /// Waits until a shell command succeeds on a host. The error contains the programs' stderr.
    fn wait_until(&self, host: &Host, condition: &str) -> Result<()> {
        // A shell can't wait for these conditions without polling.
        let attempts = "for attempt in $(seq 1000)";
        let line = format!("{attempts}; do {condition} && exit; sleep 0.01; done >/dev/null 2>&1; exit 1");
        let done = host.run(&line)?;
        let errors = || self.processes.iter().map(Process::stderr).collect::<String>();
        ensure!(done.code() == 0, "on {}, `{condition}` did not come true:\n{}", host.name(), errors());
        Ok(())
    }
}

fn gh_net<'lab>(lab: &'lab Lab, arguments: &[&str]) -> Result<Running<'lab>> {
    let carrier = Carrier::Network(&lab.codespace, Dial::Direct);
    Ok(Running { _bridge: Some(lab.bridge(arguments)?), ..Running::on(carrier) })
}

fn script(host: &Host, lines: &str) -> Result<()> {
    host.shell(&format!("set -e\n{lines}")).map(drop)
}
