//! What both ends of a gh-net session compile: the [wire protocol](frame), the [async adapter](framed)
//! that moves it, the [handshake](hello), the [window] that keeps the queue out of ssh, and the
//! set-up of [logging].
//!
//! The crate is small on purpose. What only one end needs lives at that end.

pub mod frame;
pub mod framed;
pub mod hello;
pub mod logging;
pub mod window;
