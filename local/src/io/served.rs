//! The result of serving one flow's socket, shared by [`super::flows`] and every kind of socket.

use crate::engine::ConnectError;

/// The result of serving a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Served {
    /// Nothing more can be done until the next event.
    Idle,
    /// Nothing more can be done now, but the passing of time alone may change that.
    Later,
    /// The flow has used up its turn, and there is more to do.
    Again,
    /// The connection failed.
    Failed,
    /// The connection could not be established.
    Unconnected(ConnectError),
}
