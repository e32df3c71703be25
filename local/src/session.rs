//! A session: from the first handshake to the goodbye.

mod handshake;
mod settings;

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use gh_net_common::frame::{DnsMode, Families, Frame, Goodbye, Open, Opened, Reason};
use gh_net_common::framed::{FrameReader, FrameWriter};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

pub use self::handshake::HandshakeError;
use crate::config::Config;
use crate::engine::{self, Engine};
use crate::exit::{Exit, Explain, Failure};
use crate::io::{Control, Io, LinkEnd, LinkIo, Notices};
use crate::netwatch::{self, Netwatch, Snapshot};
use crate::policy::{Codespace, Policy};
use crate::resolver::{self, Resolver};
use crate::transport::{self, Carrier, Link, Transport};

/// The tunnel's MTU: the largest that leaves room for a packet's headers in its length field.
const MTU: u16 = 65_520;
/// How long a goodbye's answer is waited for: when it comes, the codespace is as it was.
const FAREWELL: Duration = Duration::from_secs(5);

/// Turns true when the user wants the session to end.
pub type Stop = watch::Receiver<bool>;

/// Why a session failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The laptop's networks can't be read.
    #[error("the laptop's networks can't be read: {0}")]
    Netwatch(#[from] netwatch::Error),
    /// The kernel gives no epoll instance.
    #[error("the laptop's kernel refuses what gh-net needs to run: {0}")]
    Io(#[from] std::io::Error),
    /// Who resolves names on the laptop can't be read.
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
    /// The session ended against the user's will.
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
            Self::Netwatch(_) | Self::Io(_) | Self::Resolver(_) | Self::Ended { .. } => Exit::Failed,
        }
    }

    fn details(&self) -> Option<String> {
        match self {
            // The sidecar has given its reason. It says the same on stderr.
            Self::Handshake { error: HandshakeError::Refused(_) | HandshakeError::Version(_), .. }
            | Self::Ended { end: LinkEnd::Goodbye(_), .. } => None,
            Self::Handshake { carrier, .. } | Self::Ended { carrier, .. } => Some(carrier.explained()),
            Self::Netwatch(_) | Self::Io(_) | Self::Resolver(_) => None,
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::Handshake { error: HandshakeError::Preamble(_), .. } => {
                Some("It must be `gh-net-sidecar attach` that answers there (--sidecar, --exec).".to_owned())
            }
            // The sidecar has said what there is to say.
            Self::Ended { end: LinkEnd::Goodbye(_), .. } => None,
            Self::Ended { .. } => {
                Some("The codespace puts itself back as it was. Start again to go on.".to_owned())
            }
            Self::Handshake { .. } | Self::Netwatch(_) | Self::Io(_) | Self::Resolver(_) => None,
        }
    }
}

/// Bridges what `transport` leads to until the user ends it by `stop`.
///
/// # Errors
/// There was no session, or it ended by itself.
pub async fn run(config: &Config, transport: &Transport, mut stop: Stop) -> Result<(), Failure> {
    let netwatch = Netwatch::open().map_err(Error::from)?;
    let resolver = Arc::new(Resolver::system().map_err(Error::from)?);
    let link = tokio::select! {
        // A Ctrl-C may end what connects, too; that is not why it failed.
        biased;
        () = stopped(&mut stop) => return Ok(()),
        link = transport.connect() => link?,
    };
    // Connecting may have taken minutes, in which the VPN came up.
    let snapshot = netwatch.snapshot().await.map_err(Error::from)?;
    let session = Session { config, snapshot, resolver, name: transport.name() };
    session.run(link, stop).await.map_err(Failure::from)
}

/// What does not change while a session lasts.
struct Session<'a> {
    config: &'a Config,
    snapshot: Snapshot,
    resolver: Arc<Resolver>,
    name: String,
}

impl Session<'_> {
    async fn run(&self, link: Link, mut stop: Stop) -> Result<(), Error> {
        let Link { reader, writer, carrier } = link;
        let mut reader = FrameReader::new(reader);
        let mut writer = FrameWriter::new(writer);
        let opened = tokio::select! {
            opened = handshake::open(&mut reader, &mut writer, self.request()) => opened,
            () = stopped(&mut stop) => {
                drop((reader, writer));
                carrier.close().await;
                return Ok(());
            }
        };
        let opened = match opened {
            Ok(opened) => opened,
            Err(error) => {
                drop((reader, writer));
                return Err(Error::Handshake { error, carrier: carrier.close().await });
            }
        };
        carrier.opened();
        let (settled, is_settled) = oneshot::channel();
        let mut link = LinkIo { reader, writer, settled: Some(settled) };
        let end = self.bridge(&mut link, &opened, is_settled, stop).await?;
        close(end, link, carrier).await
    }

    fn request(&self) -> Open {
        Open {
            resume: None,
            mtu: MTU,
            families: Families { v4: true, v6: true },
            grace: 0,
            user: user(),
            host: host(),
            preferred: Vec::new(),
            avoid: settings::avoid(self.config, &self.snapshot),
        }
    }

    /// Carries packets until the link or the user ends it.
    async fn bridge<R, W>(
        &self,
        link: &mut LinkIo<R, W>,
        opened: &Opened,
        is_settled: oneshot::Receiver<()>,
        mut stop: Stop,
    ) -> Result<LinkEnd, Error>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let policy = self.policy(opened);
        let frames = settings::frames(self.config, &policy, &self.resolver);
        let summary = self.summary(&policy);
        let engine = Engine::new(engine::Config {
            gateways: opened.addresses.iter().map(|address| address.gateway).collect(),
            mtu: opened.mtu.min(MTU),
            policy: Box::new(policy),
            secret: secret(),
        });
        let mut io = Io::new(engine, Arc::clone(&self.resolver))?;
        let (control, mut controls) = mpsc::channel(frames.len() + 1);
        for frame in frames {
            // The channel was made to hold them all.
            let _ = control.try_send(Control::Send(frame));
        }
        let watch = async {
            if is_settled.await.is_ok() {
                tracing::info!("ready: {summary}");
            }
            stopped(&mut stop).await;
            // If the link ended first, nobody listens any more, and that is the end as well.
            let _ = control.send(Control::Shutdown).await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            end = io.run(link, &mut controls) => Ok(end),
            () = watch => Ok(LinkEnd::Shutdown),
        }
    }

    fn policy(&self, opened: &Opened) -> Policy {
        let codespace = Codespace {
            networks: opened.networks.clone(),
            tunnel: opened.addresses.iter().map(|address| address.sidecar.trunc()).collect(),
        };
        let choice = settings::choice(self.config);
        let policy = Policy::new(&choice, &self.snapshot, &codespace);
        for overlap in policy.overlaps() {
            tracing::warn!("{overlap}");
        }
        for hint in policy.hints() {
            tracing::warn!("{hint}");
        }
        policy
    }

    fn summary(&self, policy: &Policy) -> String {
        let dns = match self.config.dns {
            DnsMode::Off => "names stay with its own resolver",
            DnsMode::Split => "names by split DNS",
            DnsMode::Local => "names by the laptop's resolver first",
        };
        format!("{} reaches {}; {dns}", self.name, settings::listed(policy.routes()))
    }
}

/// Until the user wants an end.
async fn stopped(stop: &mut Stop) {
    // A sender that is gone can't ask for anything any more, and must not look as if it did.
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// The name of the user who runs us.
fn user() -> String {
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten();
    user.map_or_else(|| nix::unistd::geteuid().to_string(), |user| user.name)
}

/// The laptop's host name.
fn host() -> String {
    nix::unistd::gethostname().map(|name| name.display().to_string()).unwrap_or_default()
}

/// The standard library seeds its hash tables from the kernel's random numbers; that will do here, too.
fn secret() -> u64 {
    RandomState::new().hash_one(())
}

/// Ends the link as `end` asks for.
async fn close<R, W>(end: LinkEnd, mut link: LinkIo<R, W>, carrier: Carrier) -> Result<(), Error>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    if matches!(end, LinkEnd::Shutdown) {
        if timeout(FAREWELL, farewell(&mut link)).await != Ok(true) {
            tracing::warn!(
                "the sidecar did not say that the codespace is as it was; it sees to that by itself once the \
                 connection is gone"
            );
        }
        drop(link);
        carrier.close().await;
        return Ok(());
    }
    drop(link);
    Err(Error::Ended { end, carrier: carrier.close().await })
}

/// Says goodbye and waits for the answer, which comes when everything is undone. Returns whether it came.
async fn farewell<R, W>(link: &mut LinkIo<R, W>) -> bool
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let text = "ended by the user".to_owned();
    link.writer.push(&Frame::Goodbye(Goodbye { reason: Reason::Done, text }));
    let mut notices = Notices::default();
    let answer = async {
        loop {
            match link.reader.next().await {
                Ok(Some(Frame::Notice(notice))) => notices.show(&notice, Instant::now()),
                Ok(Some(Frame::Goodbye(_))) => return true,
                Ok(None) | Err(_) => return false,
                // Packets and reports that were under way.
                Ok(Some(_)) => {}
            }
        }
    };
    // What is queued before the goodbye is read by the sidecar only while we read what it sends. That it can't be
    // written shows itself in the reading.
    let say = async {
        let _ = link.writer.flush().await;
        std::future::pending().await
    };
    tokio::select! {
        answered = answer => answered,
        () = say => false,
    }
}

#[cfg(test)]
mod tests;
