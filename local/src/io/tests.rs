//! The io with its engine, between a codespace made of smoltcp and real servers on the loopback interface.

mod codespace;
mod datagrams;
mod links;
mod network;
mod streams;

/// Says that a test needs what this user is not given. Where everything should be there, that is a failure.
fn skip(test: &str, why: &str) {
    assert!(std::env::var_os("CI").is_none(), "{test}: {why}");
    eprintln!("SKIPPED {test}: {why}");
}
