//! All that gh-net could have changed in a host, as text to compare byte for byte.

use anyhow::Result;

use super::Host;

/// Each line is run by itself; what it says, errors included, is part of the state.
const QUERIES: &str = "
ip rule
ip -6 rule
ip route show table all
ip -6 route show table all
ip link
ip addr
ip tuntap
nft list ruleset
cat /etc/resolv.conf
stat -c '%a %u %g %i' /etc/resolv.conf
cat /etc/hosts
ls -A /run/gh-net
ls /run
ls -A /dev/net
cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding
cat /proc/sys/net/ipv4/conf/*/rp_filter
grep -h . /proc/mounts
";

impl Host {
    /// See the module's documentation.
    ///
    /// # Errors
    /// A query can't be run at all.
    pub fn state(&self) -> Result<String> {
        let mut state = String::new();
        for query in QUERIES.lines().filter(|line| !line.is_empty()) {
            let output = self.run(&format!("{query} 2>&1"))?;
            state.push_str(&format!("$ {query}\n{}\n", output.text()));
        }
        Ok(state)
    }
}
