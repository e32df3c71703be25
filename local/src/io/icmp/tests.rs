use super::*;

/// Says that a test needs what this machine does not give; where everything should be there, fails.
pub(in crate::io) fn skip(test: &str) {
    assert!(std::env::var_os("CI").is_none(), "{test}: this user may not open ping sockets");
    eprintln!("SKIPPED {test}: this user may not open ping sockets");
}
