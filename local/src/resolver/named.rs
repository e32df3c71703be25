//! The names by which an answer leads to addresses. Pure.

use std::net::IpAddr;
use std::time::Duration;

use gh_net_common::frame::is_domain;
use hickory_proto::op::{Query, ResponseCode};
use hickory_proto::rr::{Name, RData};

use super::message::Reply;

/// Maximum number of aliases that are followed. Resolvers follow 8 to 16.
const MAX_ALIASES: usize = 16;

/// Maximum number of addresses of one answer. Whoever has a zone of his own must not fill the table of names with it.
const MAX_ADDRESSES: usize = 32;

/// Addresses, and the names that lead to them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Named {
    /// The name that was asked for, then its aliases, in lower case without trailing dots.
    pub names: Vec<String>,
    /// The addresses, each with the time for which the answer may be used.
    pub addresses: Vec<(IpAddr, Duration)>,
}

impl Named {
    /// What `reply` says about the question. Records of other names are left out: they are no part of the answer.
    pub(super) fn of(question: &Query, reply: &Reply) -> Option<Self> {
        if reply.code != ResponseCode::NoError || !question.query_type().is_ip_addr() {
            return None;
        }
        let mut owner = question.name();
        let mut ttl = u32::MAX;
        let mut names: Vec<String> = plain(owner).into_iter().collect();
        for _ in 0..MAX_ALIASES {
            let alias = reply.answers.iter().filter(|record| record.name == *owner).find_map(|record| {
                if let RData::CNAME(target) = &record.data { Some((&target.0, record.ttl)) } else { None }
            });
            let Some((target, alias_ttl)) = alias else { break };
            (owner, ttl) = (target, ttl.min(alias_ttl));
            names.extend(plain(owner).filter(|name| !names.contains(name)));
        }
        let addresses = reply.answers.iter().filter(|record| record.name == *owner).filter_map(|record| {
            let address = address(&record.data)?;
            Some((address, Duration::from_secs(ttl.min(record.ttl).into())))
        });
        let addresses: Vec<_> = addresses.take(MAX_ADDRESSES).collect();
        (!addresses.is_empty()).then_some(Self { names, addresses })
    }
}

/// The address in a record.
fn address(data: &RData) -> Option<IpAddr> {
    if let RData::A(address) = data {
        Some(IpAddr::V4(address.0))
    } else if let RData::AAAA(address) = data {
        Some(IpAddr::V6(address.0))
    } else {
        None
    }
}

/// A name as people and rules write it; `None` if it is none that a program would connect to.
fn plain(name: &Name) -> Option<String> {
    let name = name.to_ascii().trim_end_matches('.').to_ascii_lowercase();
    is_domain(&name).then_some(name)
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::rdata::{A, CNAME};
    use hickory_proto::rr::{Record, RecordType};

    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn alias(from: &str, to: &str, ttl: u32) -> Record {
        Record::from_rdata(name(from), ttl, RData::CNAME(CNAME(name(to))))
    }

    fn address(owner: &str, address: [u8; 4], ttl: u32) -> Record {
        Record::from_rdata(name(owner), ttl, RData::A(A(address.into())))
    }

    fn named(answers: Vec<Record>) -> Option<Named> {
        let question = Query::query(name("WWW.Corp.example."), RecordType::A);
        Named::of(&question, &Reply { answers, ..Reply::of(ResponseCode::NoError) })
    }

    #[test]
    fn the_question_and_its_aliases_name_the_addresses() {
        let Named { names, addresses } = named(vec![
            alias("pool.corp.example.", "a.cdn.example.", 30),
            alias("www.corp.EXAMPLE.", "pool.corp.example.", 600),
            address("a.cdn.example.", [10, 0, 0, 1], 300),
            address("a.cdn.example.", [10, 0, 0, 2], 20),
        ])
        .unwrap();
        assert_eq!(names, ["www.corp.example", "pool.corp.example", "a.cdn.example"]);
        let seconds = |(address, ttl): &(IpAddr, Duration)| (address.to_string(), ttl.as_secs());
        let addresses: Vec<_> = addresses.iter().map(seconds).collect();
        assert_eq!(addresses, [("10.0.0.1".into(), 30), ("10.0.0.2".into(), 20)]);
    }

    #[test]
    fn records_that_do_not_belong_to_the_question_name_nothing() {
        let beside = vec![
            address("db.corp.example.", [10, 0, 0, 9], 300),
            alias("other.example.", "www.corp.example.", 300),
        ];
        assert_eq!(named(beside), None);
        let own =
            vec![address("www.corp.example.", [10, 0, 0, 1], 5), address("db.example.", [10, 0, 0, 9], 5)];
        assert_eq!(named(own).unwrap().addresses.len(), 1);
        let circle =
            vec![alias("www.corp.example.", "b.example.", 5), alias("b.example.", "www.corp.example.", 5)];
        assert_eq!(named(circle), None);
    }

    #[test]
    fn names_that_are_no_host_names_are_left_out() {
        let odd = vec![alias("www.corp.example.", "*.example.", 5), address("*.example.", [10, 0, 0, 1], 5)];
        assert_eq!(named(odd).unwrap().names, ["www.corp.example"]);
    }
}
