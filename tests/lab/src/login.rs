//! Logins: sshd and sudo in the codespace, and an ordinary user on each laptop with a key for the codespace.

use std::time::Duration;

use anyhow::Result;

use super::{Host, Lab};

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
    HostName 172.16.5.4
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

        // By its absolute path: sshd executes itself again for each connection.
        let sshd = codespace.spawn("$(command -v sshd) -D -e -f /run/lab/sshd_config")?;
        sshd.wait_for("Server listening", Duration::from_secs(10))?;
        self.daemons.push(sshd);
        Ok(())
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
        let entry = |name, user| SSH_CONFIG.replace("$NAME", name).replace("$USER", user);
        let config = entry("codespace", self.codespace_user()) + &entry("codespace-root", "root");
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
