//! Exit codes of `gh-net-sidecar`. They are part of its interface.

use gh_net_common::frame::Reason;

/// Success; everything is undone.
pub const DONE: u8 = 0;
/// Any other failure; the message explains it.
pub const FAILED: u8 = 1;
/// Wrong usage: a bad flag, or stdin or stdout is not a pipe.
pub const USAGE: u8 = 2;
/// Not enough privilege.
pub const PRIVILEGE: u8 = 3;
/// No usable TUN device.
pub const TUN: u8 = 4;
/// Another session is in progress.
pub const BUSY: u8 = 5;
/// The session to resume does not exist.
pub const NO_SESSION: u8 = 6;
/// The other side violated the protocol or speaks another version.
pub const PROTOCOL: u8 = 7;
/// A signal, or `cleanup`, ended the session.
pub const TERMINATED: u8 = 8;

/// Another laptop has taken the session over.
pub const TAKEN_OVER: u8 = 9;

/// The codes as text, for `--help`.
pub const HELP: &str = "Exit codes: 0 success, 1 failure, 2 wrong usage, 3 not enough privilege, 4 no TUN device, \
     5 another session is in progress, 6 no session to resume, 7 protocol error, 8 ended by a signal or by cleanup, \
     9 taken over by another laptop";

/// The code that goes with a goodbye's reason.
pub fn code(reason: Reason) -> u8 {
    match reason {
        Reason::Done => DONE,
        Reason::Privilege => PRIVILEGE,
        Reason::Tun => TUN,
        Reason::Busy => BUSY,
        Reason::NoSession => NO_SESSION,
        Reason::Version | Reason::Protocol => PROTOCOL,
        Reason::Terminated => TERMINATED,
        Reason::Failed | Reason::Stale => FAILED,
        Reason::TakenOver => TAKEN_OVER,
    }
}
