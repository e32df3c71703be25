//! What OpenSSH offers by itself: a tunnel device at both ends, and a SOCKS proxy in the codespace.

use std::time::Duration;

use anyhow::Result;
use gh_net_lab::{LAPTOP_HOME, LAPTOP_USER, Lab};

use super::{Carrier, Dial, NETWORK, Running, script};

/// The port of a second sshd, with PermitTunnel.
const TUNNEL_PORT: u16 = 2223;
/// The SOCKS proxy's port in the codespace.
pub(super) const SOCKS: u16 = 1080;

/// `ssh -w`: IP packets over ssh between two tunnel devices, routed and masqueraded by the laptop's kernel.
pub(super) fn tunnel(lab: &Lab) -> Result<Running<'_>> {
    let mut tunnel = Running::on(Carrier::Network(&lab.codespace, Dial::Direct));
    let sshd =
        format!("$(command -v sshd) -D -e -f /run/lab/sshd_config -p {TUNNEL_PORT} -o PermitTunnel=yes");
    let sshd = lab.codespace.spawn(&sshd)?;
    sshd.wait_for("Server listening", Duration::from_secs(10))?;
    tunnel.processes.push(sshd);

    let client = format!(
        "ssh -F {LAPTOP_HOME}/.ssh/config -i {LAPTOP_HOME}/.ssh/id_ed25519 \
         -o UserKnownHostsFile={LAPTOP_HOME}/.ssh/known_hosts -o HostKeyAlias=[172.16.5.4]:2222 \
         -o ExitOnForwardFailure=yes -p {TUNNEL_PORT} -N -w 0:0 codespace-root"
    );
    tunnel.processes.push(lab.laptop.spawn(&client)?);
    for host in [&lab.laptop, &lab.codespace] {
        tunnel.wait_until(host, "ip link set tun0 up")?;
    }

    let address = |own, other| format!("ip addr add 10.99.0.{own} peer 10.99.0.{other} dev tun0\n");
    script(&lab.laptop, &address(1, 2))?;
    script(&lab.codespace, &(address(2, 1) + "ip route add " + NETWORK + " dev tun0"))?;
    script(
        &lab.laptop,
        "echo 1 > /proc/sys/net/ipv4/ip_forward
        nft 'table ip rival { chain post { type nat hook postrouting priority srcnat; \
            ip saddr 10.99.0.2 masquerade; }; }'",
    )?;
    Ok(tunnel)
}

/// `ssh -R PORT`: a SOCKS proxy in the codespace whose connections the laptop's ssh makes.
pub(super) fn socks(lab: &Lab) -> Result<Running<'_>> {
    let mut tunnel = Running::on(Carrier::Network(&lab.codespace, Dial::Socks(SOCKS)));
    let mut client = lab.laptop.command_as(LAPTOP_USER, 1000, "ssh");
    client.args(["-o", "ExitOnForwardFailure=yes", "-N", "-R", &SOCKS.to_string(), "codespace"]);
    tunnel.processes.push(lab.laptop.start(client)?);
    tunnel.wait_until(&lab.codespace, &format!("nc -z 127.0.0.1 {SOCKS}"))?;
    Ok(tunnel)
}
