//! Who is asked for a name. Pure.

use std::collections::HashSet;

use gh_net_common::frame::{DnsMode, is_domain};

/// One end of the tunnel, with the resolvers it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// The codespace's own resolvers.
    Codespace,
    /// The laptop's resolver, over the tunnel.
    Laptop,
}

/// Who is asked for a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    /// The laptop, and nobody in its place.
    LaptopOnly,
    /// These sides, in this order, each only if all before it had no answer.
    InTurn(&'static [Side]),
}

/// Who is asked for `name`. Names of the laptop's domains go only to the laptop, in each mode: elsewhere they would
/// leak, and a negative answer from there would be wrong. In split modes a name of one label goes to the codespace only:
/// it is one of its containers, such as `db`, and none of the laptop's business.
pub(super) fn choose(mode: DnsMode, domains: &Domains, name: &[u8]) -> Choice {
    match mode {
        DnsMode::Off => Choice::InTurn(&[Side::Codespace]),
        DnsMode::Split | DnsMode::SplitStrict | DnsMode::Local if domains.contain(name) => Choice::LaptopOnly,
        DnsMode::SplitStrict => Choice::InTurn(&[Side::Codespace]),
        DnsMode::Split if is_single_label(name) => Choice::InTurn(&[Side::Codespace]),
        DnsMode::Split => Choice::InTurn(&[Side::Codespace, Side::Laptop]),
        DnsMode::Local => Choice::InTurn(&[Side::Laptop, Side::Codespace]),
    }
}

/// Whether `name` has one label only.
pub(super) fn is_single_label(name: &[u8]) -> bool {
    name.split_first().is_some_and(|(length, rest)| usize::from(*length) == rest.len())
}

/// A set of domains, each with all names below it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Domains(HashSet<Box<[u8]>>);

impl Domains {
    /// The set of `names`, written with dots. What is not a domain name is left out.
    pub(super) fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let names = names.into_iter().map(|name| name.trim_matches('.')).filter(|name| is_domain(name));
        Self(names.map(wire).collect())
    }

    /// Whether `name`, in lower case and wire format, is one of the domains or below one.
    pub(super) fn contain(&self, name: &[u8]) -> bool {
        if self.0.is_empty() {
            return false;
        }
        let mut rest = name;
        while let [length, after @ ..] = rest {
            if self.0.contains(rest) {
                return true;
            }
            rest = after.get(usize::from(*length)..).unwrap_or_default();
        }
        false
    }
}

/// A domain's labels in wire format, without the root's. [`is_domain`] has bounded each by 63.
fn wire(name: &str) -> Box<[u8]> {
    let mut wire = Vec::with_capacity(name.len() + 1);
    for label in name.split('.') {
        wire.push(label.len() as u8);
        wire.extend(label.bytes().map(|byte| byte.to_ascii_lowercase()));
    }
    wire.into()
}

#[cfg(test)]
mod tests {
    use Choice::{InTurn, LaptopOnly};
    use DnsMode::{Local, Off, Split, SplitStrict};
    use Side::{Codespace, Laptop};

    use super::*;

    fn chosen(mode: DnsMode, name: &str) -> Choice {
        let domains = Domains::new(["Corp.Example", "20.10.in-addr.arpa", ".lan.", "", "b\u{e4}d"]);
        choose(mode, &domains, &wire(name))
    }

    #[test]
    fn the_laptops_domains_go_to_the_laptop_alone() {
        for name in ["corp.example", "www.corp.example", "a.b.lan", "7.0.20.10.in-addr.arpa"] {
            for mode in [Split, SplitStrict, Local] {
                assert_eq!(chosen(mode, name), LaptopOnly, "{name}");
            }
        }
    }

    #[test]
    fn a_domain_ends_at_a_label() {
        for name in ["notcorp.example", "example", "corp.example.com", "1.10.in-addr.arpa", "lan4"] {
            assert_eq!(
                chosen(Split, name),
                InTurn(if name.contains('.') { &[Codespace, Laptop] } else { &[Codespace] }),
                "{name}"
            );
        }
    }

    #[test]
    fn the_mode_says_who_is_first() {
        assert_eq!(chosen(Split, "github.com"), InTurn(&[Codespace, Laptop]));
        assert_eq!(chosen(SplitStrict, "github.com"), InTurn(&[Codespace]));
        assert_eq!(chosen(Local, "github.com"), InTurn(&[Laptop, Codespace]));
        assert_eq!(chosen(Off, "www.corp.example"), InTurn(&[Codespace]));
    }

    #[test]
    fn names_of_one_label_are_the_codespaces_unless_they_are_a_domain_of_the_laptop() {
        assert_eq!(chosen(Split, "db"), InTurn(&[Codespace]));
        assert_eq!(chosen(SplitStrict, "db"), InTurn(&[Codespace]));
        assert_eq!(chosen(Local, "db"), InTurn(&[Laptop, Codespace]));
        assert_eq!(chosen(Split, "lan"), LaptopOnly);
    }

    #[test]
    fn the_root_belongs_to_no_domain() {
        assert_eq!(choose(Split, &Domains::new(["lan"]), b""), InTurn(&[Codespace, Laptop]));
        assert_eq!(choose(Split, &Domains::new([]), &wire("a.lan")), InTurn(&[Codespace, Laptop]));
    }
}
