use std::collections::HashMap;

use etherparse::PacketBuilder;

use super::*;
use crate::own_sockets::{OwnSocket, Transport};

mod memory;

const CODESPACE: [u8; 4] = [198, 19, 240, 1];
const SERVER: [u8; 4] = [10, 20, 0, 10];
/// No packet is cut.
const WHOLE: usize = 65_535;

fn tcp(port: u16, to: [u8; 4], sequence: u32, payload: usize) -> Bytes {
    let mut packet = Vec::new();
    let segment = PacketBuilder::ipv4(CODESPACE, to, 64).tcp(port, 80, sequence, 1000).ack(1);
    segment.write(&mut packet, &vec![7; payload]).unwrap();
    packet.into()
}

fn syn(port: u16, to: [u8; 4]) -> Bytes {
    let mut packet = Vec::new();
    PacketBuilder::ipv4(CODESPACE, to, 64).tcp(port, 80, 1, 1000).syn().write(&mut packet, b"").unwrap();
    packet.into()
}

fn udp(port: u16, to: [u8; 4], payload: usize) -> Bytes {
    let mut packet = Vec::new();
    let datagram = PacketBuilder::ipv4(CODESPACE, to, 64).udp(port, 53);
    datagram.write(&mut packet, &vec![7; payload]).unwrap();
    packet.into()
}

fn uplink() -> Uplink {
    Uplink::new(OwnSockets::default())
}

/// The flow of this port has been answered by the server.
fn answer(uplink: &mut Uplink, port: u16) {
    let mut packet = Vec::new();
    let segment = PacketBuilder::ipv4(SERVER, CODESPACE, 64).tcp(80, port, 1, 1000).ack(2);
    segment.write(&mut packet, b"").unwrap();
    uplink.heard(&packet);
}

/// A datagram of the server to this port.
fn reply(port: u16) -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ipv4(SERVER, CODESPACE, 64).udp(53, port).write(&mut packet, b"").unwrap();
    packet
}

fn pop(uplink: &mut Uplink) -> Option<Bytes> {
    uplink.pop(WHOLE).map(|piece| [&piece.headers[..], &piece.payload].concat().into())
}

fn source_port(packet: &[u8]) -> u16 {
    u16::from(packet[20]) << 8 | u16::from(packet[21])
}

/// Uploads of the flows `1..=count`, each with `packets` segments of 60,000 bytes.
fn uploads(count: u16, packets: u32) -> Uplink {
    let mut uplink = uplink();
    for port in 1..=count {
        answer(&mut uplink, port);
        (0..packets).for_each(|n| assert_eq!(uplink.push(tcp(port, SERVER, n * 60_000, 60_000)), 0));
    }
    uplink
}

#[test]
fn a_keystroke_a_new_connection_and_a_question_wait_for_no_upload() {
    let mut uplink = uploads(2, 20);
    (0..6).for_each(|_| drop(pop(&mut uplink)));
    answer(&mut uplink, 22);
    let urgent = [tcp(22, SERVER, 1, 1), syn(5000, [10, 9, 9, 9]), udp(5001, [198, 19, 240, 2], 40)];
    urgent.iter().for_each(|packet| assert_eq!(uplink.push(packet.clone()), 0));
    for packet in urgent {
        assert_eq!(pop(&mut uplink), Some(packet));
    }
}

#[test]
fn a_flood_of_new_flows_takes_one_share() {
    let mut uplink = uploads(1, 100);
    answer(&mut uplink, 22);
    let (mut flood, mut upload) = (0, 0);
    for round in 0..20_000_u32 {
        // Two packets for each that leaves, to ever other addresses.
        for n in [2 * round, 2 * round + 1] {
            let [_, a, b, c] = n.to_be_bytes();
            uplink.push(syn(1000 + n as u16 % 60_000, [10, a, b, c]));
        }
        if round % 4000 == 3999 {
            let key = tcp(22, SERVER, round, 1);
            uplink.push(key.clone());
            assert_eq!(pop(&mut uplink), Some(key), "in round {round}");
            uplink.push(tcp(1, SERVER, round, 60_000));
        }
        let packet = pop(&mut uplink).unwrap();
        *if source_port(&packet) == 1 { &mut upload } else { &mut flood } += packet.len();
    }
    assert!(upload + 4 * 65_535 >= flood, "{upload} bytes of the upload, {flood} of the flood");
    assert!(upload > 500_000, "{upload}");
}

#[test]
fn a_flood_makes_no_other_network_wait() {
    let mut uplink = uplink();
    for n in 0..10_000_u32 {
        let [.., b, c] = n.to_be_bytes();
        uplink.push(syn(1000 + n as u16, [10, 20, 128 + b, c]));
        uplink.push(udp(1000 + n as u16, [10, 20, 128 + b, c], 10));
    }
    (0..2000).for_each(|_| assert!(uplink.pop(1500).is_some()));
    let (connection, question) = (syn(1, SERVER), udp(2, SERVER, 10));
    assert_eq!(uplink.push(connection.clone()) + uplink.push(question.clone()), 0);
    let mut ahead = 0;
    let mut wanted = vec![connection, question];
    while !wanted.is_empty() {
        let piece = uplink.pop(1500).unwrap();
        ahead += piece.len();
        wanted.retain(|packet| *packet != piece.payload);
    }
    assert!(ahead <= 2 * 1500 + 200, "{ahead} bytes");
}

#[test]
fn order_within_a_flow_stays_when_it_is_answered_or_forgotten() {
    let mut uplink = uplink();
    // Others, so that its answer does not find it alone.
    (0..50).for_each(|port| assert_eq!(uplink.push(tcp(1000 + port, SERVER, 1, 1)), 0));
    (0..10).for_each(|n| assert_eq!(uplink.push(tcp(1, SERVER, n, 1)), 0));
    answer(&mut uplink, 1);
    (10..20).for_each(|n| assert_eq!(uplink.push(tcp(1, SERVER, n, 1)), 0));
    uplink.connections = Answered::default();
    (20..30).for_each(|n| assert_eq!(uplink.push(tcp(1, SERVER, n, 1)), 0));
    let all: Vec<Bytes> = std::iter::from_fn(|| pop(&mut uplink)).collect();
    let own: Vec<&Bytes> = all.iter().filter(|packet| source_port(packet) == 1).collect();
    assert_eq!(own, (0..30).map(|n| tcp(1, SERVER, n, 1)).collect::<Vec<_>>().iter().collect::<Vec<_>>());
    assert_eq!(all.len(), 80);
}

#[test]
fn too_much_is_dropped_from_the_head_of_the_longest_queue() {
    let mut uplink = uploads(2, 3);
    answer(&mut uplink, 3);
    let mut dropped = 0;
    for n in 0..1000 {
        dropped += uplink.push(tcp(3, SERVER, n, 60_000));
        assert!(uplink.waiting.cost() <= MOST_STREAMS);
    }
    let left: Vec<Bytes> = std::iter::from_fn(|| pop(&mut uplink)).collect();
    let of = |port| left.iter().filter(|packet| source_port(packet) == port).count();
    assert_eq!((of(1), of(2)), (3, 3));
    assert_eq!(of(3) as u64 + dropped, 1000);
    assert!(left.contains(&tcp(3, SERVER, 999, 60_000)), "the latest");
    assert_eq!(uplink.waiting.cost(), 0);
}

#[test]
fn what_waits_of_one_flow_of_datagrams_is_bounded() {
    let mut uplink = uplink();
    uplink.heard(&reply(7));
    let dropped: u64 = (0..5000).map(|_| uplink.push(udp(7, SERVER, 1200))).sum();
    let left = std::iter::from_fn(|| pop(&mut uplink)).count() as u64;
    assert_eq!(left + dropped, 5000);
    assert!((500..1000).contains(&left), "{left}");
}

#[test]
fn eight_uploads_share_evenly_in_small_pieces() {
    let mut uplink = uploads(8, 50);
    let mut bytes: HashMap<u16, usize> = HashMap::new();
    for _ in 0..8000 {
        let piece = uplink.pop(1500).unwrap();
        assert!(piece.len() <= 1500);
        *bytes.entry(source_port(&piece.headers)).or_default() += piece.len();
    }
    let (most, least) = (bytes.values().max().unwrap(), bytes.values().min().unwrap());
    assert!(bytes.len() == 8 && most - least <= 3 * 1500, "{bytes:?}");
}

#[test]
fn without_a_link_one_segment_of_each_connection_is_held() {
    let mut uplink = uploads(2, 20);
    uplink.push(udp(7, SERVER, 10));
    uplink.push(syn(3, SERVER));
    // A piece is under way.
    assert!(uplink.pop(1500).is_some());
    uplink.hold_all();
    uplink.hold(&syn(4, SERVER));
    assert_eq!(uplink.resume(), 0);
    uplink.push(tcp(1, SERVER, 5, 5));
    let mut sent: Vec<Bytes> = std::iter::from_fn(|| pop(&mut uplink)).collect();
    // Stable: the order within a flow stays.
    sent.sort_by_key(|packet| source_port(packet));
    assert_eq!(
        sent,
        [
            tcp(1, SERVER, 19 * 60_000, 60_000),
            tcp(1, SERVER, 5, 5),
            tcp(2, SERVER, 19 * 60_000, 60_000),
            syn(3, SERVER),
            syn(4, SERVER)
        ]
    );
}

/// How many datagrams arrive whole in these fragments.
fn whole_datagrams(fragments: &[Piece]) -> usize {
    let mut received: HashMap<[u8; 2], usize> = HashMap::new();
    let mut whole = 0;
    for fragment in fragments {
        let header = &fragment.headers[..20];
        let received = received.entry([header[4], header[5]]).or_default();
        *received += fragment.len() - 20;
        let place = u16::from_be_bytes([header[6], header[7]]);
        let (offset, more) = (usize::from(place & 0x1fff) * 8, place & 0x2000 != 0);
        whole += usize::from(!more && *received == offset + fragment.len() - 20);
    }
    whole
}

#[test]
fn large_datagrams_that_come_faster_than_the_link_arrive_whole() {
    for answered in [false, true] {
        let mut uplink = uplink();
        if answered {
            uplink.heard(&reply(7));
        }
        let mut pieces = Vec::new();
        for _ in 0..500 {
            uplink.push(udp(7, SERVER, 60_000));
            // A tenth of it leaves until the next one comes.
            pieces.extend((0..5).filter_map(|_| uplink.pop(1280)));
        }
        let whole = whole_datagrams(&pieces);
        assert!(whole >= 45, "{whole} of 50");
    }
}

#[test]
fn many_flows_of_datagrams_to_one_host_are_one_share() {
    let mut uplink = uploads(1, 20);
    (2..1000).for_each(|port| assert_eq!(uplink.heard(&reply(port)), 0));
    (2..1000).for_each(|port| assert_eq!(uplink.push(udp(port, SERVER, 400)), 0));
    let sent: Vec<Piece> = (0..500).filter_map(|_| uplink.pop(1280)).collect();
    let all: usize = sent.iter().map(Piece::len).sum();
    let upload: usize = sent.iter().filter(|piece| !piece.headers.is_empty()).map(Piece::len).sum();
    assert!(upload * 5 >= all * 2, "{upload} of {all} bytes are the upload's");
}

#[test]
fn datagrams_displace_no_segment() {
    let mut uplink = uploads(400, 1);
    let mut dropped = 0;
    for host in 0..=255 {
        let to = [10, 20, 1, host];
        let mut answer = Vec::new();
        PacketBuilder::ipv4(to, CODESPACE, 64).udp(53, 7).write(&mut answer, b"").unwrap();
        uplink.heard(&answer);
        dropped += (0..200).map(|_| uplink.push(udp(7, to, 1000))).sum::<u64>();
    }
    assert!(dropped > 0);
    let left: Vec<Bytes> = std::iter::from_fn(|| pop(&mut uplink)).collect();
    let segments = left.iter().filter(|packet| packet[9] == 6).count();
    assert_eq!(segments, 400);
    assert_eq!((left.len() - segments) as u64 + dropped, 256 * 200);
}

#[test]
fn what_was_held_goes_in_turn_on_the_next_link() {
    let mut uplink = uploads(20, 3);
    uplink.hold_all();
    assert_eq!(uplink.resume(), 0);
    answer(&mut uplink, 22);
    let key = tcp(22, SERVER, 1, 1);
    assert_eq!(uplink.push(key.clone()), 0);
    let sent: Vec<Piece> = (0..45).filter_map(|_| uplink.pop(1280)).collect();
    assert!(sent.iter().all(|piece| piece.len() <= 1280));
    assert!(sent.iter().any(|piece| piece.payload == key));
}

#[test]
fn all_that_is_dropped_is_counted() {
    let mut uplink = uplink();
    let mut dropped = 0;
    for n in 0..20_000_u32 {
        let [.., a, b] = n.to_be_bytes();
        dropped += uplink.push(syn(7, [10, 20, a, b])) + uplink.push(udp(7, [10, 20, a, b], 10));
    }
    let left = std::iter::from_fn(|| pop(&mut uplink)).count() as u64;
    assert_eq!(left + dropped, 40_000);
}

#[test]
fn what_was_long_keeps_no_memory() {
    let mut uplink = uploads(1, 100);
    for n in 0..2000 {
        uplink.push(tcp(1, SERVER, n, 1));
    }
    while uplink.waiting.cost() > 2000 {
        drop(pop(&mut uplink));
    }
    let Some(Branch::Stream(queue)) =
        uplink.waiting.peek(uplink.hasher.hash_one(Flow::of(&tcp(1, SERVER, 0, 1))))
    else {
        panic!("no queue");
    };
    assert!(queue.packets.capacity() <= 64, "{}", queue.packets.capacity());
}

/// The laptop's address, where its resolver is.
const GATEWAY: [u8; 4] = [198, 19, 240, 2];

fn own(sockets: &OwnSockets, transport: Transport, port: u16) -> OwnSocket {
    let server = if transport == Transport::Udp { (GATEWAY, 53) } else { (GATEWAY, 80) };
    sockets.add(transport, (CODESPACE, port).into(), server.into())
}

#[test]
fn a_flood_to_the_laptops_resolver_makes_no_question_of_the_sidecar_wait() {
    let sockets = OwnSockets::default();
    let mut uplink = Uplink::new(sockets.clone());
    let mut answer = Vec::new();
    PacketBuilder::ipv4(GATEWAY, CODESPACE, 64).udp(53, 7).write(&mut answer, b"").unwrap();
    uplink.heard(&answer);
    let _open = [own(&sockets, Transport::Udp, 5000), own(&sockets, Transport::Tcp, 5001)];
    let questions = [udp(5000, GATEWAY, 40), syn(5001, GATEWAY)];
    let mut flood = (10_000..60_000).map(|port| [udp(port, GATEWAY, 900), syn(port, GATEWAY)]);
    let dropped: u64 = flood.by_ref().take(5000).flatten().map(|packet| uplink.push(packet)).sum();
    (0..1000).for_each(|_| assert!(uplink.pop(1500).is_some()));
    questions.iter().for_each(|question| assert_eq!(uplink.push(question.clone()), 0));
    let dropped = dropped + flood.take(5000).flatten().map(|packet| uplink.push(packet)).sum::<u64>();
    assert!(dropped > 0, "it is more than there is room for");
    let ahead: Vec<Bytes> =
        std::iter::from_fn(|| pop(&mut uplink)).take_while(|packet| *packet != questions[1]).collect();
    assert!(ahead.contains(&questions[0]));
    let bytes: usize = ahead.iter().map(Bytes::len).sum();
    assert!(bytes <= 3 * 1500, "{bytes} bytes ahead");
}

#[test]
fn among_thousands_of_uploads_each_question_of_the_sidecar_goes_soon() {
    let sockets = OwnSockets::default();
    let mut uplink = Uplink::new(sockets.clone());
    for port in 1..=2000 {
        answer(&mut uplink, port);
        (0..8).for_each(|n| assert_eq!(uplink.push(tcp(port, SERVER, n * 1400, 1400)), 0));
    }
    (0..4000).for_each(|_| assert!(uplink.pop(1500).is_some()));
    for port in 50_000..50_010 {
        let _open = own(&sockets, Transport::Udp, port);
        let question = udp(port, GATEWAY, 40);
        uplink.push(question.clone());
        let ahead =
            std::iter::from_fn(|| uplink.pop(1500)).take_while(|piece| piece.payload != question).count();
        assert_eq!(ahead, 0, "of question {port}");
        (0..3).for_each(|_| assert!(uplink.pop(1500).is_some()));
    }
}

#[test]
fn only_packets_of_the_sidecars_sockets_are_its_own() {
    let sockets = OwnSockets::default();
    let mut uplink = Uplink::new(sockets.clone());
    let open = own(&sockets, Transport::Udp, 5000);
    let is_own = |uplink: &mut Uplink, packet: Bytes| {
        uplink.push(packet);
        let is_own = uplink.waiting.peek(uplink.hasher.hash_one("own")).is_some_and(|own| !own.is_empty());
        while pop(uplink).is_some() {}
        is_own
    };
    assert!(is_own(&mut uplink, udp(5000, GATEWAY, 40)));
    assert!(!is_own(&mut uplink, udp(5000, GATEWAY, 40)), "it has asked: this is a program's, by IP_PKTINFO");
    let mut forged = Vec::new();
    PacketBuilder::ipv4([172, 17, 0, 2], GATEWAY, 64).udp(5000, 53).write(&mut forged, b"").unwrap();
    for other in [udp(5001, GATEWAY, 40), udp(5000, SERVER, 40), syn(5000, GATEWAY), forged.into()] {
        assert!(!is_own(&mut uplink, other));
    }
    let [udp_socket, tcp_socket] = [own(&sockets, Transport::Udp, 5000), own(&sockets, Transport::Tcp, 5001)];
    (0..2).for_each(|_| assert!(is_own(&mut uplink, syn(5001, GATEWAY))));
    drop((open, udp_socket, tcp_socket));
    for closed in [udp(5000, GATEWAY, 40), syn(5001, GATEWAY)] {
        assert!(!is_own(&mut uplink, closed));
    }
}
