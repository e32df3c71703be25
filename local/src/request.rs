//! What other processes ask of a session.

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use crate::judgement::{Judgement, Question};
use crate::status::Status;

/// Requests that may wait for the session.
const WAITING: usize = 8;

/// A request, with where the answer goes.
#[derive(Debug)]
pub enum Request {
    /// For the status.
    Status(oneshot::Sender<Status>),
    /// To read the configuration again.
    Reload(oneshot::Sender<Result<Reloaded, Refused>>),
    /// What would happen to a flow.
    Judge(Question, oneshot::Sender<Judgement>),
}

/// What has changed by reading the configuration again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// Rules that were not there before.
    pub added: Vec<String>,
    /// Rules that are not there any more.
    pub removed: Vec<String>,
    /// Whether the rules that stay are in another order.
    pub reordered: bool,
    /// How many flows have ended because the rules don't admit them.
    pub ended: u64,
    /// Whether the configuration has other changes, which apply from the next start.
    pub others: bool,
    /// Warnings about the configuration.
    pub warnings: Vec<String>,
}

impl Reloaded {
    /// Whether the rules are the same as before.
    pub fn is_unchanged(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && !self.reordered
    }
}

/// Why the configuration was not read again. The old one stays in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// What is wrong, and where.
    pub error: String,
    /// Details such as a parser's message.
    pub details: Option<String>,
    /// What the user can do.
    pub remedy: Option<String>,
}

/// Asks a session. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SessionHandle(mpsc::Sender<Request>);

/// The session's end: requests to be answered.
pub type Requests = mpsc::Receiver<Request>;

/// A handle and the session's end of it.
pub fn channel() -> (SessionHandle, Requests) {
    let (sender, requests) = mpsc::channel(WAITING);
    (SessionHandle(sender), requests)
}

impl SessionHandle {
    /// The status now; `None` if the session has ended.
    pub async fn status(&self) -> Option<Status> {
        self.ask(Request::Status).await
    }

    /// Reads the configuration again; `None` if the session has ended.
    pub async fn reload(&self) -> Option<Result<Reloaded, Refused>> {
        self.ask(Request::Reload).await
    }

    /// What would happen to a flow; `None` if the session has ended.
    pub async fn judge(&self, question: Question) -> Option<Judgement> {
        self.ask(|answer| Request::Judge(question, answer)).await
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Option<T> {
        let (sender, answer) = oneshot::channel();
        self.0.send(request(sender)).await.ok()?;
        answer.await.ok()
    }
}
