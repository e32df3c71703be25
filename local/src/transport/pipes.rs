//! The two streams of a connection, whatever is under them.

use tokio::io::{AsyncRead, AsyncWrite};

/// What is read from a connection.
pub type Reader = Box<dyn AsyncRead + Send + Unpin>;
/// What is written to one.
pub type Writer = Box<dyn AsyncWrite + Send + Unpin>;
