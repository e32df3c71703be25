//! Transports against a real sshd, and against a fake `gh` with the output of the real one.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

mod codespaces;
mod killed;
mod program;
mod sidecar;
mod ssh;
mod sshd;
mod terminal;
