use std::net::IpAddr;

use bytes::BytesMut;
use ipnet::IpNet;
use proptest::prelude::*;

use super::codec::{DNS, PACKET, PING, WANT_LANE, header};
use super::*;

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![any::<[u8; 4]>().prop_map(IpAddr::from), any::<[u8; 16]>().prop_map(IpAddr::from)]
}

fn prefix() -> impl Strategy<Value = IpNet> {
    (address(), any::<u8>()).prop_map(|(address, length)| {
        let most = if address.is_ipv4() { 32 } else { 128 };
        IpNet::new(address, length % (most + 1)).unwrap()
    })
}

fn prefixes() -> impl Strategy<Value = Vec<IpNet>> {
    prop::collection::vec(prefix(), 0..5)
}

fn name() -> impl Strategy<Value = String> {
    "[a-z0-9_-]{1,20}(\\.[a-z0-9]{1,10}){0,3}"
}

fn names() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(name(), 0..5)
}

fn token() -> impl Strategy<Value = Token> {
    any::<[u8; 32]>().prop_map(Token)
}

fn session() -> impl Strategy<Value = [u8; 16]> {
    any::<[u8; 16]>().prop_filter("zero means none", |id| *id != [0; 16])
}

fn open() -> impl Strategy<Value = Frame> {
    let families = any::<(bool, bool)>().prop_map(|(v4, v6)| Families { v4, v6 });
    let resume = prop::option::of((session(), token()));
    let sources =
        (any::<bool>(), prefixes()).prop_map(|(containers, networks)| Sources { containers, networks });
    (
        resume,
        any::<(u32, u8)>(),
        any::<u16>(),
        families,
        (any::<u32>(), sources),
        ".{0,20}",
        ".{0,20}",
        prefixes(),
        prefixes(),
    )
        .prop_map(
            |(resume, (link, lane), mtu, families, (grace, from), user, host, preferred, avoid)| {
                Frame::Open(Open {
                    resume,
                    link,
                    lane,
                    mtu,
                    families,
                    grace,
                    from,
                    user,
                    host,
                    preferred,
                    avoid,
                })
            },
        )
}

fn opened() -> impl Strategy<Value = Frame> {
    let tunnel = (prefix(), address()).prop_map(|(sidecar, gateway)| TunnelAddress { sidecar, gateway });
    let addresses = prop::collection::vec(tunnel, 0..3);
    let resolvers = prop::collection::vec(address(), 0..4);
    (session(), token(), any::<bool>(), any::<u16>(), addresses, ".{0,15}", prefixes(), resolvers).prop_map(
        |(session, token, resumed, mtu, addresses, device, networks, resolvers)| {
            Frame::Opened(Opened { session, token, resumed, mtu, addresses, device, networks, resolvers })
        },
    )
}

fn mode() -> impl Strategy<Value = DnsMode> {
    prop_oneof![Just(DnsMode::Off), Just(DnsMode::Split), Just(DnsMode::SplitStrict), Just(DnsMode::Local)]
}

fn rebind() -> impl Strategy<Value = Rebind> {
    prop_oneof![Just(Rebind::Allow), Just(Rebind::Refuse)]
}

fn routes() -> impl Strategy<Value = Routes> {
    prop_oneof![
        (prefixes(), prefixes()).prop_map(|(add, remove)| Routes::Change { add, remove }),
        prefixes().prop_map(Routes::Part),
        prefixes().prop_map(Routes::Last),
    ]
}

fn status() -> impl Strategy<Value = SidecarStatus> {
    (any::<u64>(), mode(), any::<bool>(), any::<u32>(), any::<[u64; 8]>()).prop_map(
        |(uptime, dns, resolver_hook, routes, [a, b, c, d, e, f, g, h])| SidecarStatus {
            uptime,
            dns,
            resolver_hook,
            routes,
            counters: SidecarCounters {
                uplink_packets: a,
                uplink_bytes: b,
                downlink_packets: c,
                downlink_bytes: d,
                downlink_malformed: e,
                downlink_refused: f,
                rebind_refused: g,
                uplink_dropped: h,
            },
        },
    )
}

fn frame() -> impl Strategy<Value = Frame> {
    let level = prop_oneof![Just(Level::Info), Just(Level::Warning), Just(Level::Error)];
    let reason = (0u8..11).prop_map(Reason::from_wire);
    prop_oneof![
        (any::<u16>(), any::<u16>(), any::<u32>(), ".{0,40}").prop_map(
            |(lowest, highest, capabilities, software)| Frame::Hello(Hello {
                lowest,
                highest,
                capabilities,
                software
            })
        ),
        open(),
        opened(),
        prop::collection::vec(any::<u8>(), 0..3000).prop_map(|bytes| Frame::Packet(bytes.into())),
        any::<(u64, u64)>().prop_map(|(total, micros)| Frame::Delivered { total, micros }),
        any::<u64>().prop_map(Frame::Ping),
        any::<u64>().prop_map(Frame::Pong),
        routes().prop_map(Frame::Routes),
        (mode(), names(), names(), rebind()).prop_map(|(mode, search, domains, rebind)| Frame::Dns(Dns {
            mode,
            search,
            domains,
            rebind,
        })),
        (level, "[a-z-]{0,20}", ".{0,80}").prop_map(|(level, code, text)| Frame::Notice(Notice {
            level,
            code,
            text
        })),
        (reason, ".{0,80}").prop_map(|(reason, text)| Frame::Goodbye(Goodbye { reason, text })),
        Just(Frame::Ending),
        Just(Frame::AskStatus),
        status().prop_map(Frame::SidecarStatus),
        (prefixes(), prop::collection::vec(address(), 0..4))
            .prop_map(|(networks, resolvers)| Frame::Codespace(Codespace { networks, resolvers })),
        any::<u32>().prop_map(Frame::Quiet),
        prop::collection::vec(any::<u8>(), 0..100).prop_map(|bytes| Frame::Standby(bytes.into())),
        (any::<u64>(), prop::collection::vec(any::<u8>(), 0..100))
            .prop_map(|(number, bytes)| Frame::Numbered(number, bytes.into())),
        Just(Frame::WantLane),
    ]
}

fn encoded(frames: &[Frame]) -> BytesMut {
    let mut bytes = BytesMut::new();
    frames.iter().for_each(|frame| frame.encode(&mut bytes));
    bytes
}

proptest! {
    #[test]
    fn frames_survive_any_split(frames in prop::collection::vec(frame(), 1..6), step in 1usize..50) {
        let bytes = encoded(&frames);
        let mut buffer = BytesMut::new();
        let mut decoded = Vec::new();
        for piece in bytes.chunks(step) {
            buffer.extend_from_slice(piece);
            while let Some(frame) = Frame::decode(&mut buffer).unwrap() {
                decoded.push(frame);
            }
        }
        prop_assert_eq!(decoded, frames);
        prop_assert!(buffer.is_empty());
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let mut buffer = BytesMut::from(&bytes[..]);
        while let Ok(Some(_)) = Frame::decode(&mut buffer) {}
    }

    #[test]
    fn arbitrary_payloads_of_known_kinds_never_panic(
        kind in 1u8..=WANT_LANE,
        payload in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let mut buffer = BytesMut::from(&header(kind, payload.len())[..]);
        buffer.extend_from_slice(&payload);
        let decoded = Frame::decode(&mut buffer);
        prop_assert!(!matches!(decoded, Ok(None)), "a whole frame of a known kind is a frame or an error");
    }

    #[test]
    fn arbitrary_bytes_with_a_number_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Frame::decode_numbered(bytes.into());
    }

    #[test]
    fn a_truncated_frame_waits_for_more(frame in frame()) {
        let bytes = encoded(std::slice::from_ref(&frame));
        let mut buffer = BytesMut::from(&bytes[..bytes.len() - 1]);
        prop_assert_eq!(Frame::decode(&mut buffer), Ok(None));
    }
}

#[test]
fn an_unknown_kind_is_skipped_by_its_length() {
    let mut buffer = BytesMut::from(&[200, 0, 0, 3, 1, 2, 3][..]);
    Frame::Ping(7).encode(&mut buffer);
    assert_eq!(Frame::decode(&mut buffer), Ok(Some(Frame::Ping(7))));
}

#[test]
fn fields_after_the_last_are_left_for_later_versions() {
    let mut buffer = BytesMut::from(&[PING, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 7, 99][..]);
    assert_eq!(Frame::decode(&mut buffer), Ok(Some(Frame::Ping(7))));
    assert!(buffer.is_empty());
}

#[test]
fn an_oversized_length_is_refused_from_the_header_alone() {
    let mut buffer = BytesMut::from(&header(PACKET, MAX_PAYLOAD + 1)[..]);
    let error = Frame::decode(&mut buffer).unwrap_err();
    assert_eq!(error, FrameError::TooLong { kind: PACKET, length: MAX_PAYLOAD + 1 });
}

#[test]
fn a_name_that_would_inject_a_line_into_resolv_conf_is_refused() {
    let mut buffer = BytesMut::new();
    let evil = "corp\nnameserver 6.6.6.6";
    let payload = [&[1u8, 0, 1, 0, evil.len() as u8][..], evil.as_bytes(), &[0, 0]].concat();
    buffer.extend_from_slice(&header(DNS, payload.len()));
    buffer.extend_from_slice(&payload);
    let error = Frame::decode(&mut buffer).unwrap_err();
    assert_eq!(error, FrameError::Malformed { kind: DNS, what: "a name is not a domain name" });
}

#[test]
fn excess_items_and_invalid_names_are_left_out_and_not_refused() {
    let longest = |n: usize| format!("{n:063}.{n:063}.{n:063}.{n:061}");
    let many: Vec<String> = ["no name".to_owned()].into_iter().chain((0..5000).map(longest)).collect();
    let mut buffer = encoded(&[Frame::Dns(Dns {
        mode: DnsMode::Split,
        search: many.clone(),
        domains: many.clone(),
        rebind: Rebind::Refuse,
    })]);
    let Ok(Some(Frame::Dns(dns))) = Frame::decode(&mut buffer) else { panic!("not decoded") };
    assert!(dns.search.len() > 100);
    assert_eq!(
        (&dns.search[..], &dns.domains[..]),
        (&many[1..=dns.search.len()], &many[1..=dns.domains.len()])
    );

    let prefix: IpNet = "fd00::/64".parse().unwrap();
    let full = Frame::Routes(Routes::Change { add: vec![prefix; MAX_PREFIXES], remove: vec![prefix; 9] });
    assert_eq!(Frame::decode(&mut encoded(std::slice::from_ref(&full))), Ok(Some(full)));
}

#[test]
fn a_codespace_with_more_than_a_list_holds_is_cut_and_not_refused() {
    let networks: Vec<IpNet> =
        (0..5000u32).map(|number| IpNet::from(IpAddr::from((10 << 24 | number).to_be_bytes()))).collect();
    let resolvers: Vec<IpAddr> = networks.iter().map(IpNet::addr).collect();
    let mut buffer = encoded(&[Frame::Codespace(Codespace { networks: networks.clone(), resolvers })]);
    let Ok(Some(Frame::Codespace(codespace))) = Frame::decode(&mut buffer) else { panic!("not decoded") };
    assert_eq!(codespace.networks, networks[..MAX_PREFIXES]);
    assert_eq!(codespace.resolvers.len(), MAX_PREFIXES);
}

#[test]
fn a_token_is_not_shown() {
    assert_eq!(format!("{:?}", Token([7; 32])), "Token(..)");
}

#[test]
fn a_large_set_of_routes_takes_several_frames_and_the_last_one_says_so() {
    let many: Vec<IpNet> = (0..5000u32)
        .map(|number| IpNet::new(std::net::Ipv4Addr::from(number << 8).into(), 24).unwrap())
        .collect();
    let frames: Vec<_> = Routes::full(&many).collect();
    let [
        Frame::Routes(Routes::Part(first)),
        Frame::Routes(Routes::Part(second)),
        Frame::Routes(Routes::Last(last)),
    ] = &frames[..]
    else {
        panic!("{} frames", frames.len())
    };
    assert_eq!([&first[..], second, last].concat(), many);
    assert_eq!(Routes::full(&[]).collect::<Vec<_>>(), [Frame::Routes(Routes::Last(vec![]))]);
}

#[test]
fn a_part_of_a_full_set_removes_nothing() {
    let prefix = [4, 10, 0, 0, 0, 8];
    let payload = [&[1, 0, 0, 0, 1][..], &prefix].concat();
    let mut buffer = BytesMut::from(&header(8, payload.len())[..]);
    buffer.extend_from_slice(&payload);
    assert!(matches!(Frame::decode(&mut buffer), Err(FrameError::Malformed { kind: 8, .. })));
}

/// Takes the last `missing` bytes from a frame's payload.
fn shortened(frame: &Frame, missing: usize) -> Option<Frame> {
    let mut bytes = encoded(std::slice::from_ref(frame));
    let kind = bytes[0];
    bytes.truncate(bytes.len() - missing);
    let length = bytes.len() - HEADER_LEN;
    bytes[..HEADER_LEN].copy_from_slice(&header(kind, length));
    Frame::decode(&mut bytes).unwrap()
}

#[test]
fn fields_that_an_earlier_version_does_not_send_have_their_defaults() {
    let dns = Dns {
        mode: DnsMode::Split,
        search: vec![],
        domains: vec!["corp.internal".into()],
        rebind: Rebind::Refuse,
    };
    let without = Dns { rebind: Rebind::Allow, ..dns.clone() };
    assert_eq!(shortened(&Frame::Dns(dns), 1), Some(Frame::Dns(without)));
    let counters = SidecarCounters {
        downlink_refused: 3,
        rebind_refused: 4,
        uplink_dropped: 5,
        ..SidecarCounters::default()
    };
    let status = SidecarStatus { uptime: 1, dns: DnsMode::Split, resolver_hook: true, routes: 2, counters };
    let without_one = SidecarCounters { uplink_dropped: 0, ..counters };
    let without_two = SidecarCounters { rebind_refused: 0, ..without_one };
    for (missing, counters) in [(8, without_one), (16, without_two)] {
        assert_eq!(
            shortened(&Frame::SidecarStatus(status), missing),
            Some(Frame::SidecarStatus(SidecarStatus { counters, ..status }))
        );
    }
}
