//! tun2proxy in front of OpenSSH's SOCKS proxy: a tunnel device for programs that don't speak SOCKS.

use anyhow::Result;
use gh_net_tests::lab::Lab;

use super::ssh::SOCKS;
use super::{Dial, NETWORK, Road, Running, Undo, script, ssh, until};
use crate::bench::install;

const PROGRAM: &str = "/run/lab/bin/tun2proxy";

pub(super) fn start(lab: &Lab) -> Result<Running<'_>> {
    let mut way = ssh::socks(lab)?;
    way.road = Road::Network(&lab.codespace, Dial::Direct);
    lab.codespace.install(&install::tun2proxy()?, PROGRAM)?;
    way.undo.push(Undo::Await(&lab.codespace, "! ip link show tun0".to_owned()));
    // A connection that both ends have closed stays a session until it times out.
    let line = format!(
        "{PROGRAM} --tun tun0 --proxy socks5://127.0.0.1:{SOCKS} --max-sessions 10000 --verbosity off"
    );
    way.undo.push(Undo::End(lab.codespace.spawn(&line)?));
    until(&lab.codespace, "ip link set tun0 up")?;
    script(&lab.codespace, &format!("ip route add {NETWORK} dev tun0"))?;
    Ok(way)
}
