//! The engine by its public face: what a peer in the codespace and an io on the laptop notice.

pub(crate) mod harness;

mod bounds;
mod datagrams;
mod fragments;
mod refusals;
mod schedule;
