//! The laptop's own name in the codespace, and its domain: answered without asking anyone.

use std::net::IpAddr;

use hickory_proto::op::Query;
use hickory_proto::rr::Name;

use super::message::Reply;
use super::nss::{Found, select};
use super::source::Source;
use crate::policy::{HOST_DOMAIN, HOST_NAME};

/// The answer, if the question is about the domain. `gateways` are the laptop's addresses in the tunnel.
pub(super) fn answer(question: &Query, gateways: &[IpAddr]) -> Option<Reply> {
    let domain = Name::from_ascii(format!("{HOST_DOMAIN}.")).ok()?;
    let host = Name::from_ascii(format!("{HOST_NAME}.")).ok()?;
    let name = question.name();
    if !domain.zone_of(name) {
        return None;
    }
    let found = if *name == host && question.query_type().is_ip_addr() {
        select(gateways.iter().copied(), question.query_type())
    } else if *name == host || *name == domain {
        Found::NoData
    } else {
        Found::NoName
    };
    Some(found.into_reply(question, Source::Ourselves))
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::ResponseCode;
    use hickory_proto::rr::RecordType;

    use super::*;

    #[test]
    fn the_laptops_name_has_its_addresses_and_the_rest_of_the_domain_does_not_exist() {
        let gateways: Vec<IpAddr> = ["198.19.240.2", "fd00::2"].map(|text| text.parse().unwrap()).to_vec();
        let asked = |name: &str, kind| {
            let reply = answer(&Query::query(Name::from_ascii(name).unwrap(), kind), &gateways)?;
            let records: Vec<String> = reply.answers.iter().map(|record| record.data.to_string()).collect();
            Some((reply.code, records.join(" ")))
        };
        let found = |records: &str| Some((ResponseCode::NoError, records.to_owned()));
        assert_eq!(asked("host.gh-net.internal.", RecordType::A), found("198.19.240.2"));
        assert_eq!(asked("HOST.gh-net.Internal.", RecordType::AAAA), found("fd00::2"));
        assert_eq!(asked("host.gh-net.internal.", RecordType::MX), found(""));
        assert_eq!(asked("gh-net.internal.", RecordType::A), found(""));
        let none = Some((ResponseCode::NXDomain, String::new()));
        assert_eq!(asked("other.gh-net.internal.", RecordType::A), none);
        assert_eq!(asked("xgh-net.internal.", RecordType::A), None);
        assert_eq!(asked("www.corp.internal.", RecordType::A), None);
    }
}
