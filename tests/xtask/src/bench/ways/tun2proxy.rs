//! tun2proxy in front of OpenSSH's SOCKS proxy: a tunnel device for programs that don't speak SOCKS.

use anyhow::Result;
use gh_net_lab::Lab;

use super::ssh::SOCKS;
use super::{Dial, NETWORK, Road, Running, script, ssh};
use crate::bench::install;

const PROGRAM: &str = "/run/lab/bin/tun2proxy";

pub(super) fn start(lab: &Lab) -> Result<Running<'_>> {
    let mut way = ssh::socks(lab)?;
    way.road = Road::Network(&lab.codespace, Dial::Direct);
    lab.codespace.install(&install::tun2proxy()?, PROGRAM)?;
    // A connection that both ends have closed stays a session until it times out.
    let line = format!(
        "{PROGRAM} --tun tun0 --proxy socks5://127.0.0.1:{SOCKS} --max-sessions 10000 --verbosity off"
    );
    way.processes.push(lab.codespace.spawn(&line)?);
    way.wait_until(&lab.codespace, "ip link set tun0 up")?;
    script(&lab.codespace, &format!("ip route add {NETWORK} dev tun0"))?;
    Ok(way)
}
