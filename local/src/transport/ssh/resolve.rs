//! Where ssh would connect to, by its own configuration: two names may lead to the same host, and one name with
//! different options to different ones.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

/// ssh's options that decide where a connection leads, and as whom.
const DECISIVE: [&str; 6] = ["user", "hostname", "port", "proxycommand", "proxyjump", "hostkeyalias"];
/// How long ssh may take: a configuration may run commands (`Match exec`) and look up names.
const PATIENCE: Duration = Duration::from_secs(3);

/// What `destination` with `options` stands for. What was typed, if ssh does not tell.
pub(in crate::transport) async fn resolve(destination: &str, options: &[String]) -> Vec<String> {
    let mut command = Command::new("ssh");
    command.arg("-G").args(options.iter().flat_map(|option| ["-o", option])).args(["--", destination]);
    command.stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    match timeout(PATIENCE, command.output()).await {
        Ok(Ok(output)) if output.status.success() => decisive(&String::from_utf8_lossy(&output.stdout)),
        Ok(Ok(_) | Err(_)) | Err(_) => std::iter::once(destination)
            .chain(options.iter().map(String::as_str))
            .map(str::to_owned)
            .collect(),
    }
}

/// The lines of the output of `ssh -G` that matter here.
fn decisive(output: &str) -> Vec<String> {
    let is_decisive = |line: &&str| line.split_once(' ').is_some_and(|(name, _)| DECISIVE.contains(&name));
    let mut lines: Vec<_> = output.lines().filter(is_decisive).map(str::to_owned).collect();
    lines.sort();
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn resolved(destination: &str, options: &[&str]) -> Vec<String> {
        let options: Vec<_> = options.iter().map(|&option| option.to_owned()).collect();
        resolve(destination, &options).await
    }

    #[tokio::test]
    async fn names_of_one_host_are_equal_and_other_ports_users_and_ways_are_not() {
        let plain = resolved("me@build.example", &["Port=22", "ProxyCommand=none"]).await;
        assert_eq!(resolved("ssh://me@build.example:22", &["ProxyCommand=none"]).await, plain);
        assert_eq!(
            resolved("alias", &["HostName=build.example", "User=me", "ProxyCommand=none"]).await,
            plain
        );
        assert_eq!(resolved("me@build.example", &["ProxyCommand=none", "Compression=yes"]).await, plain);
        for other in [
            resolved("me@build.example", &["Port=2222"]).await,
            resolved("you@build.example", &["Port=22"]).await,
            resolved("me@build.example", &["ProxyCommand=nc elsewhere 22"]).await,
            resolved("me@build.example", &["ProxyJump=elsewhere"]).await,
        ] {
            assert_ne!(other, plain);
        }
    }

    #[tokio::test]
    async fn what_ssh_does_not_understand_stands_for_itself() {
        assert_eq!(resolved("host", &["NoSuchOption=1"]).await, ["host", "NoSuchOption=1"]);
    }
}
