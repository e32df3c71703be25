//! From two raw streams to an open session: preamble, hello, open.

use std::time::{Duration, Instant};

use gh_net_common::frame::{Frame, Goodbye, Hello, Open, Opened, Reason, TunnelAddress};
use gh_net_common::framed::{FrameReader, FrameWriter, NoiseLimit, PreambleError, ReadError};
use gh_net_common::hello::{self, Agreed, Mismatch, Side, printable};
use ipnet::IpNet;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use crate::io::Notices;

/// How long the sidecar may take from its preamble to its answer. It runs sudo and creates a device meanwhile.
const ANSWER: Duration = Duration::from_secs(8);

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// What answered is not a sidecar.
    #[error(transparent)]
    Preamble(#[from] PreambleError),
    /// The stream broke.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The stream ended before the session was open.
    #[error("the sidecar ended before the session was open")]
    Ended,
    /// The sidecar did not answer in time.
    #[error("the sidecar did not answer within {} seconds", ANSWER.as_secs())]
    Silence,
    /// No protocol version in common.
    #[error(transparent)]
    Version(#[from] Mismatch),
    /// The sidecar sent something that is not allowed here.
    #[error("the sidecar broke the protocol: {0}")]
    Protocol(&'static str),
    /// The sidecar refuses.
    #[error("{}", if .0.text.is_empty() { "the sidecar refused the session without a reason".into() } else { printable(&.0.text) })]
    Refused(Goodbye),
}

/// Asks for a session. Notices that arrive before the answer are logged. Returns the answer and what both ends can do.
///
/// # Errors
/// See [`HandshakeError`].
pub(super) async fn open<R, W>(
    reader: &mut FrameReader<R>,
    writer: &mut FrameWriter<W>,
    request: Open,
    notices: &mut Notices,
) -> Result<(Opened, Agreed), HandshakeError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let ours = hello::ours();
    writer.push(&Frame::Hello(ours.clone()));
    // A failed write is ignored here and below: if the sidecar is gone, reading fails as well, and what can still be
    // read may explain why.
    let (_, noise) = tokio::join!(
        timeout(NoiseLimit::default().time, writer.flush()),
        reader.preamble(NoiseLimit::default())
    );
    let noise = noise?;
    if !noise.is_empty() {
        tracing::debug!(
            "output before the sidecar's preamble: {}",
            printable(&String::from_utf8_lossy(&noise))
        );
    }
    let mut negotiation = Negotiation { reader, writer, notices, left: MAX_NOTICES };
    timeout(ANSWER, negotiation.run(&ours, request)).await.map_err(|_| HandshakeError::Silence)?
}

/// Maximum number of notices before the answer. [`HandshakeError`] names this number.
const MAX_NOTICES: usize = 32;

struct Negotiation<'a, R, W> {
    reader: &'a mut FrameReader<R>,
    writer: &'a mut FrameWriter<W>,
    notices: &'a mut Notices,
    /// How many notices are still accepted.
    left: usize,
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Negotiation<'_, R, W> {
    async fn run(&mut self, ours: &Hello, request: Open) -> Result<(Opened, Agreed), HandshakeError> {
        let Frame::Hello(theirs) = self.next().await? else {
            return Err(HandshakeError::Protocol("its first frame is not a hello"));
        };
        let agreed = match hello::negotiate(Side::Laptop, ours, &theirs) {
            Ok(agreed) => agreed,
            Err(mismatch) => {
                let goodbye = Goodbye { reason: Reason::Version, text: mismatch.to_string() };
                self.send(&Frame::Goodbye(goodbye)).await;
                return Err(mismatch.into());
            }
        };
        tracing::debug!("sidecar {}", printable(&theirs.software));
        let tunnel = request.preferred.clone();
        self.send(&Frame::Open(request)).await;
        match self.next().await? {
            Frame::Opened(opened) => Ok((check(opened, &tunnel)?, agreed)),
            Frame::Open(_) => Err(HandshakeError::Protocol(
                "it echoes our frames; the remote command must be `gh-net-sidecar attach`",
            )),
            Frame::Hello(_)
            | Frame::Packet(_)
            | Frame::Delivered { .. }
            | Frame::Ping(_)
            | Frame::Pong(_)
            | Frame::Routes(_)
            | Frame::Dns(_)
            | Frame::Notice(_)
            | Frame::Goodbye(_)
            | Frame::Ending
            | Frame::AskStatus
            | Frame::SidecarStatus(_)
            | Frame::Codespace(_)
            | Frame::Quiet(_)
            | Frame::Numbered(..)
            | Frame::WantLane
            | Frame::Standby(_) => Err(HandshakeError::Protocol("it did not answer the request")),
        }
    }

    async fn send(&mut self, frame: &Frame) {
        self.writer.push(frame);
        let _ = self.writer.flush().await;
    }

    /// The next frame that is an answer. Notices are shown; a goodbye is an error.
    async fn next(&mut self) -> Result<Frame, HandshakeError> {
        loop {
            match self.reader.next().await?.ok_or(HandshakeError::Ended)? {
                Frame::Notice(notice) if self.left > 0 => {
                    self.left -= 1;
                    self.notices.show(&notice, Instant::now());
                }
                Frame::Notice(_) => {
                    return Err(HandshakeError::Protocol("it sent more than 32 notices before its answer"));
                }
                Frame::Goodbye(goodbye) => return Err(HandshakeError::Refused(goodbye)),
                // There are no flows yet. The sidecar's own goodbye follows, with its reason.
                Frame::Ending => {
                    let goodbye = Goodbye { reason: Reason::Done, text: String::new() };
                    self.send(&Frame::Goodbye(goodbye)).await;
                }
                frame @ (Frame::Hello(_)
                | Frame::Open(_)
                | Frame::Opened(_)
                | Frame::Packet(_)
                | Frame::Delivered { .. }
                | Frame::Ping(_)
                | Frame::Pong(_)
                | Frame::Routes(_)
                | Frame::Dns(_)
                | Frame::AskStatus
                | Frame::SidecarStatus(_)
                | Frame::Codespace(_)
                | Frame::Quiet(_)
                | Frame::Numbered(..)
                | Frame::WantLane
                | Frame::Standby(_)) => return Ok(frame),
            }
        }
    }
}

/// The minimum MTU of IPv6 (RFC 8200, 5).
const MIN_MTU: u16 = 1280;

/// What the sidecar says of the tunnel must be possible, and that of a resumed session has the networks that it had: names
/// that were learnt for the laptop's end must not become those of an address elsewhere.
fn check(opened: Opened, tunnel: &[IpNet]) -> Result<Opened, HandshakeError> {
    if opened.mtu < MIN_MTU {
        return Err(HandshakeError::Protocol("the tunnel's MTU is below 1280 bytes"));
    }
    let is_v4 = |address: &TunnelAddress| address.gateway.is_ipv4();
    match opened.addresses.as_slice() {
        [] => return Err(HandshakeError::Protocol("the tunnel has no addresses")),
        [_] => {}
        [one, other] if is_v4(one) != is_v4(other) => {}
        [_, _, ..] => return Err(HandshakeError::Protocol("the tunnel has two addresses of one family")),
    }
    if !opened.addresses.iter().all(|address| address.sidecar.contains(&address.gateway)) {
        return Err(HandshakeError::Protocol("the tunnel's two addresses are not in one network"));
    }
    let networks = opened.addresses.iter().map(|address| address.sidecar.trunc());
    if opened.resumed && !networks.eq(tunnel.iter().copied()) {
        return Err(HandshakeError::Protocol("the tunnel's addresses have changed during the session"));
    }
    Ok(opened)
}

#[cfg(test)]
mod tests {
    use gh_net_common::frame::{Families, Token};
    use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    fn request() -> Open {
        Open {
            resume: None,
            link: 0,
            lane: 0,
            mtu: 65_520,
            families: Families { v4: true, v6: true },
            grace: 0,
            from: gh_net_common::frame::Sources { containers: true, networks: Vec::new() },
            user: "alice".into(),
            host: "laptop".into(),
            preferred: Vec::new(),
            avoid: Vec::new(),
        }
    }

    fn address(sidecar: &str, gateway: &str) -> TunnelAddress {
        TunnelAddress { sidecar: sidecar.parse().unwrap(), gateway: gateway.parse().unwrap() }
    }

    fn opened(mtu: u16) -> Frame {
        opened_with(mtu, vec![address("198.19.240.1/30", "198.19.240.2")])
    }

    fn opened_with(mtu: u16, addresses: Vec<TunnelAddress>) -> Frame {
        Frame::Opened(Opened {
            session: [1; 16],
            token: Token([2; 32]),
            resumed: false,
            mtu,
            addresses,
            device: "ghnet0".into(),
            networks: Vec::new(),
            resolvers: Vec::new(),
        })
    }

    async fn with_sidecar(frames: &[Frame]) -> Result<Opened, HandshakeError> {
        let (near, far) = duplex(64 * 1024);
        let mut sidecar = FrameWriter::new(far);
        frames.iter().for_each(|frame| sidecar.push(frame));
        sidecar.flush().await.unwrap();
        let (read, write): (tokio::io::ReadHalf<DuplexStream>, _) = tokio::io::split(near);
        open(&mut FrameReader::new(read), &mut FrameWriter::new(write), request(), &mut Notices::default())
            .await
            .map(|(opened, _)| opened)
    }

    #[tokio::test]
    async fn a_sidecar_that_answers_opens_the_session() {
        let opened = with_sidecar(&[Frame::Hello(hello::ours()), opened(65_520)]).await.unwrap();
        assert_eq!(opened.mtu, 65_520);
    }

    #[tokio::test]
    async fn a_refusal_shows_the_sidecars_text() {
        let text = "no TUN device here".to_owned();
        let goodbye = Frame::Goodbye(Goodbye { reason: Reason::Tun, text });
        let error = with_sidecar(&[Frame::Hello(hello::ours()), goodbye]).await.unwrap_err();
        assert_eq!(error.to_string(), "no TUN device here");
    }

    #[tokio::test]
    async fn a_refusal_is_read_even_if_the_sidecar_has_exited() {
        let (near, far) = duplex(64 * 1024);
        let mut sidecar = FrameWriter::new(far);
        sidecar.push(&Frame::Hello(hello::ours()));
        sidecar.push(&Frame::Goodbye(Goodbye { reason: Reason::Busy, text: "busy".into() }));
        sidecar.flush().await.unwrap();
        drop(sidecar);
        let (read, write) = tokio::io::split(near);
        let answer = open(
            &mut FrameReader::new(read),
            &mut FrameWriter::new(write),
            request(),
            &mut Notices::default(),
        )
        .await;
        assert_eq!(answer.unwrap_err().to_string(), "busy");
    }

    #[tokio::test]
    async fn impossible_addresses_are_refused() {
        let v4 = address("198.19.240.1/30", "198.19.240.2");
        for addresses in [vec![], vec![v4; 3000], vec![address("198.19.240.1/30", "10.0.0.1")]] {
            let error = with_sidecar(&[Frame::Hello(hello::ours()), opened_with(65_520, addresses)]).await;
            assert!(matches!(error, Err(HandshakeError::Protocol(_))));
        }
        let both = vec![v4, address("fd00::1/126", "fd00::2")];
        assert!(with_sidecar(&[Frame::Hello(hello::ours()), opened_with(65_520, both)]).await.is_ok());
    }

    #[test]
    fn a_tunnel_keeps_its_networks_when_a_session_is_resumed() {
        let Frame::Opened(opened) = opened(65_520) else { unreachable!() };
        let resumed = Opened { resumed: true, ..opened.clone() };
        let [same, other] = ["198.19.240.0/30", "10.20.0.8/30"].map(|net| vec![net.parse().unwrap()]);
        assert!(check(resumed.clone(), &same).is_ok());
        assert!(check(opened, &other).is_ok(), "a new session has the networks that it gets");
        for before in [other, vec![]] {
            assert!(matches!(check(resumed.clone(), &before), Err(HandshakeError::Protocol(_))));
        }
    }

    #[tokio::test]
    async fn a_version_mismatch_names_the_side_to_update() {
        let newer = Hello { lowest: 9, highest: 9, ..hello::ours() };
        let error = with_sidecar(&[Frame::Hello(newer)]).await.unwrap_err().to_string();
        assert!(error.contains("update gh-net on the laptop"), "{error}");
    }

    #[tokio::test]
    async fn an_impossible_mtu_is_refused() {
        let error = with_sidecar(&[Frame::Hello(hello::ours()), opened(100)]).await.unwrap_err();
        assert!(matches!(error, HandshakeError::Protocol(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn an_incomplete_handshake_times_out() {
        let (near, mut far) = duplex(64 * 1024);
        far.write_all(&gh_net_common::frame::PREAMBLE).await.unwrap();
        let (read, write) = tokio::io::split(near);
        let opening = open(
            &mut FrameReader::new(read),
            &mut FrameWriter::new(write),
            request(),
            &mut Notices::default(),
        )
        .await;
        assert!(matches!(opening, Err(HandshakeError::Silence)));
        drop(far);
    }
}
