//! What the tests of gh-net share: the lab, the simulation, the targets of fuzzing, the generated documents.

pub mod docs;
pub mod fuzzing;
pub mod sim;

pub use gh_net_lab as lab;
pub use gh_net_lab::{executable, in_ci, release, root};
