//! sshuttle in the direction opposite to its usual use: its client captures in the codespace, its server is the laptop.
//!
//! This needs an ssh server on the laptop that the codespace reaches. Here the home router forwards a port to it, which
//! is the most favourable case. Without that, ssh would have to run inside of ssh.

use std::time::Duration;

use anyhow::{Context, Result};
use gh_net_lab::{LAPTOP_HOME, LAPTOP_USER, Lab};

use super::{Carrier, Dial, NETWORK, Running, script};
use crate::bench::install;

const FOLDER: &str = "/run/lab/sshuttle";
const SSHD_CONFIG: &str = "
Port 22
HostKey /run/lab/ssh_host_ed25519_key
PidFile none
UsePAM no
PasswordAuthentication no
";

pub(super) fn start(lab: &Lab) -> Result<Running<'_>> {
    let mut tunnel = Running::on(Carrier::Network(&lab.codespace, Dial::Direct));
    laptop_sshd(lab, &mut tunnel).context("the laptop's ssh server")?;
    script(
        &lab.home,
        "nft 'table ip rival { chain pre { type nat hook prerouting priority dstnat; \
            iifname wan0 tcp dport 22 dnat to 192.168.1.20:22; }; }'",
    )?;

    let packed = format!("{FOLDER}.tar");
    lab.codespace.install(&install::sshuttle()?, &packed)?;
    script(&lab.codespace, &format!("mkdir -p {FOLDER}\ntar -xf {packed} -C {FOLDER}"))?;
    let mut command = lab.codespace.command("python3");
    command.env("PYTHONPATH", FOLDER).args(["-m", "sshuttle", "--method", "nft", "--disable-ipv6"]);
    command.args(["--ssh-cmd", "ssh -i /run/lab/sshuttle_key -o StrictHostKeyChecking=accept-new"]);
    command.args(["--remote", &format!("{LAPTOP_USER}@198.51.100.2"), NETWORK]);
    let client = lab.codespace.start(command)?;
    tunnel.processes.push(client);
    // It accepts connections as soon as its firewall rules are installed.
    tunnel.wait_until(&lab.codespace, "nc -z 10.20.0.10 7")?;
    Ok(tunnel)
}

/// An ssh server on the laptop, on which the codespace's root can log in as the laptop's user.
fn laptop_sshd<'lab>(lab: &'lab Lab, tunnel: &mut Running<'lab>) -> Result<()> {
    let keygen = |file: &str| format!("ssh-keygen -q -t ed25519 -N '' -f {file}");
    script(&lab.laptop, &keygen("/run/lab/ssh_host_ed25519_key"))?;
    script(&lab.codespace, &keygen("/run/lab/sshuttle_key"))?;
    let key = lab.codespace.read("/run/lab/sshuttle_key.pub")?;
    lab.laptop.write(format!("{LAPTOP_HOME}/.ssh/authorized_keys"), 0o644, key)?;
    lab.laptop.write("/run/lab/sshd_config", 0o600, SSHD_CONFIG)?;
    let sshd = lab.laptop.spawn("$(command -v sshd) -D -e -f /run/lab/sshd_config")?;
    sshd.wait_for("Server listening", Duration::from_secs(10))?;
    tunnel.processes.push(sshd);
    Ok(())
}
