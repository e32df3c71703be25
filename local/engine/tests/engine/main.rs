//! The engine by its public interface: what a peer in the codespace and a driver on the laptop notice.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]
#![allow(clippy::disallowed_methods, reason = "the driver of the engine has a clock")]

mod bounds;
mod datagrams;
mod events;
mod flood;
mod fragments;
mod harness;
mod holding;
mod link;
mod names;
mod policy;
mod refusals;
mod replaced;
mod schedule;
mod tcp;
