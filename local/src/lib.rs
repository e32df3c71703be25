//! gh-net, the laptop's side of the bridge, as a library for its binary and for the tests.
//!
//! The [`engine`] is the pure core; [`io`] alone drives it. ARCHITECTURE.md has the map.

pub mod audit;
pub mod cli;
pub mod codespaces;
pub mod command;
pub mod config;
pub mod exit;
pub mod instance;
pub mod invoked;
pub mod io;
pub mod judgement;
mod limit;
pub mod netwatch;
pub mod policy;
mod random;
pub mod request;
pub mod resolver;
pub mod session;
pub mod status;
mod sys;
pub mod transport;

pub use gh_net_engine as engine;
