//! Why a session failed, and the exit code and advice that follow from it.

use gh_net_common::frame::Reason;

use super::handshake::HandshakeError;
use crate::exit::{Exit, Explain};
use crate::io::{LinkEnd, ReactorError};
use crate::{netwatch, resolver, transport};

/// Why a session failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The laptop's networks can't be read.
    #[error("the laptop's networks can't be read: {0}")]
    Netwatch(#[from] netwatch::Error),
    /// The kernel provides no epoll instance.
    #[error("the laptop's kernel refuses what gh-net needs to run: {0}")]
    Io(#[from] std::io::Error),
    /// The laptop's sockets can't be watched any more.
    #[error(transparent)]
    Reactor(#[from] ReactorError),
    /// The configuration of the laptop's resolver can't be read.
    #[error(transparent)]
    Resolver(#[from] resolver::Error),
    /// No session could be opened.
    #[error("{error}")]
    Handshake {
        /// What went wrong.
        error: HandshakeError,
        /// How the transport ended.
        carrier: transport::LinkEnd,
    },
    /// The session ended, and the user did not ask for it.
    #[error("{end}")]
    Ended {
        /// How.
        end: LinkEnd,
        /// How the transport ended.
        carrier: transport::LinkEnd,
    },
}

impl Explain for Error {
    fn exit(&self) -> Exit {
        match self {
            Self::Handshake { .. } => Exit::Sidecar,
            Self::Ended { end: LinkEnd::Goodbye(goodbye), .. } => match goodbye.reason {
                Reason::Privilege | Reason::Tun => Exit::Sidecar,
                Reason::Done
                | Reason::Version
                | Reason::Busy
                | Reason::NoSession
                | Reason::Protocol
                | Reason::Terminated
                | Reason::Failed
                | Reason::TakenOver => Exit::Failed,
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
            Self::Netwatch(_) | Self::Io(_) | Self::Reactor(_) | Self::Resolver(_) => None,
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::Handshake { error: HandshakeError::Preamble(_), .. } => {
                Some("It must be `gh-net-sidecar attach` that answers there (--sidecar, --exec).".to_owned())
            }
            // The goodbye's text is the whole explanation.
            Self::Ended { end: LinkEnd::Goodbye(_), .. } => None,
            Self::Ended { .. } => Some(
                "The sidecar restores the codespace by itself. Start gh-net again to continue.".to_owned(),
            ),
            Self::Handshake { .. }
            | Self::Netwatch(_)
            | Self::Io(_)
            | Self::Reactor(_)
            | Self::Resolver(_) => None,
        }
    }
}
