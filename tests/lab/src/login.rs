//! The accounts of the lab: sshd and sudo in the codespace, and the laptop's ordinary user with a key for it.

use std::time::Duration;

use anyhow::Result;

use super::Lab;

/// The laptop's ordinary user.
pub const LAPTOP_USER: &str = "dev";
/// Its home directory.
pub const LAPTOP_HOME: &str = "/home/dev";
/// The codespace's ordinary user, who may use sudo without a password.
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

/// One entry of the laptop's ssh configuration: `codespace` is an ordinary user there, `codespace-root` is root.
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
        self.add_user("codespace", CODESPACE_USER)?;
        self.add_user("laptop", LAPTOP_USER)?;
        self.laptop.script("su -s /bin/sh dev -c \"ssh-keygen -q -t ed25519 -N '' -f ~/.ssh/id_ed25519\"")?;
        let key = self.laptop.read("/home/dev/.ssh/id_ed25519.pub")?;
        let codespace = &self.codespace;
        codespace.script("rm -f /etc/sudoers")?;
        codespace.write("/root/.ssh/authorized_keys", 0o600, key.as_str())?;
        codespace.write("/home/vscode/.ssh/authorized_keys", 0o644, key)?;
        codespace.write("/run/lab/sshd_config", 0o600, SSHD_CONFIG)?;
        codespace.write("/etc/sudoers", 0o440, "root ALL=(ALL:ALL) ALL\nvscode ALL=(ALL) NOPASSWD: ALL\n")?;
        if self.options.noisy_login {
            // Debian's bash reads this file for commands that sshd starts.
            codespace.write("/home/vscode/.bashrc", 0o644, "echo 'Welcome to Codespaces! 👋'\n")?;
        }
        codespace.script("ssh-keygen -q -t ed25519 -N '' -f /run/lab/ssh_host_ed25519_key")?;

        let host_key = codespace.read("/run/lab/ssh_host_ed25519_key.pub")?;
        let known = format!("[172.16.5.4]:2222 {host_key}");
        self.laptop.write("/home/dev/.ssh/known_hosts", 0o644, known)?;
        let entry = |name, user| SSH_CONFIG.replace("$NAME", name).replace("$USER", user);
        let config = entry("codespace", self.codespace_user()) + &entry("codespace-root", "root");
        self.laptop.write("/home/dev/.ssh/config", 0o644, config)?;

        // Under its own path: sshd starts itself again for each connection.
        let sshd = codespace.spawn("$(command -v sshd) -D -e -f /run/lab/sshd_config")?;
        sshd.wait_for("Server listening", Duration::from_secs(10))?;
        self.daemons.push(sshd);
        Ok(())
    }

    /// Whether sudo works in the lab. Where the lab is in a user namespace, the machine's sudo is not root's.
    pub fn has_sudo(&self) -> bool {
        self.codespace.shell("stat -c %u $(command -v sudo)").is_ok_and(|owner| owner == "0")
    }

    /// Who logs in to the codespace: an ordinary user with sudo, or root where sudo does not work.
    pub fn codespace_user(&self) -> &'static str {
        if self.has_sudo() { CODESPACE_USER } else { "root" }
    }

    /// Hosts have accounts of their own, not those of the machine that the lab runs on.
    fn add_user(&self, host: &str, user: &str) -> Result<()> {
        let host = if host == "laptop" { &self.laptop } else { &self.codespace };
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
}
