//! Why a session failed, and the exit code and advice that follow from it.

use gh_net_common::frame::Reason;

use super::handshake::HandshakeError;
use crate::exit::{Exit, Explain, Failure};
use crate::io::{LinkEnd, ReactorError};
use crate::{audit, netwatch, resolver, transport};

/// Why an attempt to connect failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    /// There is no connection to the codespace.
    #[error(transparent)]
    Transport(#[from] transport::Error),
    /// There is no session on the connection.
    #[error(transparent)]
    Session(#[from] Error),
}

/// What a failed attempt means for the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outlook {
    /// The next attempt may succeed.
    Retry,
    /// The sidecar does not have the session any more: the next attempt has to ask for a new one.
    NewSession,
    /// The user has to act first.
    User,
    /// No attempt will succeed.
    Final,
}

impl ConnectError {
    /// What this means for the next attempt.
    pub(super) fn outlook(&self) -> Outlook {
        match self {
            Self::Transport(error) => transport_outlook(error),
            Self::Session(Error::Handshake { error: HandshakeError::Refused(goodbye), .. }) => {
                match goodbye.reason {
                    Reason::NoSession => Outlook::NewSession,
                    Reason::Version | Reason::Privilege | Reason::Tun | Reason::Busy | Reason::TakenOver => {
                        Outlook::Final
                    }
                    Reason::Done | Reason::Protocol | Reason::Terminated | Reason::Failed | Reason::Stale => {
                        Outlook::Retry
                    }
                }
            }
            Self::Session(Error::Handshake { error: HandshakeError::Version(_), .. }) => Outlook::Final,
            Self::Session(Error::Handshake { .. } | Error::Ended { .. }) => Outlook::Retry,
            Self::Session(
                Error::Netwatch(_) | Error::Io(_) | Error::Reactor(_) | Error::Resolver(_) | Error::Audit(_),
            ) => Outlook::Final,
        }
    }
}

fn transport_outlook(error: &transport::Error) -> Outlook {
    use crate::codespaces::gh::Error as Gh;
    use transport::ssh::{Error as Ssh, Reason as Why};
    match error {
        transport::Error::Ssh(Ssh::Failed { reason: Why::Denied | Why::HostKey | Why::Options, .. })
        | transport::Error::Gh(
            Gh::NotLoggedIn { .. } | Gh::Scope { .. } | Gh::SingleSignOn { .. } | Gh::Stopped { .. },
        ) => Outlook::User,
        transport::Error::Ssh(Ssh::Interrupted | Ssh::Missing) | transport::Error::Gh(Gh::Unknown { .. }) => {
            Outlook::Final
        }
        transport::Error::Exec(_)
        | transport::Error::Ssh(_)
        | transport::Error::Gh(_)
        | transport::Error::Provision(_) => Outlook::Retry,
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Transport(error) => error.into(),
            ConnectError::Session(error) => error.into(),
        }
    }
}

/// Why a session failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The laptop's networks can't be read.
    #[error("the laptop's networks can't be read: {0}")]
    Netwatch(#[from] netwatch::Error),
    /// The kernel provides no epoll instance.
    #[error("the laptop's kernel provides no epoll instance: {0}")]
    Io(#[from] std::io::Error),
    /// The laptop's sockets can't be watched any more.
    #[error(transparent)]
    Reactor(#[from] ReactorError),
    /// The configuration of the laptop's resolver can't be read.
    #[error(transparent)]
    Resolver(#[from] resolver::Error),
    /// The audit can't be written.
    #[error(transparent)]
    Audit(#[from] audit::Error),
    /// No session could be opened.
    #[error("{error}")]
    Handshake {
        /// What went wrong.
        error: HandshakeError,
        /// How the transport ended.
        carrier: transport::ExitReport,
    },
    /// The session ended, and the user did not ask for it.
    #[error("{end}")]
    Ended {
        /// How.
        end: LinkEnd,
        /// How the transport ended.
        carrier: transport::ExitReport,
    },
}

impl Explain for Error {
    fn exit(&self) -> Exit {
        match self {
            Self::Handshake { .. } => Exit::Sidecar,
            Self::Audit(_) => Exit::Usage,
            Self::Ended { end: LinkEnd::Goodbye(goodbye), .. } => match goodbye.reason {
                Reason::Privilege | Reason::Tun => Exit::Sidecar,
                Reason::Done
                | Reason::Version
                | Reason::Busy
                | Reason::NoSession
                | Reason::Protocol
                | Reason::Terminated
                | Reason::Failed
                | Reason::TakenOver
                | Reason::Stale => Exit::Failed,
            },
            Self::Netwatch(_) | Self::Io(_) | Self::Reactor(_) | Self::Resolver(_) | Self::Ended { .. } => {
                Exit::Failed
            }
        }
    }

    fn details(&self) -> Option<String> {
        match self {
            // The sidecar gave its reason in the protocol and repeats it on stderr.
            Self::Handshake { error: HandshakeError::Refused(_) | HandshakeError::Version(_), .. }
            | Self::Ended { end: LinkEnd::Goodbye(_), .. } => None,
            Self::Handshake { carrier, .. } | Self::Ended { carrier, .. } => Some(carrier.explained()),
            Self::Netwatch(_) | Self::Io(_) | Self::Reactor(_) | Self::Resolver(_) | Self::Audit(_) => None,
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::Handshake { error: HandshakeError::Preamble(_), .. } => Some(
                "The remote command must run `gh-net-sidecar attach`: check --sidecar or --exec.".to_owned(),
            ),
            // The goodbye's text is the whole explanation.
            Self::Ended { end: LinkEnd::Goodbye(_), .. } => None,
            Self::Ended { end: LinkEnd::Lost(_), .. } => Some(
                "The sidecar restores the codespace by itself. Start gh-net again to continue; without --grace 0s it \
                 reconnects by itself."
                    .to_owned(),
            ),
            Self::Ended { .. } => {
                Some("The sidecar restores the codespace by itself. Start gh-net again to continue.".to_owned())
            }
            Self::Audit(_) => Some("Check --audit.".to_owned()),
            Self::Handshake { .. }
            | Self::Netwatch(_)
            | Self::Io(_)
            | Self::Reactor(_)
            | Self::Resolver(_) => None,
        }
    }
}
