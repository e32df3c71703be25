//! The addresses in a DNS message, wherever a program could take one from. Pure; no input panics.
//!
//! Not a library's parser: that refuses a whole message for one odd record, in which a program may still find its address.
//! And programs disagree on where a name ends: a label may have any bytes (RFC 2181 section 11), but musl's resolver looks
//! for the first one that is no character. So a label can hide a record from one of them, and a message is read both ways.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const A: u16 = 1;
const AAAA: u16 = 28;
const SVCB: u16 = 64;
const HTTPS: u16 = 65;

/// Parameters of SVCB records (RFC 9460 section 14.3.2).
const IPV4_HINT: u16 = 4;
const IPV6_HINT: u16 = 6;

/// The addresses in all records of a message: A, AAAA, and the hints of SVCB and HTTPS. What follows a malformed record is
/// not looked at, because no program finds it either.
pub(super) fn addresses(message: &[u8]) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for names in [Names::ByLength, Names::ByCharacter] {
        let _ = collect(Reader(message), names, &mut found);
    }
    let mut seen = HashSet::new();
    found.retain(|address| seen.insert(*address));
    found
}

/// Whether the answer section has records.
pub(super) fn has_answers(message: &[u8]) -> bool {
    message.get(6..8).is_some_and(|count| count != [0, 0])
}

fn collect(mut message: Reader<'_>, names: Names, found: &mut Vec<IpAddr>) -> Option<()> {
    message.take(4)?;
    let [questions, answers, authorities, additionals] =
        [message.u16()?, message.u16()?, message.u16()?, message.u16()?].map(u32::from);
    for _ in 0..questions {
        message.skip(names)?;
        message.take(4)?;
    }
    for _ in 0..answers + authorities + additionals {
        message.skip(names)?;
        let kind = message.u16()?;
        // Class and TTL.
        message.take(6)?;
        let length = message.u16()?;
        let data = message.take(length.into())?;
        match kind {
            A => found.extend(v4(data)),
            AAAA => found.extend(v6(data)),
            SVCB | HTTPS => {
                let _ = hints(Reader(data), found);
            }
            _ => {}
        }
    }
    Some(())
}

/// The hints in the data of an SVCB record (RFC 9460 section 2.2).
fn hints(mut data: Reader<'_>, found: &mut Vec<IpAddr>) -> Option<()> {
    data.take(2)?;
    data.skip_name()?;
    while !data.0.is_empty() {
        let (key, length) = (data.u16()?, data.u16()?);
        let value = data.take(length.into())?;
        match key {
            IPV4_HINT => found.extend(value.chunks(4).filter_map(v4)),
            IPV6_HINT => found.extend(value.chunks(16).filter_map(v6)),
            _ => {}
        }
    }
    Some(())
}

fn v4(data: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(data).ok().map(|octets| Ipv4Addr::from(octets).into())
}

fn v6(data: &[u8]) -> Option<IpAddr> {
    <[u8; 16]>::try_from(data).ok().map(|octets| Ipv6Addr::from(octets).into())
}

/// How the end of a name is found.
#[derive(Debug, Clone, Copy)]
enum Names {
    /// By the lengths of its labels (RFC 1035 section 3.1).
    ByLength,
    /// By the first byte that is no ASCII character, as in musl's `__dns_parse`.
    ByCharacter,
}

/// The rest of a message.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn skip(&mut self, names: Names) -> Option<()> {
        match names {
            Names::ByLength => self.skip_name(),
            Names::ByCharacter => self.skip_characters(),
        }
    }

    /// The end is a zero, or two bytes that are taken for a pointer.
    fn skip_characters(&mut self) -> Option<()> {
        let end = self.0.iter().position(|byte| !(1..128).contains(byte))?;
        self.take(end + if self.0[end] == 0 { 1 } else { 2 }).map(drop)
    }

    /// A name ends at the root's label, or at a pointer to the rest of it (RFC 1035 section 4.1.4).
    fn skip_name(&mut self) -> Option<()> {
        loop {
            match self.take(1)?[0] {
                0 => return Some(()),
                length @ 1..64 => self.take(length.into())?,
                192.. => return self.take(1).map(drop),
                _ => return None,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::{Message, MessageType, Query as Question};
    use hickory_proto::rr::rdata::{AAAA, TXT};
    use hickory_proto::rr::{Name, RData, Record, RecordType};

    use super::super::tests::samples;
    use super::*;

    fn found(message: &[u8]) -> Vec<String> {
        addresses(message).iter().map(ToString::to_string).collect()
    }

    fn answer(data: Vec<RData>) -> Message {
        let name = Name::from_ascii("www.example.").unwrap();
        let mut message = Message::query();
        message.metadata.message_type = MessageType::Response;
        message.add_query(Question::query(name.clone(), RecordType::ANY));
        for data in data {
            message.add_answer(Record::from_rdata(name.clone(), 60, data));
        }
        message
    }

    #[test]
    fn addresses_are_found_in_each_section_behind_other_records() {
        let query = samples::query("www.example.");
        let mut message = samples::positive(&query, 60);
        let v6 = "fd20:20::10".parse().unwrap();
        let text = RData::TXT(TXT::new(vec!["192.0.2.1".into()]));
        let name = Name::from_ascii("other.example.").unwrap();
        message.add_authority(Record::from_rdata(name.clone(), 60, text));
        message.add_additional(Record::from_rdata(name, 60, RData::AAAA(AAAA(v6))));
        let bytes = message.to_vec().unwrap();
        assert_eq!(found(&bytes), ["10.20.0.10", "fd20:20::10"]);
        assert!(has_answers(&bytes));
        assert!(!has_answers(&samples::nxdomain(&query, 60, 60).to_vec().unwrap()));
    }

    #[test]
    fn hints_of_https_records_are_addresses() {
        // Priority 1, the record's own name, alpn=h2, two addresses of IPv4, one of IPv6.
        let mut data =
            vec![0, 1, 0, 0, 1, 0, 3, 2, b'h', b'2', 0, 4, 0, 8, 203, 0, 113, 1, 10, 20, 0, 10, 0, 6, 0, 16];
        data.extend("fd20:20::10".parse::<Ipv6Addr>().unwrap().octets());
        let https = |data: &[u8]| {
            let mut bytes = answer(vec![]).to_vec().unwrap();
            bytes[7] = 1;
            bytes.extend([0xc0, 12, 0, 65, 0, 1, 0, 0, 0, 60, 0, data.len() as u8]);
            bytes.extend(data);
            bytes
        };
        assert_eq!(found(&https(&data)), ["203.0.113.1", "10.20.0.10", "fd20:20::10"]);
        assert_eq!(
            found(&https(&data[..data.len() - 1])),
            ["203.0.113.1", "10.20.0.10"],
            "what is malformed has none"
        );
    }

    #[test]
    fn what_a_library_can_not_parse_hides_no_address() {
        let mut bytes = answer(vec![]).to_vec().unwrap();
        bytes[7] = 2;
        // An AAAA record of 3 bytes, then an A record.
        bytes.extend([0xc0, 12, 0, 28, 0, 1, 0, 0, 0, 60, 0, 3, 1, 2, 3]);
        bytes.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10, 20, 0, 10]);
        assert!(Message::from_vec(&bytes).is_err());
        assert_eq!(found(&bytes), ["10.20.0.10"]);
    }

    #[test]
    fn a_label_in_which_musl_finds_a_record_hides_no_address() {
        let mut bytes = answer(vec![]).to_vec().unwrap();
        bytes[7] = 1;
        // The owner of a record of another type, whose first label is the end of a name and an A record.
        let hidden = [0, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10, 20, 0, 10];
        bytes.push(hidden.len() as u8);
        bytes.extend(hidden);
        bytes.extend([0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 60, 0, 2, 1, b'x']);
        assert_eq!(found(&bytes), ["10.20.0.10"]);
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics(bytes: Vec<u8>) {
            addresses(&bytes);
            has_answers(&bytes);
        }
    }
}
