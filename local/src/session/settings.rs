//! Converts the configuration to settings of the policy and of the sidecar. Pure.

use gh_net_common::frame::{Dns, DnsMode, MAX_PREFIXES, Rebind, is_domain};
use ipnet::IpNet;

use crate::config::Config;
use crate::policy::{Choice, HOST_DOMAIN, Rules};
use crate::resolver::{search, zones};

/// Which networks the user chose to forward.
pub fn choice(config: &Config) -> Choice {
    Choice {
        routes: config.routes.clone(),
        excludes: config.exclude.clone(),
        rules: config.rules.clone(),
        host_ports: config.host_ports.clone(),
    }
}

/// The DNS settings of the sidecar. The laptop answers for its search domains, for the names in the user's rules, for
/// the laptop's own name, and for the reverse zones of the networks it forwards.
pub(super) fn dns(mode: DnsMode, rebind: Rebind, routes: &[IpNet], search: &[String], rules: &Rules) -> Dns {
    let believed = |name: &&String| is_domain(name) && search::is_plausible(name);
    let search: Vec<String> = search.iter().filter(believed).cloned().collect();
    let mut domains = search.clone();
    domains.extend(rules.names().into_iter().filter(|name| !search.contains(name)));
    domains.push(HOST_DOMAIN.to_owned());
    domains.extend(zones::reverse_zones(routes));
    domains.truncate(MAX_PREFIXES);
    Dns { mode, search, domains, rebind }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Origin, Written};

    #[test]
    fn domains_are_the_search_domains_the_names_in_rules_and_the_reverse_zones() {
        let routes = ["10.20.0.0/16".parse().unwrap()];
        let search = ["corp.internal".into(), "not a domain".into()];
        let written = |rule: &str| Written { rule: rule.parse().unwrap(), origin: Origin::Flag };
        let rules = ["allow db.example:5432", "deny *.corp.internal", "allow 10.0.0.1"].map(written);
        let dns = dns(DnsMode::Split, Rebind::Refuse, &routes, &search, &Rules::new(rules.to_vec()));
        assert_eq!(dns.search, ["corp.internal"]);
        assert_eq!(dns.domains, ["corp.internal", "db.example", HOST_DOMAIN, "20.10.in-addr.arpa"]);
    }
}
