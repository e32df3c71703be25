//! Why ssh did not connect, read from its words, and what to do about it.

use crate::exit::Exit;

/// A reason that has a remedy of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The server does not accept us.
    Denied,
    /// The server's key is unknown, or has changed.
    HostKey,
    /// The name does not resolve.
    Name,
    /// Nobody listens there.
    Refused,
    /// No answer in time.
    TimedOut,
    /// There is no way there.
    Unreachable,
    /// ssh does not understand its options or configuration.
    Options,
    /// Anything else.
    Other,
}

/// Words of OpenSSH, and what they mean. The first that is found counts, so what follows from another comes
/// after it.
const WORDS: [(&str, Reason); 16] = [
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
    /// Finds the reason in what ssh said.
    pub(super) fn of(said: &str) -> Self {
        WORDS.iter().find(|(words, _)| said.contains(words)).map_or(Self::Other, |(_, reason)| *reason)
    }

    /// What happened, after "ssh …".
    pub(super) fn what(self) -> &'static str {
        match self {
            Self::Denied => "was not let in by",
            Self::HostKey => "does not trust the host key of",
            Self::Name => "does not know the host name of",
            Self::Refused => "found no ssh server at",
            Self::TimedOut => "got no answer from",
            Self::Unreachable => "has no way to",
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

    /// What to do, for an ssh `destination` of the user's own.
    pub(super) fn remedy(self, destination: &str) -> String {
        match self {
            Self::Denied => format!(
                "See whether `ssh {destination}` lets you in. A key with a passphrase can only be asked for on a\n\
                 terminal; elsewhere give it to the agent first: ssh-add."
            ),
            Self::HostKey => format!(
                "Run `ssh {destination}` once in a terminal: it shows the key and asks, or says which line of\n\
                 known_hosts no longer fits."
            ),
            Self::Name => "Check the name, and whether the VPN that knows it is up.".to_owned(),
            Self::Refused => {
                "Check the host and the port (--ssh-option Port=N), and that sshd runs there.".to_owned()
            }
            Self::TimedOut | Self::Unreachable => {
                "Check the address, the network and firewalls; --ssh-option ConnectTimeout=60 waits longer."
                    .to_owned()
            }
            Self::Options => "Check --ssh-option, GH_NET_SSH_OPTION, and ~/.ssh/config.".to_owned(),
            Self::Other => format!("See what `ssh -v {destination}` says."),
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
            | Self::Other => format!("See whether `gh codespace ssh -c {name}` lets you in."),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_openssh_are_understood() {
        for (said, reason) in [
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
            assert_eq!(Reason::of(said), reason, "{said}");
        }
    }
}
