//! The owner: the process that owns the session. It is detached from every ssh session and serves the links that
//! `attach` hands to it, one after the other.
//!
//! It ends, and leaves nothing behind, when there is neither a session nor a client that may begin one.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use gh_net_common::frame::{Frame, Goodbye, Level, Notice, Open, Reason, Token};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::{Mode, umask};
use tokio::net::{UnixListener, UnixStream};
use tokio::select;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, timeout, timeout_at};

use crate::exit;
use crate::journal::{Journal, Report};
use crate::notify::Notifier;
use crate::{confinement, undo};

mod client;
mod contender;
pub(crate) mod handover;
mod held;
pub(crate) mod link;
mod segment;
pub(crate) mod session;
mod standby;
pub(crate) mod state;
mod uplink;

use client::{Client, greet};
use contender::{Contender, Decision};
use handover::Reply;
use link::{GOODBYE_TIMEOUT, Link};
use session::{Holder, Session, SessionEvent};
use state::{Lock, StateDir};

/// How long the laptop may take to reset its flows and say goodbye before the sidecar ends.
const LAST_RESETS: Duration = Duration::from_secs(1);
/// Maximum number of clients in the middle of a request, a handshake or an answer. Each may have sent a frame that is not
/// complete, of 128 KiB.
const MAX_CLIENTS: usize = 48;

/// A session that was taken over.
struct TakenOver {
    credentials: ([u8; 16], Token),
    goodbye: Goodbye,
}

/// Runs an owner, whose first client is at the other end of stdin.
///
/// # Errors
/// The system refused something that the owner needs.
pub(crate) fn run() -> anyhow::Result<()> {
    // Allowed, because a process that `attach` has just started does not lead a process group.
    nix::unistd::setsid()?;
    // ps and top would show "exe", because it was started as /proc/self/exe.
    nix::sys::prctl::set_name(c"gh-net-sidecar")?;
    umask(Mode::from_bits_truncate(0o077));
    std::env::set_current_dir("/")?;
    let first = io::stdin().as_fd().try_clone_to_owned()?;
    // The connection is ours to close. It is replaced by a socket whose other end is closed.
    nix::unistd::dup2_stdin(std::os::unix::net::UnixStream::pair()?.0)?;
    raise_descriptors();
    let unconfined = confinement::confine();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let first = std::os::unix::net::UnixStream::from(first);
        first.set_nonblocking(true)?;
        let mut first = UnixStream::from_std(first)?;
        let state = StateDir::locate();
        match state.try_lock() {
            Ok(Some(lock)) => match listen(&state) {
                Ok(listener) => {
                    let owner = Owner::new(state, lock, listener)?;
                    owner.tell_unconfined(&unconfined);
                    owner.serve(first).await;
                }
                Err(error) => {
                    let socket = state.socket();
                    // An owner that was killed may have left a journal.
                    state.remove(lock, true);
                    refuse(first, format!("{}: {error}", socket.display())).await;
                }
            },
            Ok(None) => handover::reply(&mut first, &Reply::Taken).await,
            Err(error) => refuse(first, error.to_string()).await,
        }
        Ok(())
    })
}

/// Allows as many open files as there may be. sshd's default of 1,024 is less than the sockets of all the questions that
/// may be under way, and files have to be opened to restore the codespace.
fn raise_descriptors() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, most)| setrlimit(Resource::RLIMIT_NOFILE, most, most));
    if let Err(error) = raised {
        tracing::debug!(%error, "no more files may be open");
    }
}

fn listen(state: &StateDir) -> io::Result<UnixListener> {
    // An owner that was killed leaves its socket behind.
    let _ = std::fs::remove_file(state.socket());
    let listener = UnixListener::bind(state.socket())?;
    std::fs::set_permissions(state.socket(), std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Tells the laptop of the first client that there will be no session.
async fn refuse(stream: UnixStream, text: String) {
    let goodbye = Goodbye { reason: Reason::Failed, text };
    if let Client::Laptop(link, _) = greet(stream).await {
        link.end(goodbye).await;
    }
}

struct Owner {
    state: StateDir,
    lock: Lock,
    listener: UnixListener,
    clients: JoinSet<Client>,
    /// The handles of `clients`, oldest first.
    oldest: VecDeque<AbortHandle>,
    session: Option<Session>,
    contender: Option<Contender>,
    taken_over: Option<TakenOver>,
    notifier: Notifier,
    notices: mpsc::Receiver<Notice>,
    terminate: Signal,
    interrupt: Signal,
}

/// What the owner handles next.
enum Event {
    Connected(UnixStream),
    Client(Client),
    Session(SessionEvent),
    Notice(Notice),
    Contender(Decision),
    Signal(&'static str),
}

impl Owner {
    fn new(state: StateDir, lock: Lock, listener: UnixListener) -> anyhow::Result<Self> {
        let (notifier, notices) = Notifier::new();
        Ok(Self {
            state,
            lock,
            listener,
            clients: JoinSet::new(),
            oldest: VecDeque::new(),
            session: None,
            contender: None,
            taken_over: None,
            notifier,
            notices,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    fn tell_unconfined(&self, missing: &[String]) {
        if !missing.is_empty() {
            let text = format!(
                "the sidecar could not give up everything that it does not need: {}",
                missing.join("; ")
            );
            self.notifier.notify(Level::Info, "not-confined", text);
        }
    }

    async fn serve(mut self, first: UnixStream) {
        self.recover();
        self.spawn(greet(first));
        while self.session.is_some() || self.is_wanted() {
            match self.next().await {
                Event::Connected(stream) => self.spawn(greet(stream)),
                Event::Client(Client::Cleanup(stream)) => return self.end_for_cleanup(stream).await,
                Event::Client(client) => self.serve_client(client),
                Event::Contender(Decision::ProbeOver) => self.admit_contender("was silent"),
                Event::Contender(Decision::GaveUp(goodbye)) => self.dismiss_contender(goodbye),
                Event::Session(SessionEvent::Alive) => self.refuse_contender(),
                Event::Session(SessionEvent::Cut(link, why)) => {
                    self.in_background(link.leave(exit::DONE, why));
                    self.admit_contender("was lost");
                }
                Event::Session(SessionEvent::Over(goodbye)) => {
                    let goodbye = self.end_session(goodbye);
                    if !self.is_wanted() {
                        return self.finish(goodbye).await;
                    }
                    // A laptop that wants a session must not wait until this one has read its goodbye.
                    self.in_background(goodbye.send());
                    self.admit_contender("was lost");
                }
                Event::Notice(notice) => {
                    if let Some(session) = &mut self.session {
                        session.notice(notice);
                    }
                }
                Event::Signal(name) => return self.end_for_signal(name).await,
            }
        }
        self.finish(PendingGoodbye::none()).await;
    }

    /// Whether a client may still begin a session.
    fn is_wanted(&self) -> bool {
        !self.clients.is_empty() || self.contender.is_some()
    }

    async fn next(&mut self) -> Event {
        let Self { session, clients, contender, .. } = self;
        let has_link = session.as_ref().is_some_and(Session::has_link);
        select! {
            Ok((stream, _)) = self.listener.accept() => Event::Connected(stream),
            Some(client) = clients.join_next() => Event::Client(client.unwrap_or(Client::Gone)),
            Some(event) = next_of_session(session) => event,
            // Notices wait until there is a link.
            Some(notice) = self.notices.recv(), if has_link => Event::Notice(notice),
            Some(decision) = decision_of(contender) => Event::Contender(decision),
            _ = self.terminate.recv() => Event::Signal("SIGTERM"),
            _ = self.interrupt.recv() => Event::Signal("SIGINT"),
        }
    }

    /// Undoes what an owner that was killed left.
    fn recover(&mut self) {
        match Journal::open(self.state.path()).map(|mut journal| undo::all(&mut journal)) {
            Ok(report) if report == Report::default() => {}
            Ok(report) => {
                let done = report.undone.join(", ");
                let text = format!("an earlier session did not end cleanly; undone now: {done}");
                self.notifier.notify(Level::Info, "recovered", text);
                for failure in report.failed {
                    self.notifier.notify(Level::Error, "not-undone", format!("not undone: {failure}"));
                }
            }
            Err(error) => {
                let text = format!(
                    "changes of an earlier session may be left, because its journal in {} can't be read: {error}",
                    self.state.path().display()
                );
                self.notifier.notify(Level::Error, "not-undone", text);
            }
        }
    }

    fn serve_client(&mut self, client: Client) {
        match client {
            Client::Laptop(link, open) => self.serve_laptop(*link, *open),
            Client::Status(mut stream) => {
                if let Some(session) = &self.session {
                    let status = Reply::Status(Box::new(session.status()));
                    self.in_background(async move { handover::reply(&mut stream, &status).await });
                }
            }
            Client::Cleanup(_) | Client::Gone => {}
        }
    }

    /// Begins a session over the link or resumes one, refuses, or lets the laptop wait for a decision.
    fn serve_laptop(&mut self, link: Link, open: Open) {
        if open.lane != 0 {
            return self.serve_lane(link, &open);
        }
        match (&mut self.session, &open.resume) {
            (Some(session), Some(claimed)) if session.is_resumed_by(claimed) && !session.is_newest(&open) => {
                let text = "the session has a newer link".to_owned();
                return self.dismiss(link, Goodbye { reason: Reason::Stale, text });
            }
            // A laptop that resumes is alive.
            (Some(session), Some(claimed)) if session.is_resumed_by(claimed) => self.refuse_contender(),
            (_, Some(claimed)) => {
                let goodbye = self.no_such_session(claimed);
                return self.dismiss(link, goodbye);
            }
            (Some(session), None) if session.has_link() => {
                if let Some(contender) = &self.contender {
                    let goodbye = contender.busy(session.holder());
                    return self.dismiss(link, goodbye);
                }
                session.probe();
                self.contender = Some(Contender::new(link, open));
                return;
            }
            (Some(_), None) => self.take_over(&Holder::new(&open, link.peer), "was lost"),
            (None, None) => {}
        }
        self.begin(link, &open);
    }

    /// Adds a lane to the session's link, or refuses it.
    fn serve_lane(&mut self, lane: Link, open: &Open) {
        match (&mut self.session, &open.resume) {
            (Some(session), Some(claimed)) if session.is_resumed_by(claimed) => {
                if let Err(refused) = session.add_lane(lane, open) {
                    let (lane, goodbye) = *refused;
                    self.dismiss(lane, goodbye);
                }
            }
            (_, Some(claimed)) => {
                let goodbye = self.no_such_session(claimed);
                self.dismiss(lane, goodbye);
            }
            (_, None) => {
                let text = "a lane needs a session".to_owned();
                self.dismiss(lane, Goodbye { reason: Reason::Failed, text });
            }
        }
    }

    /// The laptop that has the session is alive: the one that waits is refused.
    fn refuse_contender(&mut self) {
        if let Some(session) = &self.session {
            let goodbye = session.busy();
            self.dismiss_contender(goodbye);
        }
    }

    /// The link of the laptop that had the session was lost or silent: the laptop that waits, if there is one, gets a
    /// session.
    fn admit_contender(&mut self, why: &str) {
        let Some(contender) = self.contender.take() else { return };
        self.take_over(&contender.name(), why);
        self.begin(contender.link, &contender.open);
    }

    fn dismiss_contender(&mut self, goodbye: Goodbye) {
        if let Some(Contender { link, .. }) = self.contender.take() {
            self.dismiss(link, goodbye);
        }
    }

    /// Ends the session in favour of `by`; the laptop that had it gets a goodbye if it can be reached.
    fn take_over(&mut self, by: &Holder, why: &str) {
        let Some(session) = &self.session else { return };
        let credentials = session.credentials();
        let notice = format!("took the session over from {}: its link {why}", session.holder());
        let text = format!("{by} has taken the session over");
        let goodbye = Goodbye { reason: Reason::TakenOver, text };
        self.taken_over = Some(TakenOver { credentials, goodbye: goodbye.clone() });
        let goodbye = self.end_session(goodbye);
        // Notices that wait belong to the session that ends.
        self.notifier.notify(Level::Warning, "took-over", notice);
        self.in_background(goodbye.send());
    }

    fn no_such_session(&self, claimed: &([u8; 16], Token)) -> Goodbye {
        match &self.taken_over {
            Some(TakenOver { credentials, goodbye }) if session::is_same(credentials, claimed) => {
                goodbye.clone()
            }
            Some(_) | None => {
                let text = "that session does not exist any more: it ended, or its grace expired".to_owned();
                Goodbye { reason: Reason::NoSession, text }
            }
        }
    }

    /// Says goodbye in the background: a laptop that does not read it must not hold up another laptop's session.
    fn dismiss(&mut self, link: Link, goodbye: Goodbye) {
        self.in_background(link.end(goodbye));
    }

    /// Answers a client without waiting until it has read the answer. `answer` has a time limit of its own.
    fn in_background(&mut self, answer: impl Future<Output = ()> + Send + 'static) {
        self.spawn(async move {
            answer.await;
            Client::Gone
        });
    }

    /// Deals with a client. The oldest one gives way: clients that stall must not keep others out.
    fn spawn(&mut self, client: impl Future<Output = Client> + Send + 'static) {
        self.oldest.retain(|client| !client.is_finished());
        if self.oldest.len() >= MAX_CLIENTS
            && let Some(client) = self.oldest.pop_front()
        {
            tracing::debug!("more than {MAX_CLIENTS} clients at a time: the oldest one is left");
            client.abort();
        }
        self.oldest.push_back(self.clients.spawn(client));
    }

    /// The session, a new one if there is none, goes on over the link.
    fn begin(&mut self, link: Link, open: &Open) {
        let mut session = match self.session.take() {
            Some(session) => session,
            None => match self.start_session(&link, open) {
                Ok(session) => session,
                Err(goodbye) => return self.dismiss(link, goodbye),
            },
        };
        let old = session.attach(link, open);
        self.session = Some(session);
        if let Some(old) = old {
            self.in_background(old.leave(exit::DONE, "another link has replaced it".to_owned()));
        }
    }

    fn start_session(&mut self, link: &Link, open: &Open) -> Result<Session, Goodbye> {
        let journal = Journal::open(self.state.path()).map_err(|error| Goodbye {
            reason: Reason::Failed,
            text: format!("the journal in {}: {error}", self.state.path().display()),
        })?;
        Session::start(open, link.peer, journal, self.notifier.clone())
    }

    /// Undoes everything. The goodbye may be sent only after this.
    fn end_session(&mut self, goodbye: Goodbye) -> PendingGoodbye {
        let (mut link, report) = self.session.take().map(Session::undo).unwrap_or_default();
        while let Some(link) = &mut link
            && let Ok(notice) = self.notices.try_recv()
        {
            link.pump.writer.push(&Frame::Notice(notice));
        }
        tracing::info!(?report, ?goodbye, "the session has ended");
        PendingGoodbye { link, goodbye, report }
    }

    async fn end_for_signal(mut self, name: &str) {
        let goodbye = terminated(format!("gh-net-sidecar was ended by {name}"));
        self.announce_end(&goodbye).await;
        let goodbye = self.end_session(goodbye);
        self.finish(goodbye).await;
    }

    async fn end_for_cleanup(mut self, mut cleanup: UnixStream) {
        let goodbye = terminated("gh-net-sidecar cleanup ended the session".to_owned());
        self.announce_end(&goodbye).await;
        let goodbye = self.end_session(goodbye);
        let report = Reply::Undone(goodbye.report.clone());
        // Not polled before `finish` waits for it, when the state has been removed.
        self.in_background(async move { handover::reply(&mut cleanup, &report).await });
        self.finish(goodbye).await;
    }

    /// Dismisses the laptop that waits, and gives the one that has the session a moment to reset its flows, while their
    /// packets still reach the codespace's programs.
    async fn announce_end(&mut self, goodbye: &Goodbye) {
        self.dismiss_contender(goodbye.clone());
        let Some(session) = &mut self.session else { return };
        if !session.announce_end() {
            return;
        }
        let deadline = Instant::now() + LAST_RESETS;
        while let Ok(event) = timeout_at(deadline, session.run()).await {
            match event {
                SessionEvent::Alive => {}
                SessionEvent::Over(_) => return,
                SessionEvent::Cut(link, why) => return self.in_background(link.leave(exit::DONE, why)),
            }
        }
    }

    /// Ends the owner. The state is removed first: a laptop that has read its goodbye finds nothing left.
    async fn finish(mut self, goodbye: PendingGoodbye) {
        let clients = std::mem::take(&mut self.clients);
        let refusal = terminated("gh-net-sidecar is ending; try again".to_owned());
        self.remove_state();
        let drained = timeout(GOODBYE_TIMEOUT, drain(clients, refusal));
        let ((), _) = tokio::join!(goodbye.send(), drained);
    }

    fn remove_state(self) {
        let clean = Journal::open(self.state.path()).is_ok_and(|journal| journal.is_empty());
        self.state.remove(self.lock, !clean);
    }
}

fn terminated(text: String) -> Goodbye {
    Goodbye { reason: Reason::Terminated, text }
}

/// Waits for answers that are being sent, and refuses laptops whose handshake completes in the meantime.
async fn drain(mut clients: JoinSet<Client>, refusal: Goodbye) {
    while let Some(client) = clients.join_next().await {
        if let Ok(Client::Laptop(link, _)) = client {
            let refused = link.end(refusal.clone());
            clients.spawn(async move {
                refused.await;
                Client::Gone
            });
        }
    }
}

/// What is left of a session after undoing: its link and the goodbye.
struct PendingGoodbye {
    link: Option<Link>,
    goodbye: Goodbye,
    report: Report,
}

impl PendingGoodbye {
    /// There was no session.
    fn none() -> Self {
        let goodbye = Goodbye { reason: Reason::Done, text: String::new() };
        Self { link: None, goodbye, report: Report::default() }
    }

    /// Sends the goodbye, with what could not be undone.
    async fn send(self) {
        let Self { link: Some(link), mut goodbye, report } = self else { return };
        if !report.is_clean() {
            let failed = report.failed.join("; ");
            goodbye.text = format!("not everything could be undone: {failed}. {}", goodbye.text);
            goodbye.reason = Reason::Failed;
        }
        link.end(goodbye).await;
    }
}

async fn next_of_session(session: &mut Option<Session>) -> Option<Event> {
    let session = session.as_mut()?;
    Some(Event::Session(session.run().await))
}

async fn decision_of(contender: &mut Option<Contender>) -> Option<Decision> {
    Some(contender.as_mut()?.decision().await)
}
