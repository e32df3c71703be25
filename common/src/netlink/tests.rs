use std::net::IpAddr;

use netlink_packet_core::{DoneMessage, ErrorMessage};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::AddressAttribute;
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteNextHop, RouteType};

use nix::libc::{ENOMEM, EPERM};

use super::*;

const SEQUENCE: u32 = 7;

type Payload = NetlinkPayload<RouteNetlinkMessage>;

/// One message as the kernel sends it.
fn encoded(flags: u16, sequence: u32, payload: Payload) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    header.sequence_number = sequence;
    let mut message = NetlinkMessage::new(header, payload);
    message.finalize();
    let mut bytes = vec![0; message.buffer_len().next_multiple_of(4)];
    message.serialize(&mut bytes);
    bytes
}

fn route_message(v4: [u8; 4], length: u8) -> RouteMessage {
    let mut route = RouteMessage::default();
    route.header.address_family = AddressFamily::Inet;
    route.header.kind = RouteType::Unicast;
    route.header.destination_prefix_length = length;
    route.attributes.push(RouteAttribute::Destination(RouteAddress::Inet(v4.into())));
    route
}

fn route(v4: [u8; 4]) -> Payload {
    NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(route_message(v4, 32)))
}

fn done(code: i32) -> Payload {
    let mut done = DoneMessage::default();
    done.code = code;
    NetlinkPayload::Done(done)
}

fn take(message: RouteNetlinkMessage) -> Option<String> {
    let RouteNetlinkMessage::NewRoute(route) = message else { return None };
    Route::from_message(route).map(|route| route.prefix.to_string())
}

#[test]
fn a_dump_goes_over_datagrams_and_leaves_other_answers_out() {
    let mut dump = Dump::default();
    let foreign = encoded(0, SEQUENCE - 1, route([9, 9, 9, 9]));
    let first = [foreign, encoded(0, SEQUENCE, route([10, 0, 0, 1]))].concat();
    assert!(!dump.read(&first, SEQUENCE, take).unwrap());
    let second = [encoded(0, SEQUENCE, route([10, 0, 0, 2])), encoded(0, SEQUENCE, done(0))].concat();
    assert!(dump.read(&second, SEQUENCE, take).unwrap());
    assert_eq!(dump.items, ["10.0.0.1/32", "10.0.0.2/32"]);
    assert!(!dump.interrupted && !dump.truncated);
}

#[test]
fn a_dump_that_a_change_interrupted_says_so() {
    let mut dump = Dump::default();
    dump.read(&encoded(NLM_F_DUMP_INTR, SEQUENCE, route([10, 0, 0, 1])), SEQUENCE, take).unwrap();
    assert!(dump.interrupted);
}

#[test]
fn a_dump_that_fails_midway_is_an_error() {
    let mut dump = Dump::default();
    let failed = dump.read(&encoded(0, SEQUENCE, done(-ENOMEM)), SEQUENCE, take);
    assert_eq!(failed.unwrap_err().raw_os_error(), Some(ENOMEM));
    let mut refusal = ErrorMessage::default();
    refusal.code = std::num::NonZeroI32::new(-EPERM);
    let refused = encoded(0, SEQUENCE, NetlinkPayload::Error(refusal));
    let error = Dump::default().read(&refused, SEQUENCE, take).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(EPERM));
}

#[test]
fn a_dump_is_bounded_and_keeps_the_first_in_order() {
    let number = |message| match message {
        RouteNetlinkMessage::NewRoute(route) => Route::from_message(route).map(|route| route.prefix.addr()),
        _ => None,
    };
    let mut dump = Dump { sort: Some(<[IpAddr]>::sort_unstable), ..Dump::default() };
    let count = 3 * MAX_ITEMS as u32;
    for n in (0..count).rev() {
        dump.read(&encoded(0, SEQUENCE, route((n + (10 << 24)).to_be_bytes())), SEQUENCE, number).unwrap();
        assert!(dump.items.len() < 2 * MAX_ITEMS);
    }
    dump.truncate();
    assert!(dump.truncated);
    let first = |n: u32| IpAddr::from((n + (10 << 24)).to_be_bytes());
    assert_eq!(dump.items, (0..MAX_ITEMS as u32).map(first).collect::<Vec<_>>());
}

#[test]
fn a_dump_of_the_largest_size_is_whole() {
    let mut dump = Dump::default();
    let message = encoded(0, SEQUENCE, route([10, 0, 0, 1]));
    for _ in 0..MAX_ITEMS {
        dump.read(&message, SEQUENCE, take).unwrap();
    }
    dump.truncate();
    assert_eq!((dump.truncated, dump.items.len()), (false, MAX_ITEMS));
    dump.read(&message, SEQUENCE, take).unwrap();
    dump.truncate();
    assert_eq!((dump.truncated, dump.items.len()), (true, MAX_ITEMS));
}

#[test]
fn an_answer_cut_short_is_an_error_and_never_a_panic() {
    let message = encoded(0, SEQUENCE, route([10, 0, 0, 1]));
    for length in 1..message.len() {
        assert!(Dump::default().read(&message[..length], SEQUENCE, take).is_err(), "{length}");
    }
}

#[test]
fn all_next_hops_of_a_multipath_route_are_found() {
    let mut message = route_message([0, 0, 0, 0], 0);
    let hop = |index, router: [u8; 4]| {
        let mut hop = RouteNextHop::default();
        hop.interface_index = index;
        hop.attributes = vec![RouteAttribute::Gateway(RouteAddress::Inet(router.into()))];
        hop
    };
    let hops = vec![hop(2, [192, 168, 7, 1]), hop(3, [192, 168, 8, 1])];
    message.attributes = vec![RouteAttribute::MultiPath(hops), RouteAttribute::Table(51820)];
    let route = Route::from_message(message).unwrap();
    let gateways: Vec<_> = route.gateways().collect();
    assert_eq!(gateways, [IpAddr::from([192, 168, 7, 1]), IpAddr::from([192, 168, 8, 1])]);
    assert_eq!((route.table, route.prefix.prefix_len()), (51820, 0));
}

#[test]
fn the_network_of_a_point_to_point_address_is_the_peers() {
    let mut message = AddressMessage::default();
    message.header.prefix_len = 32;
    message.attributes =
        vec![AddressAttribute::Address([10, 8, 0, 5].into()), AddressAttribute::Local([10, 8, 0, 6].into())];
    let address = Address::from_message(message).unwrap();
    assert_eq!(address.address.to_string(), "10.8.0.6/32");
    assert_eq!(address.network().to_string(), "10.8.0.5/32");
}

#[test]
fn the_kernel_answers_a_dump_and_a_refused_request() {
    let mut netlink = Netlink::open().unwrap();
    netlink.addresses().unwrap();
    netlink.routes(|_| true).unwrap();
    assert_eq!(netlink.route_to([127, 0, 0, 1].into()).unwrap().unwrap().kind, RouteKind::Local);
    netlink.addresses().unwrap();
    // Interface 0 does not exist, for root neither.
    let nothing = RouteNetlinkMessage::DelAddress(AddressMessage::default());
    let errors = netlink.batch(vec![(nothing.clone(), 0), (nothing, 0)]).unwrap();
    assert_eq!(errors.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [0, 1]);
}
