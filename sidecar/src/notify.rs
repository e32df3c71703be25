//! Words of the sidecar for the laptop's user, from wherever in it they are said.

use gh_net_common::frame::{Level, Notice};
use tokio::sync::mpsc;

/// Notices that wait for a link at most. More than these are of no use to anybody.
const WAITING: usize = 32;

/// Says things. Clone it freely.
#[derive(Debug, Clone)]
pub(crate) struct Notifier(mpsc::Sender<Notice>);

impl Notifier {
    /// A notifier, and where its notices come out.
    pub(crate) fn new() -> (Self, mpsc::Receiver<Notice>) {
        let (sender, receiver) = mpsc::channel(WAITING);
        (Self(sender), receiver)
    }

    /// Tells the user `text`; `code` names the kind of message for programs. While there is no link the notice
    /// waits for one; when too many wait, it is only logged.
    pub(crate) fn notify(&self, level: Level, code: &'static str, text: String) {
        tracing::info!(?level, code, "{text}");
        if self.0.try_send(Notice { level, code: code.to_owned(), text }).is_err() {
            tracing::warn!("that notice is not shown: too many wait");
        }
    }
}
