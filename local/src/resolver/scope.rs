//! Which names the codespace may ask for. The sidecar sends no others, but a program can ask the gateway by itself.

use gh_net_common::frame::{Dns, DnsMode};
use hickory_proto::rr::Name;

/// The names that are answered.
#[derive(Debug, Clone, Default)]
pub(super) enum Scope {
    /// All.
    #[default]
    All,
    /// Those of more than one label, and those of these domains.
    Split(Vec<Name>),
    /// Those of these domains.
    Strict(Vec<Name>),
}

impl Scope {
    /// The names that these settings send to the laptop.
    pub(super) fn of(dns: &Dns) -> Self {
        let domains =
            || dns.domains.iter().filter_map(|name| Name::from_ascii(format!("{name}.")).ok()).collect();
        match dns.mode {
            // Off is refused before: the resolver gets no question.
            DnsMode::Off | DnsMode::Local => Self::All,
            DnsMode::Split => Self::Split(domains()),
            DnsMode::SplitStrict => Self::Strict(domains()),
        }
    }

    /// Whether this name is answered.
    pub(super) fn contains(&self, name: &Name) -> bool {
        let in_one = |domains: &[Name]| domains.iter().any(|domain| domain.zone_of(name));
        match self {
            Self::All => true,
            Self::Split(domains) => name.num_labels() != 1 || in_one(domains),
            Self::Strict(domains) => in_one(domains),
        }
    }
}

#[cfg(test)]
mod tests {
    use gh_net_common::frame::Rebind;

    use super::*;

    #[test]
    fn the_mode_says_which_names_are_answered() {
        let dns = |mode| Dns {
            mode,
            search: vec![],
            domains: vec!["corp.internal".to_owned(), "20.10.in-addr.arpa".to_owned(), "intranet".to_owned()],
            rebind: Rebind::Refuse,
        };
        let answered = |mode, name: &str| Scope::of(&dns(mode)).contains(&Name::from_ascii(name).unwrap());
        for (name, split, strict) in [
            ("www.Corp.Internal.", true, true),
            ("10.0.20.10.in-addr.arpa.", true, true),
            ("intranet.", true, true),
            ("db.", false, false),
            ("wiki.partner.example.", true, false),
            ("xcorp.internal.", true, false),
        ] {
            assert_eq!(answered(DnsMode::Split, name), split, "{name}");
            assert_eq!(answered(DnsMode::SplitStrict, name), strict, "{name}");
            assert!(answered(DnsMode::Local, name), "{name}");
        }
    }
}
