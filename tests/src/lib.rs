//! What the tests, the demo and the benchmarks of gh-net are made of.

pub mod docs;
pub mod executable;
pub mod fuzzing;
pub mod lab;
pub mod release;
pub mod sim;
