//! Logins: sshd and sudo in the codespace, and an ordinary user on each laptop with a key for the codespace.

use std::time::Duration;

use anyhow::Result;

use super::{Host, Lab, Process};

/// The laptop's ordinary user.
pub const LAPTOP_USER: &str = "dev";
/// Its home directory.
pub const LAPTOP_HOME: &str = "/home/dev";
/// The codespace's ordinary user. It may use sudo without a password.
const CODESPACE_USER: &str = "vscode";

const SSHD_CONFIG: &str = "
Port 2222
HostKey /run/lab/ssh_host_ed25519_key
PidFile none
UsePAM no
PasswordAuthentication no
PermitRootLogin yes
StrictModes yes
MaxStartups 100
MaxSessions 100
AcceptEnv LANG
Subsystem sftp internal-sftp
";

/// One entry of a laptop's ssh configuration: `codespace` logs in as an ordinary user, `codespace-root` as root.
const SSH_CONFIG: &str = "
Host $NAME
    HostName $ADDRESS
    Port 2222
    User $USER
    StrictHostKeyChecking yes
    BatchMode yes
";

impl Lab {
    pub(super) fn start_logins(&mut self) -> Result<()> {
        let codespace = &self.codespace;
        add_user(codespace, CODESPACE_USER)?;
        codespace.script("rm -f /etc/sudoers")?;
        codespace.write("/run/lab/sshd_config", 0o600, SSHD_CONFIG)?;
        codespace.write("/etc/sudoers", 0o440, "root ALL=(ALL:ALL) ALL\nvscode ALL=(ALL) NOPASSWD: ALL\n")?;
        if self.options.noisy_login {
            // Debian's bash reads this file for commands that sshd starts.
            codespace.write("/home/vscode/.bashrc", 0o644, "echo 'Welcome to Codespaces! 👋'\n")?;
        }
        codespace.script("ssh-keygen -q -t ed25519 -N '' -f /run/lab/ssh_host_ed25519_key")?;

        self.make_laptop(&self.laptop)?;
        let sshd = self.start_sshd()?;
        self.daemons.push(sshd);
        Ok(())
    }

    /// How many logins the codespace's first sshd has accepted.
    pub fn logins(&self) -> usize {
        self.daemons.last().map_or(0, |sshd| sshd.stderr().matches("Accepted publickey").count())
    }

    /// Starts the codespace's sshd. The first one runs from the lab's start.
    ///
    /// # Errors
    /// It does not start.
    pub fn start_sshd(&self) -> Result<Process> {
        sshd(&self.codespace)
    }

    /// Starts an sshd in the corporate network, at 10.20.0.10, and gives the codespace's root a key for it. Returns the
    /// command line by which root logs in there.
    ///
    /// # Errors
    /// Files can't be written, or a program fails.
    pub fn start_corporate_sshd(&self) -> Result<(Process, &'static str)> {
        const LOGIN: &str = "ssh -T -F none -o BatchMode=yes -i /run/lab/corporate_key -p 2222 \
             -o UserKnownHostsFile=/run/lab/corporate_known_hosts root@10.20.0.10";
        let codespace = &self.codespace;
        codespace.script("ssh-keygen -q -t ed25519 -N '' -f /run/lab/corporate_key")?;
        let (sshd, host_key) = root_login(&self.corp, &codespace.read("/run/lab/corporate_key.pub")?)?;
        let known = format!("[10.20.0.10]:2222 {host_key}");
        codespace.write("/run/lab/corporate_known_hosts", 0o644, known)?;
        Ok((sshd, LOGIN))
    }

    /// Turns [`Lab::lan`] into a second codespace: the laptop's user logs in there as root, by `ssh other`.
    ///
    /// # Errors
    /// Files can't be written, or a program fails.
    pub fn start_other_codespace(&self) -> Result<Process> {
        let laptop = &self.laptop;
        let (sshd, host_key) = root_login(&self.lan, &laptop.read("/home/dev/.ssh/id_ed25519.pub")?)?;
        for (file, addition) in [
            ("/home/dev/.ssh/known_hosts", format!("[192.168.1.50]:2222 {host_key}")),
            ("/home/dev/.ssh/config", entry("other", "192.168.1.50", "root")),
        ] {
            laptop.write(file, 0o644, laptop.read(file)? + &addition)?;
        }
        Ok(sshd)
    }

    /// Gives `host` the user [`LAPTOP_USER`] with its own key for the codespace, so that gh-net can run there.
    ///
    /// # Errors
    /// Files can't be written, or ssh-keygen fails.
    pub fn make_laptop(&self, host: &Host) -> Result<()> {
        add_user(host, LAPTOP_USER)?;
        host.script("su -s /bin/sh dev -c \"ssh-keygen -q -t ed25519 -N '' -f ~/.ssh/id_ed25519\"")?;
        let key = host.read("/home/dev/.ssh/id_ed25519.pub")?;
        self.codespace.script(&format!(
            "umask 022
            for home in /root /home/vscode; do
                mkdir -p $home/.ssh
                echo '{}' >> $home/.ssh/authorized_keys
            done",
            key.trim()
        ))?;

        let host_key = self.codespace.read("/run/lab/ssh_host_ed25519_key.pub")?;
        host.write("/home/dev/.ssh/known_hosts", 0o644, format!("[172.16.5.4]:2222 {host_key}"))?;
        let config = entry("codespace", "172.16.5.4", self.codespace_user())
            + &entry("codespace-root", "172.16.5.4", "root");
        host.write("/home/dev/.ssh/config", 0o644, config)
    }

    /// Whether sudo works in the lab. In a user namespace, root does not own the machine's sudo, so it does not.
    pub fn has_sudo(&self) -> bool {
        self.codespace.shell("stat -c %u $(command -v sudo)").is_ok_and(|owner| owner == "0")
    }

    /// The user that laptops log in as: an ordinary user with sudo, or root where sudo does not work.
    pub fn codespace_user(&self) -> &'static str {
        if self.has_sudo() { CODESPACE_USER } else { "root" }
    }
}

/// An entry of a laptop's ssh configuration.
fn entry(name: &str, address: &str, user: &str) -> String {
    SSH_CONFIG.replace("$NAME", name).replace("$ADDRESS", address).replace("$USER", user)
}

/// Starts an sshd on a host, in which root logs in with `key`. Returns it with its public key.
fn root_login(host: &Host, key: &str) -> Result<(Process, String)> {
    add_user(host, "admin")?;
    host.write("/run/lab/sshd_config", 0o600, SSHD_CONFIG)?;
    host.script(
        "ssh-keygen -q -t ed25519 -N '' -f /run/lab/ssh_host_ed25519_key; mkdir -p -m 700 /root/.ssh",
    )?;
    host.write("/root/.ssh/authorized_keys", 0o600, key)?;
    Ok((sshd(host)?, host.read("/run/lab/ssh_host_ed25519_key.pub")?))
}

fn sshd(host: &Host) -> Result<Process> {
    // By its absolute path: sshd executes itself again for each connection.
    let sshd = host.spawn("$(command -v sshd) -D -e -f /run/lab/sshd_config")?;
    sshd.wait_for("Server listening", Duration::from_secs(10))?;
    Ok(sshd)
}

/// Gives the host its own accounts instead of those of the machine that the lab runs on.
fn add_user(host: &Host, user: &str) -> Result<()> {
    host.script("rm -f /etc/passwd /etc/group /etc/shadow")?;
    host.write(
        "/etc/passwd",
        0o644,
        format!(
            "root:x:0:0:root:/root:/bin/bash\n\
             {user}:x:1000:1000:{user}:/home/{user}:/bin/bash\n\
             sshd:x:103:65534::/run/sshd:/usr/sbin/nologin\n\
             nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
        ),
    )?;
    host.write("/etc/group", 0o644, format!("root:x:0:\n{user}:x:1000:\nnogroup:x:65534:\n"))?;
    host.write("/etc/shadow", 0o640, format!("root:*:19000::::::\n{user}:*:19000::::::\n"))?;
    host.script(&format!(
        "mkdir -p /home/{user}/.ssh
        chmod 700 /home/{user}/.ssh
        chown -R 1000:1000 /home/{user}"
    ))
}
