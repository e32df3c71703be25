//! Requests for the session's status.

use tokio::sync::{mpsc, oneshot};

use super::Status;

/// Requests that may wait for the session.
const WAITING: usize = 8;

/// Asks a session for its status. Cheap to clone.
#[derive(Debug, Clone)]
pub struct StatusHandle(mpsc::Sender<oneshot::Sender<Status>>);

/// The session's end: requests to be answered.
pub type Requests = mpsc::Receiver<oneshot::Sender<Status>>;

/// A handle and the session's end of it.
pub fn channel() -> (StatusHandle, Requests) {
    let (sender, requests) = mpsc::channel(WAITING);
    (StatusHandle(sender), requests)
}

impl StatusHandle {
    /// The status now; `None` if the session has ended.
    pub async fn status(&self) -> Option<Status> {
        let (answer, status) = oneshot::channel();
        self.0.send(answer).await.ok()?;
        status.await.ok()
    }
}
