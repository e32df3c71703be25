//! One link of a session: connect, open, carry, end.

use gh_net_common::frame::{Open, Opened, Reason};
use gh_net_common::framed::{FrameReader, FrameWriter};
use tokio::sync::{oneshot, watch};

use super::error::Error;
use super::goodbye::exchange_goodbyes;
use super::handshake::{self, HandshakeError};
use super::lanes::LaneOpener;
use crate::io::{LinkEnd, LinkIo, LostLink, Notices, Quiet, ReactorError};
use crate::transport::{self, Carrier, Reader, Writer};

/// The link's streams with the frames on them.
pub(super) type Streams = LinkIo<Reader, Writer>;

/// What io tells of a link.
#[derive(Debug)]
pub(super) struct Signals {
    /// Signalled once the sidecar has processed the first frames.
    pub(super) settled: Option<oneshot::Receiver<()>>,
    /// Whether the link is quiet.
    pub(super) quiet: watch::Receiver<Quiet>,
}

/// A link, from the connected transport on.
pub(super) struct Link {
    pub(super) streams: Streams,
    carrier: Carrier,
    /// Opens further lanes, if the link may have any.
    pub(super) lanes: LaneOpener,
}

impl Link {
    /// A link over a connected transport. Nothing has been sent.
    pub(super) fn new(transport: transport::Connection) -> Self {
        let transport::Connection { reader, writer, carrier } = transport;
        let streams = LinkIo::new(FrameReader::new(reader), FrameWriter::new(writer));
        Self { streams, carrier, lanes: LaneOpener::none() }
    }

    /// Asks the sidecar for the session.
    pub(super) async fn open(
        &mut self,
        request: Open,
        notices: &mut Notices,
    ) -> Result<Opened, HandshakeError> {
        let LinkIo { reader, writer, .. } = &mut self.streams;
        let (opened, agreed) =
            handshake::open(reader.first(), writer.first(), request.clone(), notices).await?;
        self.carrier.opened();
        if agreed.has_lanes()
            && let Some(channels) = self.carrier.channels()
        {
            let (wanted, ready) = self.streams.allow_lanes();
            let resume = Some((opened.session, opened.token));
            let preferred = opened.addresses.iter().map(|address| address.sidecar.trunc()).collect();
            let request = Open { resume, preferred, avoid: Vec::new(), ..request };
            self.lanes = LaneOpener::new(channels, request, wanted, ready);
        }
        Ok(opened)
    }

    /// What io tells of this link.
    pub(super) fn signals(&mut self) -> Signals {
        let (settled, is_settled) = oneshot::channel();
        self.streams.settled = Some(settled);
        Signals { settled: Some(is_settled), quiet: self.streams.quiet.subscribe() }
    }

    /// Closes the link without a goodbye.
    pub(super) async fn close(self) -> transport::ExitReport {
        // The sidecar sees the end of its stdin.
        drop(self.streams);
        self.carrier.close().await
    }

    /// Ends the link in the way that `end` requires: with a goodbye, unless the link is lost or already had one.
    ///
    /// # Errors
    /// The link ended for another reason than that the user ended the session.
    pub(super) async fn end(mut self, end: Result<LinkEnd, ReactorError>) -> Result<(), Error> {
        match end {
            Ok(LinkEnd::Shutdown) => {
                if exchange_goodbyes(&mut self.streams, Reason::Done, "ended by the user").await.is_none() {
                    tracing::warn!(
                        "the sidecar did not confirm that the codespace is restored; it restores the codespace by \
                         itself once the connection is closed"
                    );
                }
                self.close().await;
                Ok(())
            }
            Ok(LinkEnd::Ending) => {
                let goodbye = exchange_goodbyes(&mut self.streams, Reason::Done, "").await;
                let end = goodbye.map_or(LinkEnd::Lost(LostLink::Ended), LinkEnd::Goodbye);
                Err(Error::Ended { end, carrier: self.close().await })
            }
            Ok(end @ (LinkEnd::Lost(_) | LinkEnd::Goodbye(_) | LinkEnd::Protocol(_))) => {
                Err(Error::Ended { end, carrier: self.close().await })
            }
            Err(error) => {
                exchange_goodbyes(&mut self.streams, Reason::Failed, &error.to_string()).await;
                self.close().await;
                Err(error.into())
            }
        }
    }
}
