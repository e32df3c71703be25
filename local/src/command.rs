//! The commands that deal with running sessions: they talk to the processes that run them.

mod output;
pub mod reload;
pub mod rules;
pub mod status;
pub mod stop;
mod watch;
