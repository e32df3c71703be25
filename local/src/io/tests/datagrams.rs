//! UDP and echo.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::thread;

use bytes::Bytes;
use etherparse::IpNumber;
use gh_net_testkit::build;
use gh_net_testkit::packet::Packet;

use super::codespace::{CODESPACE, Codespace, GATEWAY, io, io_asking, run};
use crate::resolver::Resolver;

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn udp(from_port: u16, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    build::udp(SocketAddr::new(CODESPACE.into(), from_port), to, payload)
}

fn echo_request(to: IpAddr, id: u16, sequence: u16, payload: &[u8]) -> Vec<u8> {
    build::echo(CODESPACE.into(), to, id, sequence, payload)
}

/// The protocol, the source, and what follows the IP header.
fn parts(packet: &Bytes) -> (IpNumber, IpAddr, Vec<u8>) {
    let packet = Packet::verified(packet);
    assert_eq!(packet.to, IpAddr::V4(CODESPACE));
    (packet.protocol, packet.from, packet.transport)
}

#[tokio::test]
async fn datagrams_of_every_size_come_back() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    let served = thread::spawn(move || {
        let mut sources = std::collections::BTreeSet::new();
        for _ in 0..5 {
            let mut buffer = vec![0; 65_536];
            let (len, source) = server.recv_from(&mut buffer).unwrap();
            server.send_to(&buffer[..len], source).unwrap();
            sources.insert(source);
        }
        sources.len()
    });
    let (mut codespace, laptop) = Codespace::new();
    let _running = run(io(), laptop);
    codespace.greet().await;
    for len in [0, 1, 1400, 9000, 60_000] {
        let payload: Vec<u8> = (0..len).map(|i| i as u8).collect();
        codespace.send(udp(5353, address, &payload));
        let packet = codespace.other().await;
        let (protocol, source, datagram) = parts(&packet);
        assert_eq!((protocol, source), (IpNumber::UDP, LOCALHOST));
        assert_eq!(datagram[..2], address.port().to_be_bytes());
        assert_eq!(datagram[2..4], 5353_u16.to_be_bytes());
        assert!(datagram[8..] == payload);
    }
    assert_eq!(served.join().unwrap(), 1, "one mapping for one source");
}

#[tokio::test]
async fn a_closed_udp_port_is_reported_and_the_mapping_goes_on() {
    let closed = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let open = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (mut codespace, laptop) = Codespace::new();
    let _running = run(io(), laptop);
    codespace.greet().await;
    for _ in 0..3 {
        codespace.send(udp(5353, closed, b"anybody?"));
        let packet = codespace.other().await;
        let (protocol, source, message) = parts(&packet);
        assert_eq!((protocol, source), (IpNumber::ICMP, LOCALHOST));
        assert_eq!(message[..2], [3, 3], "port unreachable");
        // It quotes the datagram as the codespace sent it.
        assert_eq!(message[8 + 12..8 + 16], CODESPACE.octets());
        assert_eq!(message[8 + 20..8 + 22], 5353_u16.to_be_bytes());
        assert_eq!(message[8 + 22..8 + 24], closed.port().to_be_bytes());
    }
    codespace.send(udp(5353, open.local_addr().unwrap(), b"hello"));
    let heard = thread::spawn(move || {
        let mut buffer = [0; 16];
        let (len, _) = open.recv_from(&mut buffer).unwrap();
        buffer[..len].to_vec()
    });
    codespace.until(|_| heard.is_finished().then_some(())).await;
    assert_eq!(heard.join().unwrap(), b"hello");
}

/// A question for `name`'s records of type `kind`.
fn question(name: &str, kind: u8) -> Vec<u8> {
    let mut message = b"\0\x07\x01\0\0\x01\0\0\0\0\0\0".to_vec();
    for label in name.split('.') {
        message.push(label.len() as u8);
        message.extend_from_slice(label.as_bytes());
    }
    message.extend_from_slice(&[0, 0, kind, 0, 1]);
    message
}

#[tokio::test]
async fn a_question_that_gave_way_leaves_its_place_at_the_resolver() {
    const A: u8 = 1;
    const TXT: u8 = 16;
    let (mut codespace, laptop) = Codespace::new();
    let _running = run(io_asking(Resolver::hanging()), laptop);
    codespace.greet().await;
    let resolver = SocketAddr::new(GATEWAY.into(), 53);
    for _ in 0..5000 {
        codespace.send(udp(5000, resolver, &question("host.dead.example", A)));
        codespace.flush().await;
    }
    // Nobody is asked for it, so the answer comes at once.
    codespace.send(udp(6000, resolver, &question("corp", TXT)));
    let answer = codespace.other().await;
    let (_, source, datagram) = parts(&answer);
    assert_eq!(source, IpAddr::V4(GATEWAY));
    assert_eq!(datagram[2..4], 6000_u16.to_be_bytes());
}

#[tokio::test]
async fn pings_of_every_size_come_back() {
    if super::super::icmp::Echo::open(false, None, 1).is_err() {
        return super::skip("pings_of_every_size_come_back", "this user may not open ping sockets");
    }
    let (mut codespace, laptop) = Codespace::new();
    let _running = run(io(), laptop);
    codespace.greet().await;
    for (sequence, len) in [(1, 0), (2, 56), (3, 20_000), (4, 65_000)] {
        let payload: Vec<u8> = (0..len).map(|i| i as u8).collect();
        codespace.send(echo_request(LOCALHOST, 0x1234, sequence, &payload));
        let (protocol, source, message) = parts(&codespace.other().await);
        assert_eq!((protocol, source), (IpNumber::ICMP, LOCALHOST));
        assert_eq!(message[..2], [0, 0], "echo reply");
        assert_eq!(message[4..6], 0x1234_u16.to_be_bytes());
        assert_eq!(message[6..8], u16::to_be_bytes(sequence));
        assert!(message[8..] == payload);
    }
}
