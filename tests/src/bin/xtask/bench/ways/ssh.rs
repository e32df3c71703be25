//! What OpenSSH offers by itself: a tunnel device at both ends, and a SOCKS proxy in the codespace.

use std::time::Duration;

use anyhow::Result;
use gh_net_tests::lab::Lab;

use super::{Dial, LAPTOP_HOME, NETWORK, Road, Running, Undo, laptop_ssh, script, until};

/// sshd listens here too, with PermitTunnel.
const TUNNEL_PORT: u16 = 2223;
/// Where SOCKS is in the codespace.
pub(super) const SOCKS: u16 = 1080;

/// `ssh -w`: IP packets over ssh between two tunnel devices, routed and masqueraded by the laptop's kernel.
pub(super) fn tunnel(lab: &Lab) -> Result<Running<'_>> {
    let mut way = Running::on(Road::Network(&lab.codespace, Dial::Direct));
    let sshd =
        format!("$(command -v sshd) -D -e -f /run/lab/sshd_config -p {TUNNEL_PORT} -o PermitTunnel=yes");
    let sshd = lab.codespace.spawn(&sshd)?;
    sshd.wait_for("Server listening", Duration::from_secs(10))?;
    way.undo.push(Undo::End(sshd));

    for host in [&lab.codespace, &lab.laptop] {
        // The devices go with the connection, some moments after it.
        way.undo.push(Undo::Await(host, "! ip link show tun0".to_owned()));
    }
    let client = format!(
        "ssh -F {LAPTOP_HOME}/.ssh/config -i {LAPTOP_HOME}/.ssh/id_ed25519 \
         -o UserKnownHostsFile={LAPTOP_HOME}/.ssh/known_hosts -o HostKeyAlias=[172.16.5.4]:2222 \
         -o ExitOnForwardFailure=yes -p {TUNNEL_PORT} -N -w 0:0 codespace-root"
    );
    way.undo.push(Undo::End(lab.laptop.spawn(&client)?));
    for host in [&lab.laptop, &lab.codespace] {
        until(host, "ip link set tun0 up")?;
    }

    let address = |own, other| format!("ip addr add 10.99.0.{own} peer 10.99.0.{other} dev tun0\n");
    // These go with the devices.
    script(&lab.laptop, &address(1, 2))?;
    script(&lab.codespace, &(address(2, 1) + "ip route add " + NETWORK + " dev tun0"))?;
    way.change(
        &lab.laptop,
        "echo 1 > /proc/sys/net/ipv4/ip_forward
        nft 'table ip rival { chain post { type nat hook postrouting priority srcnat; \
            ip saddr 10.99.0.2 masquerade; }; }'",
        "nft delete table ip rival
        echo 0 > /proc/sys/net/ipv4/ip_forward",
    )?;
    Ok(way)
}

/// `ssh -R PORT`: a SOCKS proxy in the codespace whose connections the laptop's ssh makes.
pub(super) fn socks(lab: &Lab) -> Result<Running<'_>> {
    let mut way = Running::on(Road::Network(&lab.codespace, Dial::Socks(SOCKS)));
    let port = SOCKS.to_string();
    let client = laptop_ssh(lab, &["-o", "ExitOnForwardFailure=yes", "-N", "-R", &port, "codespace"])?;
    let listens = format!("nc -z 127.0.0.1 {SOCKS}");
    way.undo.push(Undo::Await(&lab.codespace, format!("! {listens}")));
    way.undo.push(Undo::End(client));
    until(&lab.codespace, &listens)?;
    Ok(way)
}
