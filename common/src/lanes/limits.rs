//! How many lanes, how much on each of them, and for how long.

use std::time::Duration;

use crate::link::SILENCE;

/// Maximum number of lanes of a link. sshd allows ten channels (`MaxSessions`).
pub const MAX_LANES: usize = 8;

/// How many bytes of packets may be under way on each of several lanes: the 2 MiB of a channel, less what ssh has consumed and not
/// given back yet (it does so in steps of 96 KiB). More would only wait in front of ssh.
pub const LANE_CAP: u64 = 1920 * 1024;

/// How long frames may wait for one that another lane has to bring. A link may be silent for as long.
pub const MAX_WAIT: Duration = SILENCE;
