//! TCP as packet scripts, after the states of RFC 9293.

mod closing;
mod opening;
mod resets;
mod time;
mod transfer;
