//! The commands: short-lived processes that talk to the [owner](crate::owner), or act in its place when it is dead.

pub(crate) mod attach;
pub(crate) mod cleanup;
pub(crate) mod idle;
