//! Shared by gh-net's tests: the lab, the simulation, the fuzz targets, the generated documents.

#![forbid(unsafe_code)]

pub mod docs;
pub mod fuzzing;
pub mod sim;

pub use gh_net_lab as lab;
pub use gh_net_lab::{executable, in_ci, release, root};
