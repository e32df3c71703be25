//! Messages for the laptop's user, from any part of the sidecar.

use gh_net_common::frame::{Level, Notice};
use tokio::sync::mpsc;

/// Maximum number of notices that wait for a link. A user does not read more.
const WAITING: usize = 32;

/// Sends notices. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Notifier(mpsc::Sender<Notice>);

impl Notifier {
    /// A notifier, and the receiver of its notices.
    pub(crate) fn new() -> (Self, mpsc::Receiver<Notice>) {
        let (sender, receiver) = mpsc::channel(WAITING);
        (Self(sender), receiver)
    }

    /// Tells the user `text`; `code` names the kind of message for programs. While there is no link the notice
    /// waits for one; when too many wait, it is only logged.
    pub(crate) fn notify(&self, level: Level, code: &'static str, text: String) {
        tracing::info!(?level, code, "{text}");
        if self.0.try_send(Notice { level, code: code.to_owned(), text }).is_err() {
            tracing::warn!("the notice is not shown: too many are waiting");
        }
    }
}
