//! A session: from the first link to the goodbye.
//!
//! Two lifetimes, two types. [`Session`] owns what lasts until the user ends it: the engine with its io, the control
//! plane (the laptop's networks, the policy, the status), the resolver. A [`Link`] is one attempt to reach the
//! sidecar and what runs over it.
//!
//! ```text
//!             connect, open             lost
//! Connecting ---------------> Up --------------------> Down
//!                              ^ \                      |
//!                              |  `-> Ended             |  reconnect: resume, or a new session
//!                              +------------------------+
//! ```
//!
//! At all times two futures run side by side in one task: the control plane, and either io on a link
//! ([`Io::run`]) or io without one ([`Io::run_unlinked`]) while the next link is established. A lost link ends
//! nothing: sockets stay open, the engine keeps the flows, and [`Session::reconnect`] tries again until the session
//! is resumed, replaced or ended.

mod backoff;
mod control;
mod error;
mod goodbye;
mod handshake;
mod lanes;
mod link;
mod networks;
mod reconnect;
mod record;
mod resources;
mod settings;
mod wake;

use std::sync::Arc;
use std::time::{Duration, Instant};

use gh_net_common::frame::{self, Families, Open, Opened, Token};
use ipnet::IpNet;
use tokio::sync::mpsc;

use self::backoff::Backoff;
pub use self::control::Stop;
use self::control::{ControlPlane, Ports};
use self::error::ConnectError;
pub use self::error::Error;
pub use self::handshake::HandshakeError;
use self::link::Link;
pub use self::settings::choice;
use crate::audit::{Audit, Entry};
use crate::config::{Config, Sources};
use crate::engine::{self, Engine};
use crate::exit::Failure;
use crate::io::{CONTROLS, Control, IdleTimeout, Io, LinkEnd, Notices, OwnAddresses};
use crate::random::random;
use crate::request::{self, SessionHandle};
use crate::resolver::Resolver;
use crate::transport::Transport;

/// The tunnel's MTU: the largest that leaves room for a packet's headers in its length field.
const MTU: u16 = 65_520;

/// After a link of this age, the attempts to replace it begin with the shortest wait.
const STABLE: Duration = Duration::from_secs(10);

/// See the [module's documentation](self).
#[derive(Debug)]
pub struct Session<'a> {
    transport: &'a Transport,
    grace: Duration,
    from: frame::Sources,
    idle: IdleTimeout,
    memory: usize,
    control: ControlPlane,
    controls: mpsc::Receiver<Control>,
    handle: SessionHandle,
    resolver: Arc<Resolver>,
    /// From the first time the session is open.
    io: Option<Io>,
    identity: Option<Identity>,
    /// How many links were asked for.
    links: u32,
    backoff: Backoff,
    audit: Option<Audit>,
}

/// Identifies a session to the sidecar.
#[derive(Debug)]
struct Identity {
    /// `None` once the sidecar has answered that it no longer has the session.
    session: Option<([u8; 16], Token)>,
    /// The prefixes of the tunnel's addresses: a new session asks for the same.
    tunnel: Vec<IpNet>,
}

impl<'a> Session<'a> {
    /// A session with what `transport` leads to, not connected yet. It ends when `stop` turns true. `sources` are where
    /// `config` comes from.
    ///
    /// # Errors
    /// The laptop's networks or its resolver's configuration can't be read, or the audit can't be written.
    pub fn new(
        config: Config,
        sources: Sources,
        transport: &'a Transport,
        stop: Stop,
    ) -> Result<Self, Error> {
        let resolver = Arc::new(Resolver::system()?);
        let audit = config.audit.as_deref().map(Audit::open).transpose()?;
        let (sender, controls) = mpsc::channel(CONTROLS);
        let (handle, requests) = request::channel();
        let ports = Ports { stop, requests, io: sender };
        let (grace, idle, memory) = (config.grace, IdleTimeout(config.idle_timeout), config.memory);
        let from = config.from.clone();
        let control = ControlPlane::new(config, sources, transport.name(), Arc::clone(&resolver), ports)?;
        Ok(Self {
            transport,
            grace,
            from,
            idle,
            memory,
            control,
            controls,
            handle,
            resolver,
            io: None,
            identity: None,
            links: 0,
            backoff: Backoff::new(),
            audit,
        })
    }

    /// Asks this session while [`Self::run`] runs.
    pub fn handle(&self) -> SessionHandle {
        self.handle.clone()
    }

    /// Runs until the user ends the session.
    ///
    /// # Errors
    /// There was no session, or it ended by itself.
    pub async fn run(mut self) -> Result<(), Failure> {
        self.record(Entry::SessionBegin {
            version: env!("CARGO_PKG_VERSION"),
            pid: std::process::id(),
            target: self.transport.name(),
        });
        let result = self.run_links().await;
        // The hosts learn of every kind of end.
        if let Some(io) = self.io.take() {
            io.abort();
        }
        let error = result.as_ref().err().map(|failure: &Failure| failure.what.clone());
        self.record(Entry::SessionEnd { error });
        result
    }

    fn record(&self, entry: Entry) {
        if let Some(audit) = &self.audit {
            audit.recorder().record(entry);
        }
    }

    async fn run_links(&mut self) -> Result<(), Failure> {
        let mut connected = self.connect().await?;
        while let Some((link, opened)) = connected {
            let up = Instant::now();
            match self.carry(link, &opened).await? {
                Carried::ToTheEnd => return Ok(()),
                Carried::Lost => {}
            }
            // A link that is lost again and again is not redialled in a tight loop.
            if up.elapsed() >= STABLE {
                self.backoff = Backoff::new();
            }
            connected = self.reconnect().await?;
        }
        Ok(())
    }

    /// Establishes a link and opens or resumes the session on it. Serves the existing flows meanwhile. `None` if
    /// the user ends the session first.
    async fn connect(&mut self) -> Result<Option<(Link, Connected)>, ConnectError> {
        self.control.connecting();
        let transport = self.transport;
        let again = self.identity.is_some();
        let attempt = async { if again { transport.reconnect().await } else { transport.connect().await } };
        let Some(connected) = self.unlinked(attempt).await? else { return Ok(None) };
        let mut link = Link::new(connected?);
        self.control.refresh().map_err(Error::from)?;
        let mut notices = Notices::default();
        let request = self.request();
        self.links = self.links.saturating_add(1);
        match self.unlinked(link.open(request, &mut notices)).await? {
            Some(Ok(opened)) => Ok(Some((link, Connected { opened, notices }))),
            Some(Err(error)) => Err(Error::Handshake { error, carrier: link.close().await }.into()),
            None => {
                link.close().await;
                Ok(None)
            }
        }
    }

    /// Runs the session without a link until `attempt` is done. `None` if the user ends the session first.
    async fn unlinked<F: Future>(&mut self, attempt: F) -> Result<Option<F::Output>, Error> {
        let Self { control, controls, io, .. } = self;
        let serve = async {
            match io {
                Some(io) => Ok(io.run_unlinked(attempt, controls).await?),
                None => Ok(without_io(attempt, controls).await),
            }
        };
        tokio::select! {
            // The control plane first: a Ctrl-C that ends the session may also have ended the attempt.
            biased;
            never = control.run() => match never {},
            output = serve => output,
        }
    }

    /// Carries packets until the link is lost or the session ends.
    async fn carry(&mut self, mut link: Link, connected: &Connected) -> Result<Carried, Error> {
        let Connected { opened, notices } = connected;
        let Self { control, controls, io, resolver, identity, audit, .. } = self;
        *identity = Some(Identity::of(opened));
        let flows = io.as_ref().map_or(0, Io::flow_count);
        control.opened(opened, notices.kept(), flows, link.signals());
        if !opened.resumed
            && let Some(old) = io.take()
        {
            // After the routes: without them, the answer to a reset that is not exact would take the codespace's
            // default route.
            for frame in control.networks().link_frames() {
                link.streams.writer.push(&frame);
            }
            old.reset_over(&mut link.streams.writer);
        }
        let io = match io {
            Some(io) => io,
            None => {
                let config = engine::Config {
                    gateways: opened.addresses.iter().map(|address| address.gateway).collect(),
                    dns: control.networks().answers_dns(),
                    mtu: opened.mtu.min(MTU),
                    policy: Box::new(control.networks().policy().clone()),
                    secret: random(),
                    resources: resources::of_process(self.memory),
                };
                let mut new =
                    Io::new(Engine::new(config), self.idle, OwnAddresses::of_kernel(), Arc::clone(resolver))?;
                if let Some(audit) = audit {
                    new.audit(audit.recorder().clone());
                }
                io.insert(new)
            }
        };
        control.follow_codespace(io.codespace());
        let end = tokio::select! {
            never = control.run() => match never {},
            never = link.lanes.run() => match never {},
            end = io.run(&mut link.streams, controls) => end,
        };
        let waits = matches!(end, Ok(LinkEnd::Lost(_))) && !self.grace.is_zero();
        control.link_ended(&end, waits);
        if waits {
            // Processes that hang are killed, while the session goes on.
            self.unlinked(link.close()).await?;
            return Ok(Carried::Lost);
        }
        link.end(end).await.map(|()| Carried::ToTheEnd)
    }

    fn request(&self) -> Open {
        let identity = self.identity.as_ref();
        Open {
            resume: identity.and_then(|identity| identity.session),
            link: self.links,
            lane: 0,
            mtu: MTU,
            families: Families { v4: true, v6: true },
            grace: u32::try_from(self.grace.as_secs()).unwrap_or(u32::MAX),
            from: self.from.clone(),
            user: user(),
            host: host(),
            preferred: identity.map(|identity| identity.tunnel.clone()).unwrap_or_default(),
            avoid: self.control.networks().avoid(),
        }
    }
}

/// How carrying over a link ended, if not in failure.
enum Carried {
    /// The user has ended the session.
    ToTheEnd,
    /// The link is lost; the session goes on.
    Lost,
}

/// The sidecar's answer on a new link, and the notices before it.
#[derive(Debug)]
struct Connected {
    opened: Opened,
    notices: Notices,
}

impl Identity {
    fn of(opened: &Opened) -> Self {
        let tunnel = opened.addresses.iter().map(|address| address.sidecar.trunc()).collect();
        Self { session: Some((opened.session, opened.token)), tunnel }
    }
}

/// Receives control messages in place of io until `attempt` is done. `None` if the session is stopped first.
async fn without_io<F: Future>(attempt: F, controls: &mut mpsc::Receiver<Control>) -> Option<F::Output> {
    let stopped = async {
        loop {
            match controls.recv().await {
                Some(Control::Shutdown) | None => return,
                // Without io there are no flows to apply them to. Dropping a report's sender means that there is none.
                Some(
                    Control::Policy(_)
                    | Control::Send(_)
                    | Control::Report(_)
                    | Control::Names(..)
                    | Control::Probe
                    | Control::Gone(_),
                ) => {}
            }
        }
    };
    tokio::select! {
        biased;
        () = stopped => None,
        output = attempt => Some(output),
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

#[cfg(test)]
mod tests;
