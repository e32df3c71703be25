//! /etc/hosts (hosts(5)).

use std::collections::HashMap;
use std::net::IpAddr;

use hickory_proto::op::Query;
use hickory_proto::rr::{Name, RecordType};

use super::nss::{Found, address_of, is_meaningful, plain_name, select};

/// The contents of /etc/hosts.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Hosts {
    addresses: HashMap<String, Vec<IpAddr>>,
    names: HashMap<IpAddr, Name>,
}

impl Hosts {
    /// Parses the file. Malformed lines are skipped, as the C library does.
    pub(super) fn parse(text: &str) -> Self {
        let mut hosts = Self::default();
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default();
            let mut words = line.split_whitespace();
            let Some(address) = words.next().and_then(|word| word.parse::<IpAddr>().ok()) else { continue };
            let address = address.to_canonical();
            for (index, name) in words.enumerate() {
                let name = name.trim_end_matches('.').to_ascii_lowercase();
                // The first name is the canonical one; of several lines the first one wins.
                if index == 0
                    && let Ok(name) = Name::from_ascii(format!("{name}."))
                {
                    hosts.names.entry(address).or_insert(name);
                }
                hosts.addresses.entry(name).or_default().push(address);
            }
        }
        hosts
    }

    /// The file's answer, if it has the name. A name with addresses of the other family only has no data.
    pub(super) fn answer(&self, question: &Query) -> Option<Found> {
        let kind = question.query_type();
        if kind == RecordType::PTR {
            let name = self.names.get(&address_of(question.name())?)?;
            return Some(Found::name(name.clone()));
        }
        if !kind.is_ip_addr() {
            return None;
        }
        let name = plain_name(question.name())?;
        // The laptop's own name is often 127.0.1.1 here, which in the codespace is the codespace itself.
        let addresses = self.addresses.get(&name)?.iter().copied();
        let mut useful = addresses.filter(|&address| is_meaningful(address, &name)).peekable();
        useful.peek()?;
        Some(select(useful, kind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
127.0.0.1 localhost # and a comment
127.0.1.1\tmylaptop.lan mylaptop
::1 localhost ip6-localhost
10.1.2.3 Wiki.Corp.example wiki
10.1.2.4 wiki.corp.example
not-an-address name
fd00::5 six.corp.example
10.9.9.9
";

    fn answer(name: &str, kind: RecordType) -> Option<Found> {
        Hosts::parse(TEXT).answer(&Query::query(Name::from_ascii(name).unwrap(), kind))
    }

    fn texts(found: Option<Found>) -> Vec<String> {
        match found {
            Some(Found::Records(records)) => records.iter().map(ToString::to_string).collect(),
            other @ (Some(Found::NoData | Found::NoName) | None) => panic!("{other:?}"),
        }
    }

    #[test]
    fn addresses_in_the_order_of_the_file() {
        assert_eq!(texts(answer("WIKI.corp.example.", RecordType::A)), ["10.1.2.3", "10.1.2.4"]);
        assert_eq!(texts(answer("wiki.", RecordType::A)), ["10.1.2.3"]);
        assert_eq!(texts(answer("six.corp.example.", RecordType::AAAA)), ["fd00::5"]);
        assert_eq!(answer("other.corp.example.", RecordType::A), None);
    }

    #[test]
    fn a_name_with_one_family_has_no_data_for_the_other() {
        assert_eq!(answer("wiki.corp.example.", RecordType::AAAA), Some(Found::NoData));
        assert_eq!(answer("six.corp.example.", RecordType::A), Some(Found::NoData));
        assert_eq!(answer("wiki.corp.example.", RecordType::TXT), None);
    }

    #[test]
    fn the_laptops_own_name_does_not_resolve_to_loopback() {
        assert_eq!(answer("mylaptop.", RecordType::A), None);
        assert_eq!(texts(answer("localhost.", RecordType::A)), ["127.0.0.1"]);
    }

    #[test]
    fn reverse_names_are_the_canonical_ones() {
        assert_eq!(texts(answer("3.2.1.10.in-addr.arpa.", RecordType::PTR)), ["wiki.corp.example."]);
        assert_eq!(answer("9.9.9.10.in-addr.arpa.", RecordType::PTR), None);
    }
}
