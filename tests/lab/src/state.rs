//! The state of a host that gh-net could change, as text to compare byte for byte.

use anyhow::Result;

use super::Host;

/// Each line is a command whose output, errors included, is part of the state.
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

/// The state of a host at some moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State(Vec<(&'static str, String)>);

impl State {
    /// The differences to `later`, in the style of `diff`; empty if there are none.
    pub fn diff(&self, later: &Self) -> String {
        let mut diff = String::new();
        for ((query, before), (_, after)) in self.0.iter().zip(&later.0) {
            if before == after {
                continue;
            }
            let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
            let (before, after) = (lines(before), lines(after));
            diff.push_str(&format!("$ {query}\n"));
            diff.extend(before.iter().filter(|line| !after.contains(line)).map(|line| format!("- {line}\n")));
            diff.extend(after.iter().filter(|line| !before.contains(line)).map(|line| format!("+ {line}\n")));
        }
        diff
    }
}

impl Host {
    /// The present state of the host.
    ///
    /// # Errors
    /// A query can't be run at all.
    pub fn state(&self) -> Result<State> {
        let queries = QUERIES.lines().filter(|line| !line.is_empty());
        let answers = queries.map(|query| Ok((query, self.run(&format!("{query} 2>&1"))?.text())));
        answers.collect::<Result<_>>().map(State)
    }
}
