//! The ways from the codespace to the corporate network, each started as its users would start it.
//!
//! A way lasts for one round: it is started, measured and undone, and the hosts are looked at before and after.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gh_net_tests::lab::{Bridge, Host, LAPTOP_HOME, LAPTOP_USER, Lab, Process};
use nix::sys::signal::Signal;

use super::measures::Road;
use super::network::Dial;

mod ssh;
mod sshuttle;
mod tun2proxy;

/// How long a program may take to end.
const END: Duration = Duration::from_secs(20);
/// The corporate network.
const NETWORK: &str = "10.20.0.0/16";

/// One of the field.
pub(super) struct Way {
    pub(super) name: &'static str,
    /// Whether it is measured with `--rivals` only.
    pub(super) rival: bool,
    /// What a reader must know to judge it.
    pub(super) note: &'static str,
    pub(super) start: for<'lab> fn(&'lab Lab) -> Result<Running<'lab>>,
}

/// What the others are compared with.
pub(super) const BASE: &str = "raw ssh pipe";
const GCM: &str = "Ciphers=aes128-gcm@openssh.com";

pub(super) const WAYS: [Way; 9] = [
    Way {
        name: "the laptop itself",
        rival: false,
        note: "no tunnel: the upper bound",
        start: |lab| Ok(Running::on(Road::Network(&lab.laptop, Dial::Direct))),
    },
    Way {
        name: BASE,
        rival: false,
        note: "`ssh codespace cat`, default cipher: the limit of what runs over ssh",
        start: |lab| Ok(Running::on(Road::Pipe(&lab.laptop, &[]))),
    },
    Way {
        name: "raw ssh pipe, aes128-gcm",
        rival: false,
        note: "the same with `-o Ciphers=aes128-gcm@openssh.com`",
        start: |lab| Ok(Running::on(Road::Pipe(&lab.laptop, &["-o", GCM]))),
    },
    Way {
        name: "gh-net",
        rival: false,
        note: "`gh-net --ssh codespace`: nobody is root on the laptop",
        start: |lab| gh_net(lab, &[]),
    },
    Way {
        name: "gh-net, aes128-gcm",
        rival: true,
        note: "the same with `--ssh-option Ciphers=aes128-gcm@openssh.com`",
        start: |lab| gh_net(lab, &["--ssh-option", GCM]),
    },
    Way {
        name: "ssh -w",
        rival: true,
        note: "root on both sides, `PermitTunnel yes`, forwarding and masquerade on the laptop",
        start: ssh::tunnel,
    },
    Way {
        name: "ssh -R (SOCKS)",
        rival: true,
        note: "only for programs that speak SOCKS, and TCP only; iperf3 does not, so it runs under proxychains4",
        start: ssh::socks,
    },
    Way {
        name: "ssh -R + tun2proxy",
        rival: true,
        note: "the same, and tun2proxy as root in the codespace for all programs; its `--max-sessions` is raised, as \
               by default it stops at 200 connections, those that have ended included",
        start: tun2proxy::start,
    },
    Way {
        name: "sshuttle",
        rival: true,
        note: "as root in the codespace; the laptop needs an ssh server, Python, and a port forwarded to it; TCP only",
        start: sshuttle::start,
    },
];

fn gh_net<'lab>(lab: &'lab Lab, arguments: &[&str]) -> Result<Running<'lab>> {
    let mut way = Running::on(Road::Network(&lab.codespace, Dial::Direct));
    way.undo.push(Undo::Bridge(lab.bridge(arguments)?));
    Ok(way)
}

/// A way that is up. Whatever it needed is undone in reverse when it is stopped, or dropped.
pub(super) struct Running<'lab> {
    pub(super) road: Road<'lab>,
    undo: Vec<Undo<'lab>>,
}

enum Undo<'lab> {
    Bridge(Bridge<'lab>),
    End(Process),
    Script(&'lab Host, &'static str),
    /// What ends by itself when what came after it has ended.
    Await(&'lab Host, String),
}

impl<'lab> Running<'lab> {
    fn on(road: Road<'lab>) -> Self {
        Self { road, undo: Vec::new() }
    }

    /// Runs shell lines on a host, after noting the lines that undo them.
    fn change(&mut self, host: &'lab Host, lines: &str, undo: &'static str) -> Result<()> {
        self.undo.push(Undo::Script(host, undo));
        script(host, lines)
    }

    /// Undoes everything.
    pub(super) fn stop(mut self) -> Result<()> {
        self.undo_all()
    }

    /// Undoes everything, also if something can't be undone; that is said then.
    fn undo_all(&mut self) -> Result<()> {
        let mut done = Ok(());
        while let Some(step) = self.undo.pop() {
            done = done.and(step.undo());
        }
        done
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        // Who cares has called `stop`; the lab's end takes care of the rest.
        let _ = self.undo_all();
    }
}

impl Undo<'_> {
    fn undo(self) -> Result<()> {
        match self {
            Self::Bridge(bridge) => bridge.stop().map(drop),
            Self::End(process) => {
                process.signal(Signal::SIGTERM)?;
                process.finish(END).map(drop)
            }
            Self::Script(host, lines) => script(host, lines),
            Self::Await(host, condition) => until(host, &condition),
        }
    }
}

fn script(host: &Host, lines: &str) -> Result<()> {
    host.shell(&format!("set -e\n{lines}")).map(drop)
}

/// Waits until a shell command succeeds on a host: what it looks for has no event that a shell could await.
fn until(host: &Host, condition: &str) -> Result<()> {
    let attempts = "for attempt in $(seq 1000)";
    let done =
        host.run(&format!("{attempts}; do {condition} && exit; sleep 0.01; done >/dev/null 2>&1; exit 1"))?;
    ensure!(done.code() == 0, "on {}, `{condition}` did not come true", host.name());
    Ok(())
}

/// The laptop's ssh, as the user who has the key.
fn laptop_ssh(lab: &Lab, arguments: &[&str]) -> Result<Process> {
    let mut command = lab.laptop.command_as(LAPTOP_USER, 1000, "ssh");
    command.args(arguments);
    lab.laptop.start(command).context("starting ssh on the laptop")
}
