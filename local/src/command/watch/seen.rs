//! A session as it was seen.

use serde_json::Value;

/// See the [module's documentation](self).
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Seen {
    /// Its process.
    pub(super) process: String,
    /// Its status; `None` if it does not answer.
    pub(super) status: Option<Value>,
}
