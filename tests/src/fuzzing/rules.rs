//! The text of rules, from flags, the environment and a file.

use std::net::SocketAddr;

use gh_net::engine::NewFlow;
use gh_net::policy::{Origin, Protocol, Rule, Rules, Written};

/// Rules, one a line. A rule is shown as it would be written: what is shown is read as the same rule. The list decides
/// about any flow.
pub fn rules(data: &[u8]) {
    let mut list = Vec::new();
    for line in String::from_utf8_lossy(data).lines() {
        let rule = match line.parse::<Rule>() {
            Ok(rule) => rule,
            Err(error) => {
                assert!(!error.to_string().chars().any(|c| c.is_control()), "{error}");
                continue;
            }
        };
        let shown = rule.to_string();
        assert_eq!(shown.parse().as_ref(), Ok(&rule), "{line:?} is shown as {shown:?}");
        assert!(rule.pattern.covers(&rule.pattern), "{shown} does not cover itself");
        list.push(Written { rule, origin: Origin::Flag });
    }
    let rules = Rules::new(list);
    rules.warnings();
    for name in rules.names() {
        for address in ["10.20.0.10:443", "[fd00:20::10]:443", "[64:ff9b::a14:a]:0"] {
            let destination: SocketAddr = address.parse().expect("an address");
            for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Echo] {
                let client = destination;
                rules.decide(&NewFlow { protocol, client, destination, names: std::slice::from_ref(&name) });
            }
        }
    }
}
