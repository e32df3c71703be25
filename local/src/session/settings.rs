//! Converts the configuration to settings of the policy and of the sidecar. Pure.

use gh_net_common::frame::{Dns, DnsMode, MAX_PREFIXES, is_domain};
use ipnet::IpNet;

use crate::config::Config;
use crate::policy::Choice;
use crate::resolver::zones;

/// Which networks the user chose to forward.
pub(super) fn choice(config: &Config) -> Choice {
    Choice { routes: config.routes.clone(), excludes: config.exclude.clone() }
}

/// The DNS settings of the sidecar. The laptop answers for its search domains and for the reverse zones of the
/// networks it forwards.
pub(super) fn dns(mode: DnsMode, routes: &[IpNet], search: &[String]) -> Dns {
    let search: Vec<String> = search.iter().filter(|name| is_domain(name)).cloned().collect();
    let mut domains = search.clone();
    domains.extend(zones::reverse_zones(routes));
    domains.truncate(MAX_PREFIXES);
    Dns { mode, search, domains }
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
