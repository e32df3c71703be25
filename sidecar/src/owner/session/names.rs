//! Names in a session: the responder, and the resolver hook that leads to it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use gh_net_common::frame::{self, DnsMode, Level, TunnelAddress};

use ipnet::IpNet;

use crate::journal::Journal;
use crate::liveness::LinkMonitor;
use crate::names::resolv::{self, Followed};
use crate::names::responder::{self, Forwarded, Responder};
use crate::notify::Notifier;
use crate::own_sockets::OwnSockets;
use crate::undo;

/// What names are resolved by.
#[derive(Debug)]
pub(super) struct Names {
    mode: DnsMode,
    responder: Option<Responder>,
    hook: Option<resolv::Hook>,
    /// Our own addresses.
    listen: Vec<IpAddr>,
    /// The laptop's.
    laptop: Vec<IpAddr>,
    /// The codespace's own resolvers.
    resolvers: Vec<IpAddr>,
    /// Which addresses lead to the laptop.
    forwarded: Arc<Forwarded>,
    /// Whose questions are answered.
    clients: Vec<IpNet>,
    /// The error that keeps names unhooked: it is told once.
    error: Option<String>,
    /// After which time resolv.conf is to be looked at again.
    look_after: Option<Duration>,
    notifier: Notifier,
    /// Has the sockets that the responder asks by.
    sockets: OwnSockets,
}

impl Names {
    /// Nobody is asked yet.
    pub(super) fn new(addresses: &[TunnelAddress], notifier: Notifier, sockets: OwnSockets) -> Self {
        Self {
            mode: DnsMode::Off,
            responder: None,
            hook: None,
            listen: addresses.iter().map(|address| address.sidecar.addr()).collect(),
            laptop: addresses.iter().map(|address| address.gateway).collect(),
            resolvers: Vec::new(),
            forwarded: Arc::default(),
            clients: Vec::new(),
            error: None,
            look_after: None,
            notifier,
            sockets,
        }
    }

    /// Who is asked first.
    pub(super) fn mode(&self) -> DnsMode {
        self.mode
    }

    /// Whether resolv.conf names our responder.
    pub(super) fn is_hooked(&self) -> bool {
        self.hook.as_ref().is_some_and(resolv::Hook::is_set)
    }

    /// Whether the hook could not be set the last time.
    pub(super) fn is_unhooked_by_error(&self) -> bool {
        self.hook.as_ref().is_some_and(resolv::Hook::has_failed)
    }

    /// The codespace's own resolvers.
    pub(super) fn resolvers(&self) -> &[IpAddr] {
        &self.resolvers
    }

    /// Reads the codespace's own resolvers. A file that names none keeps the earlier ones in force.
    pub(super) fn read_resolvers(&mut self) {
        let mut named = resolv::nameservers();
        named.retain(|server| !self.listen.contains(server));
        if named.is_empty() || named == self.resolvers {
            return;
        }
        self.resolvers = named;
        if let Some(responder) = &self.responder {
            responder.set_resolvers(&self.resolvers);
        }
    }

    /// Other addresses lead to the laptop from now on.
    pub(super) fn set_forwarded(&mut self, forwarded: Forwarded) {
        self.forwarded = Arc::new(forwarded);
        if let Some(responder) = &self.responder {
            responder.set_forwarded(Arc::clone(&self.forwarded));
        }
    }

    /// How many answers were refused because they lead public names to the laptop.
    pub(super) fn rebind_refused(&self) -> u64 {
        self.responder.as_ref().map_or(0, Responder::refused)
    }

    /// Answers the questions of these networks only.
    pub(super) fn set_clients(&mut self, clients: Vec<IpNet>) {
        if let Some(responder) = self.responder.as_ref().filter(|_| clients != self.clients) {
            responder.set_clients(clients.clone());
        }
        self.clients = clients;
    }

    /// Follows the laptop's DNS settings.
    pub(super) fn set(&mut self, dns: frame::Dns, link: &LinkMonitor, journal: &mut Journal) {
        self.mode = dns.mode;
        if dns.mode == DnsMode::Off {
            self.unhook(journal);
            return;
        }
        match self.install(&dns, link, journal) {
            Ok(followed) => self.tell(followed),
            Err(error) => self.unhooked(&error),
        }
    }

    /// Other networks are the laptop's now.
    pub(super) fn routes_changed(&self) {
        if let Some(responder) = &self.responder {
            responder.routes_changed();
        }
    }

    /// Starts the responder first, then makes resolv.conf name it.
    fn install(
        &mut self,
        dns: &frame::Dns,
        link: &LinkMonitor,
        journal: &mut Journal,
    ) -> anyhow::Result<Followed> {
        let responder = match self.responder.take() {
            Some(responder) => responder,
            None => {
                let config = responder::Config {
                    listen: self.listen.clone(),
                    laptop: self.laptop.clone(),
                    resolvers: self.resolvers.clone(),
                    notifier: self.notifier.clone(),
                    sockets: self.sockets.clone(),
                };
                Responder::start(config, link.watch())?
            }
        };
        responder.set_forwarded(Arc::clone(&self.forwarded));
        responder.set(dns);
        responder.set_clients(self.clients.clone());
        self.responder = Some(responder);
        Ok(match &mut self.hook {
            Some(hook) => hook.update(&dns.search)?,
            None => {
                self.hook = Some(resolv::Hook::install(journal, &self.listen, &dns.search)?);
                Followed::Unchanged
            }
        })
    }

    fn unhook(&mut self, journal: &mut Journal) {
        let failure = self.follow_last();
        self.hook = None;
        for failure in undo::names(journal).failed.into_iter().chain(failure) {
            self.notifier.notify(Level::Error, "not-undone", failure);
        }
        // Stopped only after resolv.conf no longer names it.
        self.responder = None;
    }

    /// resolv.conf may have been rewritten by another program.
    pub(super) fn follow(&mut self) {
        if let Some(hook) = &mut self.hook {
            match hook.follow() {
                Ok(followed) => self.tell(followed),
                Err(error) => self.unhooked(&error.into()),
            }
        }
        self.read_resolvers();
    }

    /// Before the end: what another program has changed just now has not been seen yet, and the original of what it made
    /// of our text is known only here. Returns what could not be restored, as text.
    pub(super) fn follow_last(&mut self) -> Option<String> {
        let hook = self.hook.as_mut()?;
        if let Err(error) = hook.follow() {
            tracing::warn!("{error}");
        }
        hook.restore().err().map(|error| format!("resolv.conf: {error}"))
    }

    /// There is a new link.
    pub(super) fn begin_anew(&mut self) {
        if let Some(hook) = &mut self.hook {
            hook.begin_anew();
        }
        self.follow();
    }

    /// After which time resolv.conf is to be looked at again, if [`Self::follow`] or [`Self::set`] found a reason.
    pub(super) fn take_look_after(&mut self) -> Option<Duration> {
        self.look_after.take()
    }

    fn unhooked(&mut self, error: &anyhow::Error) {
        let text = format!("names of the laptop's networks are not resolved: {error}");
        if self.error.replace(text.clone()).is_some_and(|told| told == text) {
            return;
        }
        self.notifier.notify(Level::Warning, "names-unhooked", text);
    }

    fn tell(&mut self, followed: Followed) {
        self.error = None;
        let path = resolv::RESOLV_CONF;
        let named = |comment: Option<String>| match comment {
            Some(comment) => format!("{path} (it begins with \"{comment}\")"),
            None => path.to_owned(),
        };
        match followed {
            Followed::Unchanged => {}
            Followed::SetAgain(comment) => {
                let text = format!(
                    "another program has rewritten {}; its settings are kept, and names are resolved through gh-net \
                     again",
                    named(comment)
                );
                self.notifier.notify(Level::Info, "names-hooked-again", text);
            }
            Followed::Later(time) => self.look_after = Some(time),
            Followed::LeftAlone(comment) => {
                let text = format!(
                    "another program goes on rewriting {}, and it is left alone until it stops: names of the laptop's \
                     networks are not resolved in the codespace, addresses work as before. Find that program, for \
                     example NetworkManager, systemd-resolved, resolvconf, a DHCP or a VPN client. Names are resolved \
                     again once it has been quiet for 5 minutes, or when gh-net connects anew",
                    named(comment)
                );
                self.notifier.notify(Level::Warning, "names-left-alone", text);
                self.look_after = Some(resolv::WINDOW);
            }
        }
    }
}
