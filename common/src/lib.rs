//! What both ends of a gh-net session compile: the [wire protocol](frame), the [handshake](hello), the [control of a
//! link](link) and its [lanes], the [fair order](schedule) of what waits for it, [checksums](checksum), and the networks
//! that are [never forwarded](reserved).
//!
//! That part is pure. Features add what touches the system: `framed` (frames on tokio's streams, timers), `netlink` (the
//! kernel's networks), `file-watch` (changes of a file), `sys` (descriptors that tasks wait for), `turns` (fair shares) and
//! `logging`.
//!
//! Code that only one end needs belongs to that end.

#[cfg(feature = "framed")]
pub mod alarm;
pub mod checksum;
#[cfg(feature = "framed")]
pub mod debounce;
#[cfg(feature = "file-watch")]
pub mod file_watch;
pub mod frame;
#[cfg(feature = "framed")]
pub mod framed;
pub mod hello;
pub mod lanes;
pub mod link;
#[cfg(feature = "logging")]
pub mod logging;
#[cfg(feature = "netlink")]
pub mod netlink;
pub mod reserved;
pub mod schedule;
#[cfg(feature = "sys")]
pub mod sys;
#[cfg(feature = "turns")]
pub mod turns;
pub use link::window;
