//! A session: connect, shake hands, run, say goodbye.

pub mod handshake;

use gh_net_common::frame::{Frame, Goodbye, Reason};
use gh_net_common::framed::{FrameReader, FrameWriter};
use tokio::sync::watch;

use crate::config::Config;
use crate::exit::{Exit, Explain};
use crate::transport::{self, Link, LinkEnd, Transport};
use handshake::shake_hands;

/// Turns true when the user wants the session to end.
pub type Stop = watch::Receiver<bool>;

/// Why a session failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No codespace was named or chosen.
    #[error("no codespace is named")]
    NoTarget,
    /// There is no link.
    #[error(transparent)]
    Transport(#[from] transport::Error),
    /// What answers over the link is no sidecar of ours.
    #[error("{source}")]
    Handshake {
        /// What it did.
        source: handshake::Error,
        /// How the link ended.
        end: LinkEnd,
    },
}

impl Explain for Error {
    fn exit(&self) -> Exit {
        match self {
            Self::NoTarget => Exit::Usage,
            Self::Transport(error) => error.exit(),
            Self::Handshake { .. } => Exit::Sidecar,
        }
    }

    fn details(&self) -> Option<String> {
        match self {
            Self::NoTarget => None,
            Self::Transport(error) => error.details(),
            Self::Handshake { end, .. } => end.explained(),
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::Transport(error) => error.remedy(),
            Self::Handshake { source: handshake::Error::Preamble(_), .. } => {
                Some("It must be `gh-net-sidecar attach` that answers there (--sidecar, --exec).".to_owned())
            }
            Self::NoTarget | Self::Handshake { .. } => None,
        }
    }
}

/// Runs a session until `stop` turns true or it fails.
///
/// # Errors
/// See [`Error`].
pub async fn run(config: Config, mut stop: Stop) -> Result<(), Error> {
    let transport = Transport::new(&config).ok_or(Error::NoTarget)?;
    let link = tokio::select! {
        link = transport.connect() => link?,
        _ = stop.wait_for(|stop| *stop) => return Ok(()),
    };
    let Link { reader, writer, mut carrier } = link;
    let (mut reader, mut writer) = (FrameReader::new(reader), FrameWriter::new(writer));
    let agreed = tokio::select! {
        agreed = shake_hands(&mut reader, &mut writer) => Some(agreed),
        _ = stop.wait_for(|stop| *stop) => None,
    };
    match agreed {
        Some(Ok(agreed)) => {
            tracing::info!("connected to {}, protocol {}", transport.name(), agreed.version);
            tokio::select! {
                _ = carrier.ended() => {}
                _ = stop.wait_for(|stop| *stop) => {}
            }
            writer.push(&Frame::Goodbye(Goodbye { reason: Reason::Done, text: String::new() }));
            // A side that is gone needs no goodbye.
            let _ = writer.flush().await;
        }
        Some(Err(source)) => {
            drop((reader, writer));
            return Err(Error::Handshake { source, end: carrier.close().await });
        }
        None => {}
    }
    drop((reader, writer));
    carrier.close().await;
    Ok(())
}
