//! tun2proxy in front of OpenSSH's SOCKS proxy: a tunnel device for programs that don't speak SOCKS.

use anyhow::Result;
use gh_net_lab::Lab;

use super::ssh::SOCKS;
use super::{Carrier, Dial, NETWORK, Running, script, ssh};
use crate::bench::install;

const PROGRAM: &str = "/run/lab/bin/tun2proxy";

pub(super) fn start(lab: &Lab) -> Result<Running<'_>> {
    let mut tunnel = ssh::socks(lab)?;
    tunnel.carrier = Carrier::Network(&lab.codespace, Dial::Direct);
    lab.codespace.install(&install::tun2proxy()?, PROGRAM)?;
    // A closed connection counts as a session until it times out.
    let line = format!(
        "{PROGRAM} --tun tun0 --proxy socks5://127.0.0.1:{SOCKS} --max-sessions 10000 --verbosity off"
    );
    tunnel.processes.push(lab.codespace.spawn(&line)?);
    tunnel.wait_until(&lab.codespace, "ip link set tun0 up")?;
    script(&lab.codespace, &format!("ip route add {NETWORK} dev tun0"))?;
    Ok(tunnel)
}
