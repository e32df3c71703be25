//! Reconnecting after a lost link: attempts with a backoff, at once when the laptop's networks come back or it wakes.

use std::time::Duration;

use tokio::time::sleep;

use super::backoff::Backoff;
use super::error::{ConnectError, Outlook};
use super::link::Link;
use super::{Connected, Session};
use crate::exit::{Explain, Failure};
use crate::random::random;

/// How long to wait when the user has to do something first, such as logging in again.
const UNTIL_USER: Duration = Duration::from_secs(5 * 60);

impl Session<'_> {
    /// Tries to connect until the session is open on a new link. `None` if the user ends the session first.
    ///
    /// # Errors
    /// No attempt will succeed any more.
    pub(super) async fn reconnect(&mut self) -> Result<Option<(Link, Connected)>, Failure> {
        let mut reported = String::new();
        let mut wait = self.backoff.wait(random());
        loop {
            self.control.waiting(wait);
            let nudge = self.control.nudge();
            let waited = self.unlinked(async {
                tokio::select! {
                    () = sleep(wait) => false,
                    () = nudge.notified() => true,
                }
            });
            match waited.await? {
                None => return Ok(self.ended_without_a_link()),
                Some(true) => self.backoff = Backoff::new(),
                Some(false) => {}
            }
            let error = match self.attempt().await {
                Some(Ok(Some(connected))) => return Ok(Some(connected)),
                Some(Ok(None)) => return Ok(self.ended_without_a_link()),
                Some(Err(error)) => error,
                None => {
                    wait = Duration::ZERO;
                    continue;
                }
            };
            wait = match error.outlook() {
                Outlook::Final => return Err(error.into()),
                Outlook::NewSession => {
                    if let Some(identity) = &mut self.identity {
                        identity.session = None;
                    }
                    Duration::ZERO
                }
                Outlook::Retry => self.backoff.wait(random()),
                Outlook::User => UNTIL_USER,
            };
            report(&error, &mut reported, wait);
        }
    }

    /// One attempt. `None` if it was abandoned because the laptop's networks have changed: its packets may have been
    /// sent into a network that is gone.
    async fn attempt(&mut self) -> Option<Result<Option<(Link, Connected)>, ConnectError>> {
        let nudge = self.control.nudge();
        tokio::select! {
            connected = self.connect() => Some(connected),
            () = nudge.notified() => None,
        }
    }

    fn ended_without_a_link<T>(&self) -> Option<T> {
        let grace = humantime::format_duration(self.grace);
        tracing::warn!(
            "the session ends without a link: the sidecar restores the codespace once its grace of {grace} \
             is over, or when `gh-net-sidecar cleanup` is run in the codespace"
        );
        None
    }
}

/// One line for each new reason, with what the user can do about it.
fn report(error: &ConnectError, reported: &mut String, wait: Duration) {
    let text = error.to_string();
    if error.outlook() == Outlook::NewSession {
        tracing::info!("{text}; starting a new session");
    } else if text == *reported {
        tracing::debug!("{text}; next attempt in {wait:.1?}");
    } else {
        tracing::warn!("no link yet: {text}; trying again");
        let remedy = match error {
            ConnectError::Transport(error) => error.remedy(),
            ConnectError::Session(error) => error.remedy(),
        };
        if let Some(remedy) = remedy.filter(|_| error.outlook() == Outlook::User) {
            tracing::warn!("{remedy}");
        }
    }
    *reported = text;
}
