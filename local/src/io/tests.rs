//! The io with its engine, between a codespace made of smoltcp and real servers on the loopback interface.

mod codespace;
mod datagrams;
mod links;
mod network;
mod streams;

use crate::engine::{Config, Engine, Resources};
use crate::policy::Policy;

/// An engine that forwards everything, loopback included.
pub(super) fn engine() -> Engine {
    Engine::new(Config {
        gateways: vec![codespace::GATEWAY.into()],
        dns: true,
        mtu: codespace::MTU,
        policy: Box::new(Policy::everything()),
        secret: 42,
        resources: Resources::default(),
    })
}

/// Reports that a test is skipped for lack of privilege. In CI, that is a failure.
fn skip(test: &str, why: &str) {
    assert!(std::env::var_os("CI").is_none(), "{test}: {why}");
    eprintln!("SKIPPED {test}: {why}");
}
