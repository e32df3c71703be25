//! The room for unsafe code of this crate: what has no safe interface elsewhere gets one here.

#![allow(unsafe_code, reason = "the compiler denies it everywhere else")]

use nix::sys::signal::{SigHandler, Signal, signal};

/// Lets this process survive a Ctrl-C, which ends the running command.
pub(crate) fn outlive_interrupts() -> nix::Result<()> {
    extern "C" fn nothing(_: i32) {}
    // SAFETY: the handler does nothing. Unlike an ignored signal, a handled one is not inherited by children.
    unsafe { signal(Signal::SIGINT, SigHandler::Handler(nothing)) }.map(drop)
}
