//! Why ssh did not connect, derived from its messages, and what to do about it.

use crate::exit::Exit;

/// A reason that has a remedy of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The server did not accept the login.
    Denied,
    /// The server's key is unknown, or has changed.
    HostKey,
    /// The name does not resolve.
    Name,
    /// Nothing listens on the port.
    Refused,
    /// No answer in time.
    TimedOut,
    /// There is no route to the host.
    Unreachable,
    /// ssh does not understand its options or configuration.
    Options,
    /// Anything else.
    Other,
}

/// Messages of OpenSSH, and the reason each means. The first match counts, so messages that follow from another one
/// are listed after it.
const MESSAGES: [(&str, Reason); 16] = [
    ("Bad configuration option", Reason::Options),
    ("terminating, ", Reason::Options),
    ("command-line: line", Reason::Options),
    ("Bad owner or permissions", Reason::Options),
    ("Can't open user config file", Reason::Options),
    ("Could not resolve hostname", Reason::Name),
    ("Host key verification failed", Reason::HostKey),
    ("REMOTE HOST IDENTIFICATION HAS CHANGED", Reason::HostKey),
    ("Permission denied (", Reason::Denied),
    ("Too many authentication failures", Reason::Denied),
    ("Connection refused", Reason::Refused),
    ("timed out", Reason::TimedOut),
    ("No route to host", Reason::Unreachable),
    ("Network is unreachable", Reason::Unreachable),
    ("Connection closed by", Reason::Other),
    ("Connection reset by", Reason::Other),
];

impl Reason {
    /// The reason for a failure with this stderr.
    pub(super) fn of(stderr: &str) -> Self {
        MESSAGES
            .iter()
            .find(|(message, _)| stderr.contains(message))
            .map_or(Self::Other, |(_, reason)| *reason)
    }

    /// What happened, as a predicate of "ssh".
    pub(super) fn what(self) -> &'static str {
        match self {
            Self::Denied => "was denied access by",
            Self::HostKey => "does not trust the host key of",
            Self::Name => "does not know the host name of",
            Self::Refused => "found no ssh server at",
            Self::TimedOut => "got no answer from",
            Self::Unreachable => "has no route to",
            Self::Options => "does not accept the options or configuration for",
            Self::Other => "could not connect to",
        }
    }

    pub(super) fn exit(self) -> Exit {
        match self {
            Self::Denied => Exit::Denied,
            Self::Options => Exit::Usage,
            Self::HostKey | Self::Name | Self::Refused | Self::TimedOut | Self::Unreachable | Self::Other => {
                Exit::Unreachable
            }
        }
    }

    /// What to do, for an ssh `destination` that the user named.
    pub(super) fn remedy(self, destination: &str) -> String {
        match self {
            Self::Denied => format!(
                "Check whether `ssh {destination}` works. ssh can ask for a key's passphrase only on a terminal;\n\
                 otherwise add the key to the agent first: ssh-add."
            ),
            Self::HostKey => format!(
                "Run `ssh {destination}` once in a terminal: it shows the key and asks you to confirm it,\n\
                 or names the line of known_hosts that no longer matches."
            ),
            Self::Name => "Check the name, and that the VPN that resolves it is up.".to_owned(),
            Self::Refused => {
                "Check the host and the port (--ssh-option Port=N), and that sshd is running.".to_owned()
            }
            Self::TimedOut | Self::Unreachable => {
                "Check the address, the network and firewalls; --ssh-option ConnectTimeout=60 waits longer."
                    .to_owned()
            }
            Self::Options => "Check --ssh-option, GH_NET_SSH_OPTION, and ~/.ssh/config.".to_owned(),
            Self::Other => format!("See the output of `ssh -v {destination}`."),
        }
    }

    /// What to do, for a codespace whose ssh goes through gh.
    pub(super) fn codespace_remedy(self, name: &str) -> String {
        match self {
            Self::Options => "Check --ssh-option and GH_NET_SSH_OPTION.".to_owned(),
            Self::Denied
            | Self::HostKey
            | Self::Name
            | Self::Refused
            | Self::TimedOut
            | Self::Unreachable
            | Self::Other => format!("Check whether `gh codespace ssh -c {name}` works."),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_openssh_are_understood() {
        for (stderr, reason) in [
            ("me@host: Permission denied (publickey,password).", Reason::Denied),
            ("ssh: Could not resolve hostname nope: Name or service not known", Reason::Name),
            ("No ED25519 host key is known for [h]:1 ...\nHost key verification failed.", Reason::HostKey),
            ("ssh: connect to host 127.0.0.1 port 1: Connection refused", Reason::Refused),
            ("ssh: connect to host 10.9.9.9 port 22: Connection timed out", Reason::TimedOut),
            ("ssh: connect to host h port 22: No route to host", Reason::Unreachable),
            ("command-line: line 0: Bad configuration option: foo", Reason::Options),
            ("kex_exchange_identification: Connection closed by remote host", Reason::Other),
            ("", Reason::Other),
        ] {
            assert_eq!(Reason::of(stderr), reason, "{stderr}");
        }
    }
}
