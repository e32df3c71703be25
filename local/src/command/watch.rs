//! `gh-net status --watch`: on a terminal a picture that is drawn again in place, else one document for each change.
//!
//! It ends with the last session, at Ctrl-C, or when nobody reads any more.

mod changes;
mod picture;
mod seen;

use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};

use self::changes::Changes;
use self::picture::Picture;
use self::seen::Seen;
use crate::exit::{Exit, Failure};
use crate::instance::{Error, Running, ask_all};
use crate::status::unix_time;

/// How often to ask the sessions. A link takes longer to be replaced.
const ASK: Duration = Duration::from_millis(250);

/// Where the sessions are shown.
enum View {
    Picture(Picture),
    Changes(Changes),
}

impl View {
    /// What to print for the sessions now.
    fn render(&mut self, seen: &[Seen]) -> String {
        match self {
            Self::Picture(picture) => picture.render(seen, unix_time(), rows()),
            Self::Changes(changes) => changes.render(seen, unix_time()),
        }
    }
}

/// Shows the running sessions until the last one has ended.
pub(super) fn run(json: bool) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure {
        exit: Exit::Failed,
        what: format!("the sessions can't be watched: {error}"),
        details: None,
        remedy: None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let view = if !json && is_screen() {
        View::Picture(Picture::default())
    } else {
        View::Changes(Changes::new(json))
    };
    let done = runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        tokio::select! {
            done = follow(view) => done.map_err(Failure::from),
            _ = interrupt.recv() => Ok(()),
            _ = terminate.recv() => Ok(()),
        }
    });
    // A session that does not answer must not delay the end.
    runtime.shutdown_background();
    done
}

async fn follow(mut view: View) -> Result<(), Error> {
    let mut ticks = interval(ASK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // A panic of the thread is passed on by the runtime's own message.
        let Ok(seen) = tokio::task::spawn_blocking(look).await else { return Ok(()) };
        let seen = seen?;
        let text = view.render(&seen);
        // Not on this thread: a reader that stands still must not keep Ctrl-C from ending this.
        let written = tokio::task::spawn_blocking(move || {
            let mut out = io::stdout().lock();
            out.write_all(text.as_bytes()).and_then(|()| out.flush())
        });
        if !matches!(written.await, Ok(Ok(()))) || unread() || seen.is_empty() {
            return Ok(());
        }
    }
}

fn look() -> Result<Vec<Seen>, Error> {
    let asked = ask_all(Running::all()?, Running::status);
    let seen = asked.into_iter().filter_map(|(session, status)| {
        let process = session.process().to_owned();
        match status {
            // It has ended meanwhile.
            Ok(None) => None,
            Ok(Some(status)) => Some(Seen { process, status: Some(status) }),
            Err(_) => Some(Seen { process, status: None }),
        }
    });
    Ok(seen.collect())
}

/// Whether stdout is a terminal whose cursor moves.
fn is_screen() -> bool {
    io::stdout().is_terminal()
        && std::env::var_os("TERM").is_some_and(|term| !term.is_empty() && term != "dumb")
}

/// The height of the terminal.
fn rows() -> usize {
    const USUAL: usize = 24;
    rustix::termios::tcgetwinsize(io::stdout()).map_or(USUAL, |size| match size.ws_row {
        0 => USUAL,
        rows => usize::from(rows),
    })
}

/// Whether stdout is a pipe whose reader has gone away.
fn unread() -> bool {
    let stdout = io::stdout();
    let mut polled = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
    let gone = PollFlags::POLLERR | PollFlags::POLLNVAL;
    poll(&mut polled, PollTimeout::ZERO).is_ok()
        && polled[0].revents().is_some_and(|events| events.intersects(gone))
}
