use std::net::SocketAddr;

use proptest::prelude::*;

use super::rule::Target;
use super::*;
use crate::engine::Protocol::{self, Echo, Tcp, Udp};

pub(crate) fn rules(lines: &[&str]) -> Rules {
    let written = |line: &&str| Written { rule: line.parse().unwrap(), origin: Origin::Flag };
    Rules::new(lines.iter().map(written).collect())
}

fn decide(rules: &Rules, protocol: Protocol, destination: &str, names: &[&str]) -> Decision {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let client = SocketAddr::from(([10, 1, 0, 2], 40_000));
    let destination = destination.parse().unwrap();
    rules.decide(&NewFlow { protocol, client, destination, names: &names })
}

/// Whether the rule alone matches.
fn matches(rule: &str, protocol: Protocol, destination: &str, names: &[&str]) -> bool {
    matches!(decide(&rules(&[rule]), protocol, destination, names), Decision::Rule(..))
}

#[test]
fn a_rule_is_shown_as_it_is_read() {
    for (text, shown) in [
        ("allow *", "allow *"),
        ("  Deny\t*  ", "deny *"),
        ("deny 10.0.0.0/8", "deny 10.0.0.0/8"),
        ("deny 10.1.2.3/8", "deny 10.0.0.0/8"),
        ("allow 10.20.0.10", "allow 10.20.0.10"),
        ("allow 10.20.0.10/32:443", "allow 10.20.0.10:443"),
        ("allow TCP:10.20.0.10:443", "allow tcp:10.20.0.10:443"),
        ("allow udp:*:53", "allow udp:*:53"),
        ("allow icmp:fd00::1", "allow icmp:fd00::1"),
        ("allow fd00::/8", "allow fd00::/8"),
        ("allow [fd00::1]", "allow fd00::1"),
        ("allow [fd00::1:2]", "allow [fd00::1:2]"),
        ("allow fd00::1:2/128", "allow [fd00::1:2]"),
        ("allow icmp:fd00::1:2", "allow icmp:fd00::1:2"),
        ("allow fd00:0:0:0:0:0:1:fffe", "allow fd00::1:fffe"),
        ("allow [FD00::1]:443", "allow [fd00::1]:443"),
        ("allow tcp:[fd00::/8]:8000-8100", "allow tcp:[fd00::/8]:8000-8100"),
        ("allow DB.Corp.Example.:5432", "allow db.corp.example:5432"),
        ("deny *.corp.example", "deny *.corp.example"),
        ("deny *.Corp.", "deny *.corp"),
        ("allow _ldap._tcp.corp.example", "allow _ldap._tcp.corp.example"),
        ("allow xn--bcher-kva.example", "allow xn--bcher-kva.example"),
        ("allow tcp:*:1-65535", "allow tcp:*:1-65535"),
        ("allow *:7-7", "allow *:7"),
    ] {
        assert_eq!(text.parse::<Rule>().map(|rule| rule.to_string()).as_deref(), Ok(shown), "{text}");
    }
}

#[test]
fn an_error_names_the_part_and_what_is_expected() {
    let long = format!("allow {}.example", "a".repeat(64));
    for (text, part, expected) in [
        ("10.0.0.0/8", "10.0.0.0/8", "neither allow nor deny"),
        ("", "", "neither allow nor deny"),
        ("permit *", "permit", "neither allow nor deny"),
        ("allow", "", "expected a network"),
        ("allow tcp:", "", "expected a network"),
        ("allow :443", "", "expected a network"),
        ("allow 10.0.0.0/33", "10.0.0.0/33", "prefix length"),
        ("allow 10.0.0", "10.0.0", "is not an address"),
        ("allow 300.0.0.1:5", "300.0.0.1", "is not an address"),
        ("allow tcp:443", "443", "is not an address"),
        ("allow 10.0.0.1:0", "0", "1 to 65535"),
        ("allow 10.0.0.1:65536", "65536", "1 to 65535"),
        ("allow 10.0.0.1:+80", "+80", "1 to 65535"),
        ("allow 10.0.0.1:", "", "1 to 65535"),
        ("allow 10.0.0.1:https", "https", "1 to 65535"),
        ("allow 10.0.0.1:80-", "80-", "1 to 65535"),
        ("allow 10.0.0.1:90-80", "90-80", "the lower port first"),
        ("allow icmp:10.0.0.1:80", "80", "icmp has none"),
        ("allow fd00::/8:443", "fd00::/8:443", "[fd00::1]:443"),
        ("allow [fd00::1:443", "[fd00::1:443", "not closed"),
        ("allow [fd00::1]443", "443", "a colon and a port"),
        ("allow [10.0.0.1]:443", "10.0.0.1", "not an IPv6 address"),
        ("deny fd00::1:443", "fd00::1:443", "write [fd00::1:443] or [fd00::1]:443"),
        ("deny tcp:fd00::1:443", "fd00::1:443", "write [fd00::1:443] or [fd00::1]:443"),
        ("allow sctp:10.0.0.1:80", "sctp", "not a protocol; expected tcp, udp or icmp"),
        ("allow http:db.corp.example", "http", "not a protocol"),
        ("allow https://db.corp.example/", "https://db.corp.example/", "is a URL"),
        ("allow db:80", "db", "write the full name"),
        ("allow fe80::1%eth0", "fe80::1%eth0", "[fd00::1]:443"),
        ("allow db", "db", "write the full name"),
        ("allow db.*.example", "db.*.example", "expected * or *.name"),
        ("allow *db.example", "*db.example", "expected * or *.name"),
        ("allow **", "**", "expected * or *.name"),
        ("allow *.", "", "expected a network"),
        ("allow bücher.example", "bücher.example", "xn--"),
        ("allow a..example", "a..example", "is not a target"),
        ("allow a b", "a b", "is not a target"),
        (long.as_str(), &long[6..], "too long"),
    ] {
        let error = text.parse::<Rule>().unwrap_err();
        assert!(
            error.to_string().starts_with(&format!("in {:?}, {part:?} ", text.trim())),
            "{text}: {error}"
        );
        assert!(error.to_string().contains(expected), "{text}: {error}");
    }
    let said = "allow 10.0.0.1:https".parse::<Rule>().unwrap_err().to_string();
    assert_eq!(
        said,
        "in \"allow 10.0.0.1:https\", \"https\" is not a port; expected a number from 1 to 65535, or a range such \
         as 8000-8100"
    );
}

#[test]
fn a_rule_matches_by_network_port_and_protocol() {
    for (rule, protocol, destination, expected) in [
        ("deny *", Tcp, "10.0.0.1:80", true),
        ("deny *", Echo, "[fd00::1]:0", true),
        ("deny *:443", Tcp, "10.0.0.1:443", true),
        ("deny *:443", Udp, "10.0.0.1:443", true),
        ("deny *:443", Echo, "10.0.0.1:0", false),
        ("deny icmp:*", Echo, "10.0.0.1:0", true),
        ("deny icmp:*", Tcp, "10.0.0.1:0", false),
        ("deny tcp:*", Udp, "10.0.0.1:1", false),
        ("deny 10.0.0.0/8", Tcp, "10.255.255.255:1", true),
        ("deny 10.0.0.0/8", Tcp, "11.0.0.0:1", false),
        ("deny 0.0.0.0/0", Tcp, "[fd00::1]:1", false),
        ("deny 10.0.0.1:80-90", Tcp, "10.0.0.1:79", false),
        ("deny 10.0.0.1:80-90", Tcp, "10.0.0.1:80", true),
        ("deny 10.0.0.1:80-90", Tcp, "10.0.0.1:90", true),
        ("deny 10.0.0.1:80-90", Tcp, "10.0.0.1:91", false),
        ("deny [fd00::1]:443", Tcp, "[fd00::1]:443", true),
        ("deny [fd00::1]:443", Tcp, "[fd00::2]:443", false),
        // What a translator would send to a denied network is denied as well; what is allowed is meant literally.
        ("deny 10.0.0.0/8", Tcp, "[64:ff9b::10.0.0.1]:1", true),
        ("allow 10.0.0.0/8", Tcp, "[64:ff9b::10.0.0.1]:1", false),
    ] {
        assert_eq!(matches(rule, protocol, destination, &[]), expected, "{rule}: {protocol:?} {destination}");
    }
}

#[test]
fn a_rule_with_a_name_matches_what_is_known_to_have_it() {
    for (rule, names, expected) in [
        ("allow db.corp.example", &["db.corp.example"][..], true),
        ("allow db.corp.example", &["DB.corp.example."], true),
        ("allow db.corp.example", &[], false),
        ("allow db.corp.example", &["www.corp.example"], false),
        ("allow db.corp.example", &["www.corp.example", "db.corp.example"], true),
        ("allow db.corp.example", &["a.db.corp.example"], false),
        ("allow *.corp.example", &["db.corp.example"], true),
        ("allow *.corp.example", &["a.DB.Corp.Example."], true),
        ("allow *.corp.example", &["corp.example"], false),
        ("allow *.corp.example", &["xcorp.example"], false),
        ("allow *.corp.example", &[".corp.example"], false),
        ("allow *.corp.example", &["example"], false),
    ] {
        assert_eq!(matches(rule, Tcp, "10.0.0.1:80", names), expected, "{rule}: {names:?}");
    }
}

#[test]
fn the_first_match_decides_and_the_end_depends_on_whether_anything_is_allowed() {
    use Action::{Allow, Deny};
    let first = |action| Decision::Rule(action, RuleId(FIRST_USER));
    let second = |action| Decision::Rule(action, RuleId(FIRST_USER + 1));
    for (lines, expected) in [
        (&[][..], Decision::Unmatched(Allow)),
        (&["deny 10.1.0.0/16"][..], Decision::Unmatched(Allow)),
        (&["allow 10.1.0.0/16"], Decision::Unmatched(Deny)),
        (&["deny 10.1.0.0/16", "allow 10.2.0.0/16"], Decision::Unmatched(Deny)),
        (&["deny 10.0.0.0/8", "allow *"], first(Deny)),
        (&["allow *", "deny 10.0.0.0/8"], first(Allow)),
        (&["deny 10.1.0.0/16", "allow 10.0.0.0/8"], second(Allow)),
        (&["allow 10.1.0.0/16", "deny *"], second(Deny)),
    ] {
        assert_eq!(decide(&rules(lines), Tcp, "10.0.0.1:80", &[]), expected, "{lines:?}");
    }
}

#[test]
fn names_are_collected_without_stars() {
    let rules = rules(&[
        "allow db.corp.example:5432",
        "deny *.Corp.example",
        "allow 10.0.0.1",
        "deny tcp:db.corp.example",
    ]);
    assert_eq!(rules.names(), ["corp.example", "db.corp.example"]);
}

#[test]
fn a_rule_that_can_never_decide_is_reported() {
    for (earlier, later, covered) in [
        ("allow *", "deny 10.0.0.1:80", true),
        ("deny 10.0.0.0/8", "allow 10.1.0.0/16:80", true),
        ("deny 10.1.0.0/16", "allow 10.0.0.0/8", false),
        ("deny tcp:10.0.0.0/8", "allow 10.1.0.0/16:80", false),
        ("deny *:80", "allow udp:10.0.0.1:80", true),
        ("deny *:80", "allow *", false),
        ("deny *:1-65535", "allow *", false),
        ("deny *:80-90", "allow *:85-90", true),
        ("deny *:80-90", "allow *:85-91", false),
        ("deny *.corp.example", "allow db.corp.example", true),
        ("deny *.corp.example", "allow *.eu.corp.example", true),
        ("deny *.corp.example", "allow *.corp.example", true),
        ("deny *.corp.example", "allow corp.example", false),
        ("deny db.corp.example", "allow db.corp.example:80", true),
        ("deny db.corp.example", "allow 10.0.0.1", false),
        ("deny 0.0.0.0/0", "allow db.corp.example", false),
    ] {
        assert_eq!(rules(&[earlier, later]).warnings().len(), usize::from(covered), "{earlier}; {later}");
    }
    let said = rules(&["deny 10.9.0.0/16", "allow 10.0.0.0/8", "deny 10.1.0.0/16"]).warnings();
    assert_eq!(said, ["rule 3 (--deny 10.1.0.0/16) never matches: rule 2 (--allow 10.0.0.0/8) covers it"]);
}

/// Any rule, by its parts.
fn any_rule() -> impl Strategy<Value = Rule> {
    let name = || "([a-z0-9_-]{1,8}\\.){1,3}[a-z]{2,6}";
    let network = prop_oneof![
        (any::<u32>(), 0u8..=32)
            .prop_map(|(bits, length)| (std::net::Ipv4Addr::from_bits(bits).into(), length)),
        (any::<u128>(), 0u8..=128)
            .prop_map(|(bits, length)| (std::net::Ipv6Addr::from_bits(bits).into(), length)),
    ];
    let target = prop_oneof![
        Just(Target::Any),
        network.prop_map(|(address, length): (std::net::IpAddr, u8)| {
            Target::Network(ipnet::IpNet::new(address, length).unwrap().trunc())
        }),
        name().prop_map(Target::Name),
        name().prop_map(Target::Below),
    ];
    let protocol = prop::option::of(prop_oneof![Just(Tcp), Just(Udp), Just(Echo)]);
    let ports = prop::option::of((1u16.., 1u16..)).prop_map(|ports| ports.map(|(a, b)| a.min(b)..=a.max(b)));
    let action = prop_oneof![Just(Action::Allow), Just(Action::Deny)];
    (action, protocol, target, ports).prop_map(|(action, protocol, target, ports)| {
        let ports = ports.filter(|_| protocol != Some(Echo));
        Rule { action, pattern: Pattern { protocol, target, ports } }
    })
}

proptest! {
    #[test]
    fn every_rule_is_read_back_from_its_text(rule in any_rule()) {
        prop_assert_eq!(rule.to_string().parse::<Rule>(), Ok(rule));
    }

    #[test]
    fn no_text_is_a_panic(text in "\\PC*", words in "(allow|deny) (tcp:|icmp:)?[0-9a-f*./:\\[\\]-]{0,24}") {
        let _ = text.parse::<Rule>();
        let _ = text.parse::<Pattern>();
        if let Ok(rule) = words.parse::<Rule>() {
            prop_assert_eq!(rule.to_string().parse::<Rule>(), Ok(rule), "{}", words);
        }
    }

    #[test]
    fn a_covered_rule_matches_nothing_that_the_other_does_not(
        earlier in any_rule(), later in any_rule(), bits in any::<u32>(), port in any::<u16>(),
        protocol in prop_oneof![Just(Tcp), Just(Udp), Just(Echo)],
    ) {
        let destination = SocketAddr::new(std::net::Ipv4Addr::from_bits(bits).into(), port);
        let names = [earlier.pattern.target.name(), later.pattern.target.name()];
        let names: Vec<String> = names.into_iter().flatten().map(|name| format!("a.{name}")).collect();
        let client = SocketAddr::from(([10, 1, 0, 2], 40_000));
        let flow = NewFlow { protocol, client, destination, names: &names };
        let covered = earlier.pattern.covers(&later.pattern);
        prop_assert!(!covered || !later.matches(&flow) || earlier.matches(&flow));
    }
}

#[test]
fn changes_of_a_list_are_what_is_new_what_is_gone_and_whether_the_rest_has_moved() {
    let changes = |before: &[&str], after: &[&str]| {
        let (before, after) = (rules(before), rules(after));
        let (added, removed, reordered) = before.changes(&after);
        let text = |rules: Vec<&Written>| rules.iter().map(|rule| rule.rule.to_string()).collect::<Vec<_>>();
        (text(added).join(","), text(removed).join(","), reordered)
    };
    let expected = |added: &str, removed: &str, reordered| (added.to_owned(), removed.to_owned(), reordered);
    assert_eq!(changes(&["deny *"], &["deny *"]), expected("", "", false));
    assert_eq!(changes(&["deny *"], &["allow 10.0.0.1", "deny *"]), expected("allow 10.0.0.1", "", false));
    assert_eq!(changes(&["allow 10.0.0.1", "deny *"], &["deny *"]), expected("", "allow 10.0.0.1", false));
    assert_eq!(changes(&["allow 10.0.0.1", "deny *"], &["deny *", "allow 10.0.0.1"]), expected("", "", true));
}
