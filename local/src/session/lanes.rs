//! Opens the further lanes of a link, while io runs on it.

use std::convert::Infallible;

use gh_net_common::frame::Open;
use gh_net_common::framed::{FrameReader, FrameWriter};
use gh_net_common::lanes::MAX_LANES;
use tokio::sync::mpsc;

use super::handshake::{self, HandshakeError};
use crate::io::{Lane, Notices};
use crate::transport::ssh::{self, Channels};
use crate::transport::{Reader, Writer};

/// Opens the lanes of one link that io asks for.
#[derive(Debug)]
pub(super) struct LaneOpener(Option<Requests>);

#[derive(Debug)]
struct Requests {
    channels: Channels,
    /// The request for any lane of the link.
    request: Open,
    wanted: mpsc::Receiver<()>,
    opened: mpsc::Sender<Lane<Reader, Writer>>,
}

/// Why a link has no further lane.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// There is no channel.
    #[error(transparent)]
    Channel(#[from] ssh::Error),
    /// The sidecar did not accept it.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
}

impl LaneOpener {
    /// For a link that has one lane.
    pub(super) fn none() -> Self {
        Self(None)
    }

    /// For a link whose lanes are opened as `channels` and asked for with `request`, when they are `wanted`.
    pub(super) fn new(
        channels: Channels,
        request: Open,
        wanted: mpsc::Receiver<()>,
        opened: mpsc::Sender<Lane<Reader, Writer>>,
    ) -> Self {
        Self(Some(Requests { channels, request, wanted, opened }))
    }

    /// Opens lanes as long as the link lasts. If one can't be had, the link goes on with those it has, and no other one is
    /// tried.
    pub(super) async fn run(&mut self) -> Infallible {
        if let Some(requests) = self.0.take() {
            requests.run().await;
        }
        std::future::pending().await
    }
}

impl Requests {
    async fn run(mut self) {
        for lane in 1..MAX_LANES as u8 {
            if self.wanted.recv().await.is_none() {
                return;
            }
            match self.open(lane).await {
                Ok(opened) => {
                    tracing::debug!("the link has {} lanes", lane + 1);
                    // Io may have ended.
                    let _ = self.opened.send(opened).await;
                }
                Err(error) => {
                    tracing::info!(
                        "more ssh channels than {lane} would make the link faster, but it can't have them: {error}"
                    );
                    return;
                }
            }
        }
    }

    async fn open(&self, lane: u8) -> Result<Lane<Reader, Writer>, Error> {
        let (reader, writer) = self.channels.open().await?;
        let (mut reader, mut writer) = (FrameReader::new(reader), FrameWriter::new(writer));
        let request = Open { lane, ..self.request.clone() };
        handshake::open(&mut reader, &mut writer, request, &mut Notices::default()).await?;
        Ok((reader, writer))
    }
}
