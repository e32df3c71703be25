//! What of the codespace changes under a session: its networks, the hook's own rules, routes and addresses, and
//! resolv.conf.
//!
//! Events drive nothing by themselves: they are reasons to look. Most are collected until they pause
//! ([`debounce`](gh_net_common::debounce)), because a container engine or a DHCP client makes several changes in a row.
//! Only what may have damaged the hook, and new bridges, are reported at once, because meanwhile packets for the laptop's
//! networks may take the codespace's default route.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use gh_net_common::debounce::{Changes, Debounce};
use gh_net_common::file_watch::FileWatch;
use gh_net_common::frame::Level;
use gh_net_common::netlink::{NETWORK_GROUPS, Netlink};
use gh_net_common::sys::ReadyFd;
use netlink_packet_route::RouteNetlinkMessage;
use tokio::time::{Instant, sleep_until};

use crate::hook::Concern;
use crate::notify::Notifier;

/// Maximum number of datagrams of events read at once. An overflow of the socket's buffer is an event as well.
const DATAGRAMS: usize = 256;

/// After this time the kernel is asked again to report changes.
const REOPEN: Duration = Duration::from_secs(5);

/// How long a program that writes resolv.conf is waited for until it closes the file.
const WRITER: Duration = Duration::from_secs(5);

/// What to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    /// The hook may be damaged.
    Damage,
    /// There may be a new bridge.
    Bridge,
    /// The codespace's networks may have changed, and resolv.conf if `file` says so.
    Changes {
        /// Whether more changes of the networks are coming: what is missing may be about to come back.
        networks: Changes,
        /// Whether resolv.conf may have changed.
        file: bool,
    },
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Watch {
    /// `None` if the kernel does not report changes.
    kernel: Option<Kernel>,
    /// When it is asked to again.
    reopened: Option<Instant>,
    path: &'static Path,
    /// `None` if resolv.conf can't be watched.
    file: Option<FileWatch>,
    /// Why it can't be: logged once.
    refused: Option<String>,
    /// When resolv.conf was touched for the first time since it was looked at.
    touched: Option<Instant>,
    /// When resolv.conf is to be looked at even if nobody touches it.
    due: Option<Instant>,
    debounce: Debounce,
    notifier: Notifier,
}

/// Why waiting for events stops before they pause.
enum Stop {
    AtOnce(Seen),
    Kernel(io::Error),
    Reopen,
    File(io::Error),
}

/// Whose event it is.
enum Source {
    Kernel,
    File,
}

impl Watch {
    /// Watches the networks and the file at `path` from now on. Must be called within a tokio runtime.
    pub(crate) fn new(path: &'static Path, notifier: Notifier) -> Self {
        let mut watch = Self {
            kernel: None,
            reopened: None,
            path,
            file: None,
            refused: None,
            touched: None,
            due: None,
            debounce: Debounce::default(),
            notifier,
        };
        match listen() {
            Ok(kernel) => watch.kernel = Some(kernel),
            Err(error) => watch.kernel_lost(&error),
        }
        watch.watch_file();
        watch
    }

    /// The kernel does not report changes any more: it is asked to again after a while.
    fn kernel_lost(&mut self, error: &io::Error) {
        self.kernel = None;
        self.reopened = Some(Instant::now() + REOPEN);
        let text = format!(
            "changes of the codespace's networks are not followed ({error}); this is tried again every {} seconds",
            REOPEN.as_secs()
        );
        self.notifier.notify(Level::Warning, "networks-unwatched", text);
    }

    fn reopen(&mut self) {
        match listen() {
            Ok(kernel) => {
                self.kernel = Some(kernel);
                self.reopened = None;
                // What happened meanwhile was not reported.
                self.debounce.begin();
                let text = "changes of the codespace's networks are followed again".to_owned();
                self.notifier.notify(Level::Info, "networks-watched", text);
            }
            Err(error) => {
                tracing::debug!("changes of the codespace's networks are not followed: {error}");
                self.reopened = Some(Instant::now() + REOPEN);
            }
        }
    }

    /// Waits until there is a reason to look at something. `concern` says what an event means. Cancel safe.
    pub(crate) async fn seen(&mut self, concern: impl Fn(&RouteNetlinkMessage) -> Concern) -> Seen {
        loop {
            let Self { kernel, reopened, file, touched, due, debounce, .. } = self;
            let reopened = *reopened;
            let changes =
                debounce.changes(async || match event(kernel, reopened, file, due, &concern).await? {
                    Source::Kernel => Ok(()),
                    Source::File => {
                        touched.get_or_insert_with(Instant::now);
                        Ok(())
                    }
                });
            match changes.await {
                Ok(networks) => return Seen::Changes { networks, file: self.file_is_due(networks) },
                Err(Stop::AtOnce(seen)) => {
                    self.debounce.begin();
                    return seen;
                }
                Err(Stop::Kernel(error)) => self.kernel_lost(&error),
                Err(Stop::Reopen) => self.reopen(),
                Err(Stop::File(error)) => {
                    tracing::warn!("{} can't be watched any more: {error}", self.path.display());
                    self.file = None;
                }
            }
        }
    }

    /// Has the networks looked at again soon: changes interrupted the last look.
    pub(crate) fn look_again(&mut self) {
        self.debounce.begin();
    }

    /// Has resolv.conf looked at after this time, even if nobody touches it.
    pub(crate) fn look_after(&mut self, time: Duration) {
        self.due = Some(Instant::now() + time);
    }

    /// Whether resolv.conf has to be looked at now. Once changes have settled, the watch on it begins anew: what happens
    /// from now on is another event.
    fn file_is_due(&mut self, networks: Changes) -> bool {
        if self.file.is_none() {
            // What was in the way may be gone, and the file may have changed meanwhile.
            self.watch_file();
            return self.file.is_some();
        }
        let Some(since) = self.touched else { return false };
        if self.file.as_ref().is_some_and(FileWatch::is_written) && since.elapsed() < WRITER {
            if networks == Changes::Settled {
                self.debounce.begin();
            }
            return false;
        }
        if networks == Changes::Settled {
            self.touched = None;
            self.watch_file();
        }
        true
    }

    fn watch_file(&mut self) {
        match FileWatch::new(self.path) {
            Ok(file) => (self.file, self.refused) = (Some(file), None),
            Err(error) => {
                self.file = None;
                let refused = error.to_string();
                if self.refused.as_ref() != Some(&refused) {
                    tracing::warn!("{} can't be watched: {refused}", self.path.display());
                    self.refused = Some(refused);
                }
            }
        }
    }
}

/// A socket that reports changes of the networks.
#[derive(Debug)]
struct Kernel {
    netlink: Netlink,
    /// Its descriptor, for polling.
    ready: ReadyFd,
}

fn listen() -> io::Result<Kernel> {
    let netlink = Netlink::open()?;
    for group in NETWORK_GROUPS {
        netlink.listen(group)?;
    }
    let ready = ReadyFd::new(netlink.as_fd().try_clone_to_owned()?)?;
    Ok(Kernel { netlink, ready })
}

/// The next event that is worth a look.
async fn event(
    kernel: &mut Option<Kernel>,
    reopened: Option<Instant>,
    file: &mut Option<FileWatch>,
    due: &mut Option<Instant>,
    concern: impl Fn(&RouteNetlinkMessage) -> Concern,
) -> Result<Source, Stop> {
    tokio::select! {
        gravest = kernel_event(kernel, concern) => match gravest.map_err(Stop::Kernel)? {
            Concern::Damage => Err(Stop::AtOnce(Seen::Damage)),
            Concern::Bridge => Err(Stop::AtOnce(Seen::Bridge)),
            Concern::Codespace | Concern::None => Ok(Source::Kernel),
        },
        event = file_event(file) => event.map(|()| Source::File).map_err(Stop::File),
        () = time(reopened) => Err(Stop::Reopen),
        () = time(*due) => {
            *due = None;
            Ok(Source::File)
        }
    }
}

async fn time(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

async fn file_event(file: &mut Option<FileWatch>) -> io::Result<()> {
    match file {
        Some(file) => file.event().await,
        None => std::future::pending().await,
    }
}

/// The gravest concern of all events that wait.
async fn kernel_event(
    kernel: &mut Option<Kernel>,
    concern: impl Fn(&RouteNetlinkMessage) -> Concern,
) -> io::Result<Concern> {
    let Some(Kernel { netlink, ready }) = kernel else { return std::future::pending().await };
    loop {
        let mut guard = ready.readable().await?;
        let mut gravest = Concern::None;
        for _ in 0..DATAGRAMS {
            match netlink.take_events() {
                Ok(None) => {
                    guard.clear_ready();
                    break;
                }
                Ok(Some(events)) => {
                    let concerns = events.iter().map(&concern);
                    gravest = concerns.fold(gravest, Ord::max);
                }
                // There were more events than the socket holds: some are lost.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => gravest = Concern::Damage,
                Err(error) => return Err(error),
            }
        }
        if gravest != Concern::None {
            return Ok(gravest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_lost_socket_is_told_and_opened_again() {
        let (notifier, mut notices) = Notifier::new();
        let mut watch = Watch::new(Path::new("/nonexistent/resolv.conf"), notifier);
        assert!(watch.kernel.is_some());
        watch.kernel_lost(&io::ErrorKind::BrokenPipe.into());
        assert_eq!(notices.recv().await.unwrap().code, "networks-unwatched");
        let waited =
            event(&mut watch.kernel, watch.reopened, &mut watch.file, &mut watch.due, |_| Concern::None);
        assert!(matches!(waited.await, Err(Stop::Reopen)));
        watch.reopen();
        assert!(watch.kernel.is_some() && watch.reopened.is_none());
        assert_eq!(notices.recv().await.unwrap().code, "networks-watched");
        // What happened meanwhile is looked at.
        assert_eq!(
            watch.seen(|_| Concern::None).await,
            Seen::Changes { networks: Changes::Settled, file: false }
        );
    }
}
