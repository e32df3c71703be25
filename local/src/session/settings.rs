//! From the configuration and the laptop's networks to what the sidecar is told. Pure.

use gh_net_common::frame::{Dns, DnsMode, Frame, MAX_PREFIXES, Routes, is_domain};
use ipnet::IpNet;

use crate::config::Config;
use crate::netwatch::Snapshot;
use crate::policy::{Choice, Codespace, Policy};
use crate::resolver::{Resolver, zones};

/// Names listed in the log line at most.
const LISTED: usize = 8;

/// What the user chose to forward.
pub(super) fn choice(config: &Config) -> Choice {
    Choice { routes: config.routes.clone(), excludes: config.exclude.clone() }
}

/// Prefixes the tunnel's own addresses must stay clear of.
pub(super) fn avoid(config: &Config, snapshot: &Snapshot) -> Vec<IpNet> {
    let policy = Policy::new(&choice(config), snapshot, &Codespace::default());
    policy.tunnel_avoid().iter().take(MAX_PREFIXES).copied().collect()
}

/// The frames that set a new link up: all routes, and how names are resolved.
pub(super) fn frames(config: &Config, policy: &Policy, resolver: &Resolver) -> Vec<Frame> {
    let mut frames: Vec<Frame> = Routes::full(policy.routes()).collect();
    if config.dns != DnsMode::Off {
        frames.push(Frame::Dns(dns(config.dns, policy.routes(), &resolver.search())));
    }
    frames
}

/// Search domains of the laptop are the laptop's to answer, and so are the reverse zones of what it
/// forwards.
fn dns(mode: DnsMode, routes: &[IpNet], search: &[String]) -> Dns {
    let search: Vec<String> = search.iter().filter(|name| is_domain(name)).cloned().collect();
    let mut domains = search.clone();
    domains.extend(zones::reverse_zones(routes));
    domains.truncate(MAX_PREFIXES);
    Dns { mode, search, domains }
}

/// Networks for a log line.
pub(super) fn listed(routes: &[IpNet]) -> String {
    if routes.is_empty() {
        return "no network of the laptop".to_owned();
    }
    let mut text: Vec<String> = routes.iter().take(LISTED).map(ToString::to_string).collect();
    if routes.len() > LISTED {
        text.push(format!("and {} more", routes.len() - LISTED));
    }
    text.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_are_the_search_domains_and_the_reverse_zones() {
        let routes = ["10.20.0.0/16".parse().unwrap()];
        let dns = dns(DnsMode::Split, &routes, &["corp.internal".into(), "not a domain".into()]);
        assert_eq!(dns.search, ["corp.internal"]);
        assert_eq!(dns.domains, ["corp.internal", "20.10.in-addr.arpa"]);
    }
}
